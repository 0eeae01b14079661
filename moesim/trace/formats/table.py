"""CSV formats: a header that names the columns, then a request a line."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moesim.trace.formats.sheet import Sheet

Time = Callable[[Sheet, int, str, str], int | None]
"""(sheet, line, text, column) -> ns, or None where the text is wrong and was noted"""


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV format. `times` maps each column that may hold the time to its reader; the header must have one of them."""

    name: str
    about: str
    times: dict[str, Time]
    prompt: str
    output: str
    domain: str | None = None
    others: tuple[str, ...] | None = None
    """further columns that may be there and are not read; None: any"""
    comments: bool = False
    """lines before the header that begin with # are skipped"""

    @property
    def header(self) -> str:
        """The header in words."""
        optional = f"[,{self.domain}]" if self.domain else ""
        return f"{'|'.join(self.times)},{self.prompt},{self.output}{optional}"

    def fits(self, head: str) -> bool:
        """Whether the first line of a file is this format's header."""
        names = _split(head)
        return {self.prompt, self.output} <= set(names) and any(time in names for time in self.times)

    def known(self, head: str) -> int:
        """How many of the columns that it needs a header has."""
        return len({*self.times, self.prompt, self.output} & set(_split(head)))

    def read(self, lines: Sequence[str], ended: bool, sheet: Sheet) -> None:
        """Put every request of the lines into the sheet; `ended`: the last line has its newline."""
        start = self.first_line(lines)
        if start == len(lines):
            sheet.wrong(1, f"is empty; expected the columns {self.header}")
            return
        names = _split(lines[start])
        if not self._header_is_right(names, start + 1, sheet):
            return
        time = next(name for name in names if name in self.times)
        at = {name: place for place, name in enumerate(names)}
        for number, line in enumerate(lines[start + 1 :], start + 2):
            cells = _split(line)
            if len(cells) != len(names):
                sheet.wrong(number, _count(cells, names, last=number == len(lines) and not ended))
                continue
            sheet.add(
                number,
                self.times[time](sheet, number, cells[at[time]], time),
                sheet.tokens(number, cells[at[self.prompt]], self.prompt),
                sheet.tokens(number, cells[at[self.output]], self.output),
                cells[at[time]],
                cells[at[self.domain]] if self.domain in at else "",
            )

    def first_line(self, lines: Sequence[str]) -> int:
        """Index of the header."""
        start = 0
        while self.comments and start < len(lines) and lines[start].startswith("#"):
            start += 1
        return start

    def _header_is_right(self, names: list[str], line: int, sheet: Sheet) -> bool:
        known = {*self.times, self.prompt, self.output, self.domain, *(self.others or ())}
        missing = [name for name in (self.prompt, self.output) if name not in names]
        if sum(name in self.times for name in names) != 1:
            missing.insert(0, " or ".join(self.times))
        unknown = [] if self.others is None else [name for name in names if name not in known]
        twice = sorted({name for name in names if names.count(name) > 1})
        wrong = [f"has no column {name}" for name in missing]
        wrong += [f"has the unknown column {name!r}" for name in unknown]
        wrong += [f"has the column {name!r} twice" for name in twice]
        if wrong:
            found = ",".join(names)[:80]
            sheet.wrong(line, f"the header {found!r} {', '.join(wrong)}; expected {self.header} ({self.about})")
        return not wrong


def _split(line: str) -> list[str]:
    try:
        cells = next(csv.reader([line]), []) if '"' in line else line.split(",")
    except csv.Error:  # a field that never ends
        cells = [line]
    return [cell.strip() for cell in cells]


def _count(cells: list[str], names: list[str], last: bool) -> str:
    if cells in ([""], []):
        return "is empty; a request is expected"
    cut = "; the file ends in the middle of this line" if last and len(cells) < len(names) else ""
    return f"has {len(cells)} values where the header has {len(names)} columns{cut}"
