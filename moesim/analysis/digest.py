"""The digest of an experiment: a row per case and memory size that says what its best policy is worth.

The table has every policy; where that is too long to read, this is read first.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import astuple
from typing import Any

from moesim.analysis import compare, disagree, latency_table, passed_over
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import (
    UNLIMITED,
    Configuration,
    baseline,
    best,
    bound,
    deployable,
    grouped,
    judged_by,
    kv_text,
    read,
    sizes_of,
    summary_of,
)
from moesim.analysis.gap import against_baseline, column_of, gap
from moesim.analysis.layout import WIDTH, Column, Line, fit, join, number, plain, share, significant, wrapped
from moesim.analysis.naming import heading, sets
from moesim.analysis.searched import largest_of
from moesim.analysis.table import footer, no_bound, warning

LONGEST = 24  # characters of a policy and its scope
MARKS = (
    "B: best policy of level history (no lookahead) at equal bytes in either scope; ms: per output token",
    "best policy: by time, oracles apart; `queue 64`: lookahead, this level and horizon (none: unlimited)",
    "± and [low, high]: 95 % intervals over replications, the latter of the paired difference from B;",
    "  (in parentheses): not shown to differ from B. Not corrected for having picked the best of several",
    "gap: 0 % = best history policy, 100 % = best unlimited oracle, in misses and in time; blank: no gain",
    "  of the oracle was shown. oracle: its time against B; it knows the future and is not to be deployed",
)

Group = Sequence[Configuration]


def render(results: Any, width: int = WIDTH) -> str:
    """The digest as plain text, at most `width` columns wide where it can be. `results` is a summary or has one."""
    return plain(lines(results, width))


def lines(results: Any, width: int = WIDTH) -> list[Line]:
    """All lines: for each set its name and a row per memory size, then what the figures are of and what they mean."""
    configurations = read(summary_of(results))
    found = sets(configurations)
    columns = (*_size_columns(configurations), *COLUMNS)
    rows = {key: [_cells(group, columns) for group in grouped(members).values()] for key, members in found.items()}
    kept, widths = fit(columns, [row for block in rows.values() for row in block], width)
    result = warning(configurations)
    result += [Line(join(columns, [column.heading[i] for column in columns], kept, widths), "head") for i in (0, 1)]
    for key, members in found.items():
        title = wrapped([*heading(key, list(found)), *no_bound(members)], width)
        result += [Line(text, "title") for text in title]
        for row, group in zip(rows[key], grouped(members).values(), strict=True):
            result.append(Line(join(columns, row, kept, widths)))
            result += [Line(f"  {text}", "note") for text in disagree.words(group, most=1)]
            result += [Line(f"  {text}", "note") for text in _free_words(group, width - 2)]
    passed = [line for text in passed_over.notes(configurations) for line in textwrap.wrap(text, width)]
    return [*result, Line(""), *(Line(text, "note") for text in (*footer(configurations), *passed, *MARKS))]


def _free_words(group: Group, width: int) -> list[str]:
    """Which differences in latency are real, and who has no latency."""
    if not latency_table.is_free(group):
        return []
    told = [*latency_table.without(group, width), *latency_table.unbounded(group), *latency_table.words(group, width)]
    return [*latency_table.loads(group, width), *told]


def _cells(group: Group, columns: Sequence[Column]) -> list[str]:
    return [column.cell(group) for column in columns]


def _size_columns(configurations: Sequence[Configuration]) -> list[Column]:
    """The cache's size, and that of KV memory where it has an end: rows may differ in nothing else."""
    sizes, unit = sizes_of(configurations)
    heading = ("experts", "a layer") if unit == "experts a layer" else ("cache", unit)
    of_kv = Column(("KV", "GB"), lambda group: kv_text(group[0]))
    return [Column(heading, lambda group: f"{sizes[group[0]]:.3g}"), *[of_kv] * any(map(kv_text, configurations))]


def chosen(group: Group) -> Configuration | None:
    """The best policy without an oracle, by time."""
    return best(deployable(group), judged_by(group))


def _name(c: Configuration | None) -> str:
    if c is None:
        return ""
    policy = c.policy if c.whole else c.policy.removeprefix("lookahead ").replace(f" {UNLIMITED}", "")
    most = LONGEST - len(c.scope) - 2
    return f"{policy if len(policy) <= most else policy[: most - 1] + '…'}, {c.scope}"


def _baseline(group: Group) -> str:
    return _name(baseline(group, judged_by(group)))


def _baseline_time(group: Group) -> str:
    column = judged_by(group)
    base = None if largest_of(group) else baseline(group, column)
    return significant(base.mean(column) / 1e6) if base else ""


def _better(group: Group) -> Configuration | None:
    found = chosen(group)
    return None if found is baseline(group, judged_by(group)) else found


def _chosen(group: Group) -> str:
    found = chosen(group)
    return "B, none better" if found and not _better(group) else _name(found)


def _chosen_time(group: Group) -> str:
    found = None if largest_of(group) else _better(group)
    return number(compare.mean(found.values(judged_by(group)) / 1e6)) if found else ""


def _chosen_difference(group: Group) -> str:
    found = None if largest_of(group) else _better(group)
    return difference(against_baseline(found, group, judged_by(group))) if found else ""


def _chosen_gap(measure: str) -> Callable[[Group], str]:
    def cell(group: Group) -> str:
        found = _better(group)
        return share(gap(found, group, column_of(measure, group))) if found else ""

    return cell


def _oracle(group: Group) -> str:
    column = judged_by(group)
    found = None if largest_of(group) else bound(group, column)
    relative = against_baseline(found, group, column) if found else compare.NOTHING
    if math.isnan(relative.value):
        return ""
    text = f"{relative.value * 100:+.{_digits(relative)}f}"
    return f"{text} " if relative.excludes(0) else f"({text})"


def difference(relative: Interval) -> str:
    """A relative difference in percent with its interval, as `-24 [-28, -20]`, in parentheses where 0 is inside."""
    if math.isnan(relative.value):
        return ""
    value, low, high = (f"{part * 100:+.{_digits(relative)}f}" for part in astuple(relative))
    if not relative.bounded:
        return f"({value})"
    return f"{value} [{low}, {high}] " if relative.excludes(0) else f"({value} [{low}, {high}])"


def _digits(relative: Interval) -> int:
    """Decimals of a percentage: one where it is below ten and its interval lets one believe it."""
    return 0 if relative.half >= 0.01 or abs(relative.value) >= 0.0995 else 1


COLUMNS = (
    Column(("best history", "policy (B)"), _baseline, left=True),
    Column(("", "ms"), _baseline_time),
    Column(("best policy", "without an oracle"), _chosen, left=True),
    Column(("", "ms"), _chosen_time),
    Column(("time against", "B, %  "), _chosen_difference, give_up=1),
    Column(("gap, %", "misses"), _chosen_gap("misses"), give_up=3),
    Column(("gap, %", "time"), _chosen_gap("time"), give_up=2),
    Column(("oracle", "vs B, %"), _oracle, give_up=4),
)
