"""Tables of the report: a row per memory size for the whole experiment, a row per policy for each set."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from moesim.analysis.configurations import (
    UNLIMITED,
    Configuration,
    best,
    deployable,
    oracle_is_no_bound,
    ranked,
    size_text,
    sizes_of,
)
from moesim.analysis.report import numbers
from moesim.analysis.report.html import Html, join, tag
from moesim.analysis.report.words import FASTER, MISSES, RESIDENT, SLOWER, Group, verdict
from moesim.analysis.sweep import LARGEST

TRANSFER, MIN = "bound_transfer_ns_per_output_token", "min_misses_per_output_token"
MARKS = (
    ("B", "the best policy of level history (no lookahead) at equal bytes, by time; of presets one that waits"),
    ("★", "the lowest mean of its group, oracles apart"),
    ("oracle", "knows the future: a yardstick, not a policy to deploy; in a free schedule it is not even a bound"),
    ("bound", "what no cache beats on the same steps: Belady's MIN bytes over the link, or every expert resident"),
    ("±", "half of the 95 % interval of the mean over replications (Student's t)"),
    ("[low, high]", "95 % interval of the difference from B, paired over replications (Fieller's); grey: 0 is inside"),
    ("gap", "0 % is the best history policy, 100 % the best unlimited oracle; empty: the oracle was not shown to gain"),
    ("late hit", "some bytes of the key were submitted when its experts could have started; misses include them"),
    ("lossy", "tokens, by expert, that got a smaller copy or none; what that does to answers is not known here"),
)


@dataclass(frozen=True)
class Column:
    """A column: what stands above it, the cell of a configuration in its group, the column of the summary it needs."""

    head: tuple[str, str]
    cell: Callable[[Configuration, Group], Html]
    needs: str = ""
    shows_zero: bool = False

    def has_any(self, configurations: Sequence[Configuration]) -> bool:
        """Whether there is something to show."""
        values = (value for c in configurations for value in (c.values(self.needs) if self.needs else (1.0,)))
        return any(not math.isnan(value) and (self.shows_zero or value != 0) for value in values)


def _mean(column: str, scale: float = 1.0) -> Callable[[Configuration, Group], Html]:
    def cell(c: Configuration, group: Group) -> Html:
        star = [tag("abbr", "★", title="the lowest mean of its group, oracles apart", class_="best")]
        lowest = c is best(deployable(group.members), column) and len(group.members) > 1 and not group.largest
        return join(*(star * lowest), numbers.mean(c, column, scale))

    return cell


def _latency(column: str) -> Callable[[Configuration, Group], Html]:
    """With an interval where the server ran freely; on a frozen schedule it describes the replay."""
    return lambda c, group: (numbers.mean if c.value("schedule") == "free" else numbers.plain_mean)(c, column, 1e-6)


def _largest(column: str) -> Callable[[Configuration, Group], Html]:
    return lambda c, group: numbers.mean(c, column)


def _plain(column: str, scale: float = 1.0, digits: int | None = None) -> Callable[[Configuration, Group], Html]:
    return lambda c, group: numbers.plain_mean(c, column, scale, digits)


def _time(c: Configuration, group: Group) -> Html:
    return _mean(group.time, 1e-6)(c, group)


def _against(column: str = "") -> Callable[[Configuration, Group], Html]:
    """Against B, in time where no column is named."""

    def cell(c: Configuration, group: Group) -> Html:
        if group.base is None or c is group.base or group.largest:
            return Html()
        found = group.against(c, column)
        classes = {FASTER: "less", SLOWER: "more"}
        return tag("span", numbers.relative(found, column or group.time), class_=classes.get(verdict(found), "open"))

    return cell


def _gap(measure: str) -> Callable[[Configuration, Group], Html]:
    return lambda c, group: numbers.gap(c, measure)


MISS_COLUMNS = (Column(("misses", "a token"), _mean(MISSES)),)
TIMES = (Column(("time", "ms a token"), _time), Column(("time", "against B"), _against()))
NORMALIZED = (
    Column(("normalized latency", "ms a token"), _time),
    Column(("normalized latency", "against B"), _against()),
)
LOADS = (
    *(Column(("largest load", name), _largest(column), column) for column, name in LARGEST.items()),
    Column(("objective", "kept, %"), _plain("attainment", 100, 1), "attainment", True),
    Column(("goodput", "requests/s"), _plain("goodput_requests_per_s"), "goodput_requests_per_s", True),
)
REST = (
    Column(("hits", "reuse, %"), _plain("reuse_rate", 100, 1), "reuse_rate"),
    Column(("hits", "prefetch, %"), _plain("prefetch_rate", 100, 1), "prefetch_rate"),
    Column(("late hits", "%"), _plain("late_rate", 100, 1), "late_rate"),
    Column(("moved", "GB a token"), _plain("moved_bytes_per_output_token", 1e-9), "moved_bytes_per_output_token"),
    Column(("TTFT, ms", "p50"), _latency("ttft_p50_ns"), "ttft_p50_ns"),
    Column(("TTFT, ms", "p99"), _latency("ttft_p99_ns"), "ttft_p99_ns"),
    Column(("TPOT, ms", "p50"), _latency("tpot_p50_ns"), "tpot_p50_ns"),
    Column(("TPOT, ms", "p99"), _latency("tpot_p99_ns"), "tpot_p99_ns"),
    Column(("gap, %", "misses"), _gap("misses"), "gap_misses"),
    Column(("gap, %", "time"), _gap("time"), "gap_time"),
    Column(("lossy", "%"), _plain("degraded_token_share", 100, 1), "degraded_token_share"),
)
MISSES_AGAINST = Column(("misses", "against B"), _against(MISSES))


def of_set(groups: Sequence[Group], caption: str) -> Html:
    """Every policy of a set, a block of rows per memory size, bounds below."""
    everyone = [c for group in groups for c in group.members]
    columns = [column for column in _columns(groups) if column.has_any(everyone)]
    blocks = [tag("tbody", _size_row(group, len(columns) + 1), *_rows(group, columns)) for group in groups]
    return _table(caption, ("policy", "and scope"), columns, blocks)


def _columns(groups: Sequence[Group]) -> list[Column]:
    """Misses of presets and batchers are compared as well; in open traffic times are normalized latencies."""
    wholes = any(c.whole for group in groups for c in group.members)
    times = NORMALIZED if any(group.is_open for group in groups) else TIMES
    return [*MISS_COLUMNS, *[MISSES_AGAINST] * wholes, *times, *LOADS, *REST]


def _table(caption: str, first: tuple[str, str], columns: Sequence[Column], blocks: Sequence[Html]) -> Html:
    heads = [first, *(column.head for column in columns)]
    above = []
    place = 0
    while place < len(heads):
        same = next((i for i in range(place, len(heads)) if heads[i][0] != heads[place][0]), len(heads)) - place
        wide: dict[str, Any] = {"scope": "colgroup", "colspan": same} if same > 1 else {"scope": "col"}
        above.append(tag("th", heads[place][0], **wide))
        place += same
    below = [tag("th", head[1], scope="col") for head in heads]
    head = tag("thead", tag("tr", *above), tag("tr", *below))
    return tag("div", tag("table", tag("caption", caption), head, *blocks), class_="scroll")


def _size_row(group: Group, width: int) -> Html:
    return tag("tr", tag("th", size_text(group.members[0]) or "all", scope="rowgroup", colspan=width), class_="size")


def _rows(group: Group, columns: Sequence[Column]) -> list[Html]:
    found = [
        tag(
            "tr",
            tag("th", *_name(c, group), scope="row"),
            *(tag("td", column.cell(c, group)) for column in columns),
            class_="oracle" if c.level == "oracle" else "lossy" if c.lossy else None,
            data_runs=numbers.runs_of(c),
            data_base=numbers.runs_of(group.base),
        )
        for c in ranked(group.members)
    ]
    return found + _bounds(group, columns)


def _name(c: Configuration, group: Group) -> list[str]:
    badge = []
    if c is group.base and not group.largest:
        badge = [tag("abbr", "B", title="what the others are compared with", class_="base")]
    elif c.level == "oracle":
        note = "not a bound: the schedule is free" if oracle_is_no_bound([c]) else "knows the future"
        badge = [tag("abbr", "oracle", title=note, class_="mark")]
    elif c.lossy:
        badge = [tag("abbr", "lossy", title="some tokens got a smaller copy of an expert, or none", class_="mark")]
    if c.unmeasured:
        badge.append(tag("abbr", c.unmeasured, title="it cannot keep up, or ran out of steps", class_="mark"))
    return [*badge, c.policy.replace(UNLIMITED, "∞"), tag("small", c.scope)]


def _bounds(group: Group, columns: Sequence[Column]) -> list[Html]:
    """What no cache beats: a row where it is, of the scope with the least, with the runs that have it."""
    demand = all(c.value("prefetch") in (None, "", "none") for c in group.members)
    transfers = "bound: transfers (MIN)" if demand else "reference: transfers (MIN)"
    found = []
    for name, misses, time in ((transfers, MIN, TRANSFER), ("bound: all experts resident", "", RESIDENT)):
        for scope in dict.fromkeys(c.scope for c in group.members):
            least = best([c for c in group.members if c.scope == scope], time)
            if least is not None:
                found.append((name, scope, misses, time, least))
    last = [row for row in found if row[3] == RESIDENT][:1]  # the same in every scope
    return [_bound(*row, columns=columns) for row in [*(r for r in found if r[3] == TRANSFER), *last]]


def _bound(name: str, scope: str, misses: str, time: str, c: Configuration, columns: Sequence[Column]) -> Html:
    cells = {MISS_COLUMNS[0].head: (misses, 1.0), TIMES[0].head: (time, 1e-6)}
    shown = [cells.get(column.head, ("", 1.0)) for column in columns]
    row = [tag("td", numbers.plain_mean(c, column, scale) if column else None) for column, scale in shown]
    head = tag("th", name, tag("small", scope) if time == TRANSFER else None, scope="row")
    return tag("tr", head, *row, class_="bound", data_runs=numbers.runs_of(c))


# -- the whole experiment ----------------------------------------------------------------------------------------------


def overview(sets: dict[str, list[Group]]) -> Html:
    """A row per set and memory size: B, the fastest policy without an oracle, the oracle."""
    everyone = [c for groups in sets.values() for group in groups for c in group.members]
    sizes, unit = sizes_of(everyone)
    fastest = "fastest without an oracle"
    gaps = any(not math.isnan(value) for c in everyone for value in c.values("gap_time"))
    heads = [("cache", unit), ("B", "policy"), ("B", "ms a token"), (fastest, "policy"), (fastest, "ms a token")]
    heads += [(fastest, "against B"), *[(fastest, "gap in time, %")] * gaps, ("oracle", "against B")]
    columns = [Column(head, lambda c, group: Html()) for head in heads]
    blocks = []
    for title, groups in sets.items():
        rows = [_overview_row(group, f"{sizes[group.members[0]]:.3g}", gaps) for group in groups]
        first = tag("th", title or "all", scope="rowgroup", rowspan=len(rows))
        blocks.append(tag("tbody", *(tag("tr", first if i == 0 else None, *row) for i, row in enumerate(rows))))
    return _table("Per case and memory size", ("case", ""), columns, blocks)


def _overview_row(group: Group, size: str, gaps: bool) -> list[Html]:
    base, ours, oracle = group.base, group.ours, group.oracle
    ours = None if ours is base or group.largest else ours
    return [
        tag("th", size, scope="row"),
        tag("td", _words(base), class_="words"),
        _of(base, numbers.mean(base, group.time, 1e-6) if base else None),
        tag("td", _words(ours) if ours else "none better" if base and not group.largest else None, class_="words"),
        _of(ours, numbers.mean(ours, group.time, 1e-6) if ours else None),
        _of(ours, _against()(ours, group) if ours else None, base),
        *[_of(ours, numbers.gap(ours, "time") if ours else None)] * gaps,
        _of(oracle, _against()(oracle, group) if oracle and base else None, base),
    ]


def _of(c: Configuration | None, cell: Html | None, base: Configuration | None = None) -> Html:
    return tag("td", cell, data_runs=numbers.runs_of(c), data_base=numbers.runs_of(base) if c else None)


def _words(c: Configuration | None) -> Html | None:
    return join(c.policy.replace(UNLIMITED, "∞"), " ", tag("small", c.scope)) if c else None
