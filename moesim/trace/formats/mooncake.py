"""Mooncake traces (Qin et al., FAST'25): a JSON object a line with timestamp (ms), input_length and output_length.

hash_ids, the blocks of a prompt that may be shared with others, are not read: moesim has no prefix cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from moesim.trace.formats.sheet import Sheet

KEYS = ("timestamp", "input_length", "output_length")


@dataclass(frozen=True, slots=True)
class Mooncake:
    """Reads JSON lines."""

    name: str = "mooncake"
    about: str = "Mooncake trace, JSON lines"

    @property
    def header(self) -> str:
        """What a line holds, in words."""
        return '{"timestamp": ms, "input_length": tokens, "output_length": tokens, ...} a line'

    def fits(self, head: str) -> bool:
        """Whether the first line of a file begins a JSON object."""
        return head.lstrip().startswith("{")

    def read(self, lines: Sequence[str], ended: bool, sheet: Sheet) -> None:
        """Put every request of the lines into the sheet; `ended`: the last line has its newline."""
        if not lines:
            sheet.wrong(1, f"is empty; expected {self.header}")
        for number, line in enumerate(lines, 1):
            entry = _object(line, number, number == len(lines) and not ended, sheet)
            if entry is None:
                continue
            if missing := [key for key in KEYS if key not in entry]:
                sheet.wrong(number, f"has no {', '.join(missing)}; expected {self.header}")
                continue
            time, prompt, output = (_text(entry[key]) for key in KEYS)
            sheet.add(
                number,
                sheet.time(number, time, "timestamp", "ms"),
                sheet.tokens(number, prompt, "input_length"),
                sheet.tokens(number, output, "output_length"),
                f"{time} ms",
                "",
            )


def _object(line: str, number: int, last: bool, sheet: Sheet) -> dict[str, Any] | None:
    if not line.strip():
        sheet.wrong(number, "is empty; a request is expected")
        return None
    try:
        entry = json.loads(line, parse_float=Decimal, parse_int=Decimal)
    except json.JSONDecodeError as error:
        cut = "; the file ends in the middle of this line" if last else ""
        sheet.wrong(number, f"is no JSON ({error.msg}, column {error.colno}){cut}")
        return None
    except RecursionError:
        sheet.wrong(number, "is nested too deeply for a request")
        return None
    if not isinstance(entry, dict):
        sheet.wrong(number, f"is no JSON object: {line.strip()[:40]!r}")
        return None
    return entry


def _text(value: object) -> str:
    return str(value) if isinstance(value, Decimal) else json.dumps(value, default=str)


FORMAT = Mooncake()
