"""BurstGPT (Wang et al. 2024), releases 1 and 2: Timestamp in seconds, Request tokens, Response tokens, and others.

Failed requests have no response tokens; the files called "without fails" leave them out.
"""

from __future__ import annotations

from moesim.trace.formats.sheet import Sheet
from moesim.trace.formats.table import Table


def seconds(sheet: Sheet, line: int, text: str, column: str) -> int | None:
    """ns of seconds."""
    return sheet.time(line, text, column, "s")


FORMAT = Table(
    name="burstgpt",
    about="BurstGPT, CSV",
    times={"Timestamp": seconds},
    prompt="Request tokens",
    output="Response tokens",
)
