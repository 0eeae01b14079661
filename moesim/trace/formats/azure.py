"""Azure LLM inference trace 2023 (Patel et al., Splitwise, ISCA'24): TIMESTAMP,ContextTokens,GeneratedTokens.

Timestamps are absolute with up to 9 decimals of a second (the published files have 7); the first request is time 0.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from moesim.trace.formats.sheet import Sheet
from moesim.trace.formats.table import Table

STAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:\+00:00|Z)?")


def stamp(sheet: Sheet, line: int, text: str, column: str) -> int | None:
    """ns since 1970 of a timestamp in UTC."""
    match = STAMP.fullmatch(text)
    try:
        if match:
            whole = int(datetime.fromisoformat(match[1]).replace(tzinfo=UTC).timestamp())
            return whole * 10**9 + int((match[2] or "").ljust(9, "0"))
    except ValueError:
        pass  # a day that the calendar does not have
    sheet.wrong(line, f"{column} {text[:40]!r} must be a time such as 2023-11-16 18:15:46.6805900")
    return None


FORMAT = Table(
    name="azure",
    about="Azure LLM inference trace, CSV",
    times={"TIMESTAMP": stamp},
    prompt="ContextTokens",
    output="GeneratedTokens",
)
