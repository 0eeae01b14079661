"""What a free run's requests saw: every figure with its interval, and its paired difference from the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moesim.analysis import compare
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import (
    UNLIMITED,
    Configuration,
    baseline,
    best,
    deployable,
    judged_by,
)
from moesim.analysis.disagree import relative
from moesim.analysis.gap import paired
from moesim.analysis.layout import Line, number, wrapped
from moesim.analysis.searched import largest_of, not_found


@dataclass(frozen=True, slots=True)
class Figure:
    """A column of the summary, what it is called, and the factor to the unit that is shown."""

    column: str
    heading: tuple[str, str]
    scale: float = 1e-6
    latency: bool = True

    @property
    def name(self) -> str:
        return " ".join(self.heading).removesuffix(" ms")


FIGURES = (
    Figure("ttft_mean_ns", ("TTFT mean", "ms")),
    Figure("ttft_p95_ns", ("TTFT p95", "ms")),
    Figure("tpot_mean_ns", ("TPOT mean", "ms")),
    Figure("tpot_p95_ns", ("TPOT p95", "ms")),
    Figure("itl_mean_ns", ("ITL mean", "ms")),
    Figure("itl_p95_ns", ("ITL p95", "ms")),
    Figure("e2e_mean_ns", ("e2e mean", "ms")),
    Figure("e2e_p95_ns", ("e2e p95", "ms")),
    Figure("normalized_mean_ns", ("normalized mean", "ms")),
    Figure("normalized_p95_ns", ("normalized p95", "ms")),
    Figure("attainment", ("attainment", "%"), 100.0),
    Figure("goodput_requests_per_s", ("goodput", "requests/s"), 1.0),
    Figure("throughput_tokens_per_s", ("throughput", "tokens/s"), 1.0, False),
    Figure("unique_experts_per_event", ("unique experts", "a layer"), 1.0, False),
)
LOADS = {
    "max_rate": Figure("max_rate", ("largest rate", "requests/s"), 1.0, False),
    "max_scale": Figure("max_scale", ("largest rate", "x the file's"), 1.0, False),
    "max_concurrency": Figure("max_concurrency", ("most", "users"), 1.0, False),
}
"""what there is of a search, whose runs differ in their load"""
MARKS = (
    "below a group, of its measured requests: mean ± half of its 95 % interval, then the paired difference from B;",
    "  real where the 95 % interval of the difference excludes 0, else (in parentheses). One comparison at a time",
)


def is_free(group: Sequence[Configuration]) -> bool:
    return group[0].value("schedule") == "free"


def lines(group: Sequence[Configuration], width: int) -> list[Line]:
    """The figures of a group, as many beside each other as fit, and in words what is real of its best policy."""
    shown = figures_of(group)
    names = [f"{_mark(c, group)} {_name(c)}" for c in group]
    left = max(map(len, names), default=0)
    base = baseline(group, judged_by(group))
    columns = [[*f.heading, *(_cell(c, base, f) for c in group)] for f in shown]
    result: list[Line] = []
    for block in _blocks(columns, width - left):
        sizes = [max(map(len, column)) for column in block]
        for row, name in enumerate(["", "", *names]):
            cells = [column[row].rjust(size) for column, size in zip(block, sizes, strict=True)]
            style = "head" if row < 2 else "oracle" if group[row - 2].level == "oracle" else "plain"
            result.append(Line(f"{name.ljust(left)}  {'  '.join(cells)}".rstrip(), style))
    told = (*without(group, width), *unbounded(group), *words(group, width))
    return result + [Line(text, "note") for text in told]


def figures_of(group: Sequence[Configuration]) -> list[Figure]:
    """The figures that a group has: of searches the largest load alone."""
    if largest := largest_of(group):
        return [LOADS[largest]]
    return [f for f in FIGURES if any(not math.isnan(c.mean(f.column)) for c in group)]


def loads(group: Sequence[Configuration], width: int) -> list[str]:
    """Of searches, in words: the largest load of each policy with its interval, the best first."""
    largest = largest_of(group)
    found = sorted((-c.mean(largest), place) for place, c in enumerate(group) if not math.isnan(c.mean(largest)))
    values = [f"{_name(group[place])} {number(compare.mean(group[place].values(largest)))}" for _, place in found]
    return wrapped([f"{LOADS[largest].name}: {values[0]}", *values[1:]], width) if values else []


def unbounded(group: Sequence[Configuration]) -> list[str]:
    """Which searches ended at their first or last load."""
    found = ((c, not_found(c, largest)) for c in group if (largest := largest_of(group)))
    return [f"{_name(c)}: {text}" for c, text in found if text]


def _blocks(columns: list[list[str]], width: int) -> Iterator[list[list[str]]]:
    block: list[list[str]] = []
    used = 0
    for column in columns:
        size = max(map(len, column)) + 2
        if block and used + size > width:
            yield block
            block, used = [], 0
        block.append(column)
        used += size
    if block:
        yield block


def _mark(c: Configuration, group: Sequence[Configuration]) -> str:
    if c.level == "oracle":
        return "o"
    column = judged_by(group)
    return "B" if c is baseline(group, column) else "*" if c is best(deployable(group), column) else " "


def _name(c: Configuration) -> str:
    return f"{c.policy.replace(UNLIMITED, '∞')}, {c.scope}"


def _missing(c: Configuration, figure: Figure) -> str:
    return c.unmeasured if figure.latency else ""


def _cell(c: Configuration, base: Configuration | None, figure: Figure) -> str:
    if missing := _missing(c, figure):
        return missing + " " * 8
    value = number(compare.mean(c.values(figure.column) * figure.scale))
    return f"{value} {_difference(c, base, figure):>8}" if value else ""


def _difference(c: Configuration, base: Configuration | None, figure: Figure) -> str:
    if base is None or base is c or math.isnan((found := relative(c, base, figure.column)).value):
        return ""
    text = f"{found.value * 100:+.{_digits(found)}f}%"
    return f"{text} " if is_real(c, base, figure.column) else f"({text})"


def _digits(found: Interval) -> int:
    return 0 if abs(found.value) >= 0.0995 else 1


def is_real(ours: Configuration, theirs: Configuration, column: str) -> bool:
    """Whether the interval of the paired difference excludes 0."""
    mine, other = paired((ours, theirs), column)
    return compare.difference(mine, other).excludes(0)


def without(group: Sequence[Configuration], width: int) -> list[str]:
    """Who has no latencies, and why."""
    found: dict[str, list[str]] = {}
    for c in group:
        if c.unmeasured:
            found.setdefault(c.unmeasured, []).append(_name(c))
    told = {why: ["all of them"] if len(names) == len(group) else names for why, names in found.items()}
    of = " at the load found (measure more requests)" if largest_of(group) else ""
    return [text for why, names in told.items() for text in wrapped([f"{why}{of}: {names[0]}", *names[1:]], width)]


def words(group: Sequence[Configuration], width: int) -> list[str]:
    """In words: which differences of the best policy from the baseline are real, with their intervals."""
    column = judged_by(group)
    base, ours = baseline(group, column), best(deployable(group), column)
    if base is None or ours is None or ours is base or len(ours.units) < 2:
        return []
    found = [(f, relative(ours, base, f.column)) for f in figures_of(group)]
    known = [(f, interval) for f, interval in found if not math.isnan(interval.value)]
    real = [f"{f.name} {_percent(interval)}" for f, interval in known if is_real(ours, base, f.column)]
    rest = [f.name for f, _ in known if not is_real(ours, base, f.column)]
    told = [f"{_name(ours)} against {_name(base)}:"] if known else []
    for what, items in (("real", real), ("not shown to differ", rest)):
        lines = wrapped([f"{item}," for item in items[:-1]] + items[-1:], width - len(what) - 4, "", " ")
        told += [f"  {f'{what}: ' if n == 0 else ' ' * (len(what) + 2)}{line}" for n, line in enumerate(lines)]
    return told


def _percent(interval: Interval) -> str:
    value, low, high = (f"{part * 100:+.1f}" for part in (interval.value, interval.low, interval.high))
    if not interval.bounded:
        return f"{value} %"
    return f"{value} % [{low}, {high}]"
