"""Lines and columns of the texts that a person reads: what fits, how numbers look, and how a console prints them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moesim.analysis.compare import Interval

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
DOT = " · "
STYLES = {
    "title": "bold",
    "head": "bold cyan",
    "oracle": "magenta",
    "bound": "blue",
    "note": "dim",
    "warn": "bold yellow",
    "plain": "",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a text; `style` is a key of STYLES."""

    text: str
    style: str = "plain"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: heading of two lines, the cell of a row, how soon it is given up where rows are too wide (0: never)."""

    heading: tuple[str, str]
    cell: Callable[..., str]
    give_up: int = 0
    left: bool = False


def plain(lines: Sequence[Line]) -> str:
    """The lines as plain text."""
    return "\n".join(line.text for line in lines) + "\n"


def width_of(console: Console) -> int:
    """The columns to fill: those of a terminal, and no fewer than WIDTH elsewhere."""
    return console.width if console.is_terminal else max(console.width, WIDTH)


def show(lines: Sequence[Line], console: Console) -> None:
    """Print the lines, styled where the console is a terminal and plain elsewhere."""
    from rich.text import Text

    for line in lines:
        console.print(Text(line.text, style=STYLES[line.style]), soft_wrap=True)


def fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> tuple[list[int], list[int]]:
    """Which columns to keep so that a row fits, and their widths."""
    widths = [
        max(len(cell) for cell in (*column.heading, *(row[i] for row in rows))) for i, column in enumerate(columns)
    ]
    kept = list(range(len(columns)))
    while sum(widths[i] + 1 for i in kept) - 1 > width:
        spare = max(kept, key=lambda i: columns[i].give_up)
        if not columns[spare].give_up:
            break
        kept.remove(spare)
    return kept, [widths[i] for i in kept]


def join(columns: Sequence[Column], cells: Sequence[str], kept: list[int], widths: list[int]) -> str:
    """A row of the columns that are kept."""
    pairs = ((cells[i].ljust(w) if columns[i].left else cells[i].rjust(w)) for i, w in zip(kept, widths, strict=True))
    return " ".join(pairs).rstrip()


def wrapped(parts: Sequence[str], width: int, indent: str = "  ", between: str = DOT) -> list[str]:
    """The parts as one line, or as several where they are too wide, broken between parts only."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(between) + len(part) <= width:
            lines[-1] += between + part
        else:
            lines.append(indent * bool(lines) + part)
    return lines


def number(interval: Interval) -> str:
    """A mean with the half-width of its interval, in equal decimals."""
    if math.isnan(interval.value) or not interval.bounded:
        return significant(interval.value)
    digits = decimals(interval.value)
    return f"{interval.value:.{digits}f} ±{interval.half:.{digits}f}"


def significant(value: float) -> str:
    """Three significant digits without an exponent, blank for NaN."""
    return "" if math.isnan(value) else f"{value:.{decimals(value)}f}"


def share(captured: Interval) -> str:
    """A gap captured in percent; `unclear` where its interval is wider than ± 100 %, blank where there is none."""
    if math.isnan(captured.value):
        return ""
    return f"{round(captured.value * 100)}±{captured.half * 100:.0f}" if captured.half < 1 else "unclear"


def decimals(value: float) -> int:
    """Decimals that show three significant digits, at most six."""
    return 3 if value == 0 else min(max(2 - math.floor(math.log10(abs(value))), 0), 6)
