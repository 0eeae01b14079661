"""The table of an experiment that a person reads: one row per configuration, grouped by what compares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moesim.analysis import compare
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import (
    UNLIMITED,
    Configuration,
    baseline,
    best,
    bound,
    distinctions,
    grouped,
    is_estimated,
    labels_of,
    read,
    size_text,
    summary_of,
)
from moesim.analysis.gap import MEASURES, against_baseline, gap

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
MISSES, TIME = MEASURES["misses"], MEASURES["time"]
STYLES = {
    "title": "bold",
    "head": "bold cyan",
    "oracle": "magenta",
    "bound": "blue",
    "note": "dim",
    "warn": "bold yellow",
    "plain": "",
}
MARKS = (
    "B baseline: the best policy without lookahead (level history) at equal bytes in either scope, by time per token",
    "* best of its group, oracles apart     o oracle: knows the future, not a policy to deploy",
    "± half of the 95 % interval of the mean over replications; (in parentheses): not shown to differ from B,",
    "  the paired 95 % interval of the difference includes 0",
    "gap captured: 0 % = best history policy, 100 % = best unlimited oracle, in misses and in time per token;",
    "  blank: the oracle was not shown to gain; unclear: the interval is wider than ± 100 %; ∞: unlimited horizon",
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table; `style` is a key of STYLES."""

    text: str
    style: str = "plain"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table: heading of two lines, cell of a configuration in its group, how soon it is given up."""

    heading: tuple[str, str]
    cell: Callable[[Configuration, Sequence[Configuration]], str]
    give_up: int = 0
    left: bool = False


def render(results: Any, width: int = WIDTH) -> str:
    """The table as plain text, at most `width` columns wide where it can be. `results` is a summary or has one."""
    return "\n".join(line.text for line in lines(results, width)) + "\n"


def show(results: Any, console: Console) -> None:
    """Print the table, styled where the console is a terminal and plain elsewhere."""
    from rich.text import Text

    width = console.width if console.is_terminal else max(console.width, WIDTH)
    for line in lines(results, width):
        console.print(Text(line.text, style=STYLES[line.style]), soft_wrap=True)


def lines(results: Any, width: int = WIDTH) -> list[Line]:
    """All lines: a block per group with its bounds, then what the figures are of and what the marks mean."""
    summary = summary_of(results)
    configurations = read(summary)
    groups = list(grouped(configurations).values())
    blocks = [[_cells(c, group, COLUMNS) for c in group] + _bound_rows(group) for group in groups]
    kept, widths = _fit([row for block in blocks for row in block], width)
    head = [Line(_join([column.heading[i] for column in COLUMNS], kept, widths), "head") for i in (0, 1)]
    estimated = any(is_estimated(c) for c in configurations)
    result = [Line("Times are ESTIMATED, not measured; see the last lines.", "warn"), Line("")] if estimated else []
    for group, block in zip(groups, blocks, strict=True):
        styles = ["oracle" if c.level == "oracle" else "plain" for c in group]
        styles += ["bound"] * (len(block) - len(group))
        result += _heading(_title(group, groups), head)
        result += [Line(_join(row, kept, widths), style) for row, style in zip(block, styles, strict=True)]
        result.append(Line(""))
    return result + [Line(text, "note") for text in footer(configurations)]


def footer(configurations: Sequence[Configuration]) -> list[str]:
    """What the figures are of, which of them are estimated, and what the marks mean."""
    schedules = {
        "frozen": "schedule frozen: all policies replay the same recorded steps, so misses and bounds compare exactly",
        "free": "schedule free: each policy forms its own batches; an oracle is no bound here",
    }
    found = sorted({str(c.value("schedule")) for c in configurations})
    replications = max((len(c.runs) for c in configurations), default=0)
    labels = [text for c in configurations for text in labels_of(c)]
    notes = list(dict.fromkeys(labels)) + [schedules.get(name, f"schedule {name}") for name in found]
    if replications == 1:
        notes.append("one replication: no intervals, so no difference and no gap is claimed (replications: 2 or more)")
    return [*notes, *MARKS]


def _heading(title: str, head: list[Line]) -> list[Line]:
    """Title and column headings; the title stands in the blank start of the first heading where it fits."""
    blank = len(head[0].text) - len(head[0].text.lstrip())
    if len(title) >= blank:
        return [Line(title, "title"), *head]
    return [Line(title + head[0].text[len(title) :], "title"), *head[1:]]


def _title(group: Sequence[Configuration], groups: Sequence[Sequence[Configuration]]) -> str:
    case, *rest = distinctions(group[0].group, [other[0].group for other in groups]) or [""]
    return " · ".join(filter(None, [case, size_text(group[0]), *rest]))


def _cells(configuration: Configuration, group: Sequence[Configuration], columns: Sequence[Column]) -> list[str]:
    return [column.cell(configuration, group) for column in columns]


def _mark(c: Configuration, group: Sequence[Configuration]) -> str:
    return "o" if c.level == "oracle" else "B" if c is baseline(group, TIME) else " "


def _mean_of(column: str, scale: float = 1.0) -> Callable[[Configuration, Sequence[Configuration]], str]:
    def cell(c: Configuration, group: Sequence[Configuration]) -> str:
        star = "*" if c is best([other for other in group if other.level != "oracle"], column) else " "
        return number(compare.mean(c.values(column) * scale)) + star

    return cell


def _latency(column: str) -> Callable[[Configuration, Sequence[Configuration]], str]:
    return lambda c, group: significant(c.mean(column) / 1e6)


def _difference(c: Configuration, group: Sequence[Configuration]) -> str:
    if c is baseline(group, TIME):
        return ""
    found = against_baseline(c, group, TIME)
    if math.isnan(found.value):
        return ""
    return f"{found.value:+.1%} " if found.excludes(0) else f"({found.value:+.1%})"


def _gap(measure: str) -> Callable[[Configuration, Sequence[Configuration]], str]:
    def cell(c: Configuration, group: Sequence[Configuration]) -> str:
        captured = gap(c, group, MEASURES[measure])
        if math.isnan(captured.value):
            return ""
        if c in (baseline(group, MEASURES[measure]), bound(group, MEASURES[measure])):
            return f"{abs(captured.value) * 100:.0f}"
        return f"{round(captured.value * 100)}±{captured.half * 100:.0f}" if captured.half < 1 else "unclear"

    return cell


COLUMNS = (
    Column(("", ""), _mark, left=True),
    Column(("", "policy"), lambda c, group: c.policy.replace(UNLIMITED, "∞"), left=True),
    Column(("", "scope"), lambda c, group: c.scope, left=True),
    Column(("misses per", "token "), _mean_of(MISSES)),
    Column(("ms per", "token "), _mean_of(TIME, 1e-6)),
    Column(("time", "vs B "), _difference, give_up=2),
    Column(("TTFT", "p50 ms"), _latency("ttft_p50_ns"), give_up=3),
    Column(("TPOT", "p50 ms"), _latency("tpot_p50_ns"), give_up=4),
    Column(("gap, %", "misses"), _gap("misses"), give_up=1),
    Column(("gap, %", "time"), _gap("time"), give_up=1),
)
BOUNDS = (
    ("bound: transfers (MIN)", "min_misses_per_output_token", "bound_transfer_ns_per_output_token"),
    ("bound: all resident", "", "bound_resident_ns_per_output_token"),
)


def _bound_rows(group: Sequence[Configuration]) -> list[list[str]]:
    """The bounds of the group as rows, in the columns of misses and of time; none where the runs have none.

    A scope has a row of its own where its bound differs.
    """
    rows: dict[tuple[str, ...], list[list[str]]] = {}
    for name, misses, time in BOUNDS:
        for configuration in {c.scope: c for c in group}.values():
            least = configuration.mean(misses) if misses else math.nan
            fastest = configuration.mean(time) / 1e6
            if not math.isnan(fastest):
                cells = ["", name, configuration.scope, significant(least) + " ", significant(fastest) + " "]
                rows.setdefault((name, *cells[3:]), []).append(cells + [""] * (len(COLUMNS) - len(cells)))
    return [[*same[0][:2], same[0][2] if len(same) == 1 else "", *same[0][3:]] for same in rows.values()]


def _fit(rows: list[list[str]], width: int) -> tuple[list[int], list[int]]:
    """Which columns to keep so that a row fits, and their widths."""
    widths = [
        max(len(cell) for cell in (*column.heading, *(row[i] for row in rows))) for i, column in enumerate(COLUMNS)
    ]
    kept = list(range(len(COLUMNS)))
    while sum(widths[i] + 1 for i in kept) - 1 > width:
        spare = max(kept, key=lambda i: COLUMNS[i].give_up)
        if not COLUMNS[spare].give_up:
            break
        kept.remove(spare)
    return kept, [widths[i] for i in kept]


def _join(cells: Sequence[str], kept: list[int], widths: list[int]) -> str:
    pairs = ((cells[i].ljust(w) if COLUMNS[i].left else cells[i].rjust(w)) for i, w in zip(kept, widths, strict=True))
    return " ".join(pairs).rstrip()


def number(interval: Interval) -> str:
    """A mean with the half-width of its interval, in equal decimals."""
    if math.isnan(interval.value) or not interval.bounded:
        return significant(interval.value)
    digits = _decimals(interval.value)
    return f"{interval.value:.{digits}f} ±{interval.half:.{digits}f}"


def significant(value: float) -> str:
    """Three significant digits without an exponent, blank for NaN."""
    return "" if math.isnan(value) else f"{value:.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    return 3 if value == 0 else min(max(2 - math.floor(math.log10(abs(value))), 0), 6)
