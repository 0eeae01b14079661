"""Plain CSV: arrival_s (or _ms, _us, _ns), prompt_tokens, output_tokens, and if you like domain.

Lines before the header that begin with # are comments.
"""

from __future__ import annotations

from moesim.trace.formats.sheet import TEMPORARY, Sheet
from moesim.trace.formats.table import Table


def since_start(sheet: Sheet, line: int, text: str, column: str) -> int | None:
    """ns of a time in the unit that its column names."""
    return sheet.time(line, text, column, column.removeprefix("arrival_"))


FORMAT = Table(
    name="csv",
    about="plain CSV",
    times={f"arrival_{unit}": since_start for unit in TEMPORARY},
    prompt="prompt_tokens",
    output="output_tokens",
    domain="domain",
    others=(),
    comments=True,
)
