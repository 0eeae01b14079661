"""The table of an experiment that a person reads: one row per configuration, grouped by what compares."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from moesim.analysis import compare, disagree, latency_table, measured, passed_over
from moesim.analysis.configurations import (
    UNLIMITED,
    Configuration,
    baseline,
    best,
    bound,
    deployable,
    grouped,
    is_estimated,
    judged_by,
    labels_of,
    oracle_is_no_bound,
    ranked,
    read,
    size_text,
    summary_of,
)
from moesim.analysis.gap import MEASURES, against_baseline, column_of, gap
from moesim.analysis.layout import WIDTH, Column, Line, fit, join, number, plain, share, significant, wrapped
from moesim.analysis.naming import Set, heading, set_of, sets, usual_words
from moesim.analysis.searched import largest_of

MISSES = MEASURES["misses"]
MARKS = (
    "B baseline: the best policy of level history (no lookahead) at equal bytes in either scope, by time",
    "* best of its group, oracles apart     o oracle: knows the future, not a policy to deploy",
    "± half of the 95 % interval of the mean over replications; (in parentheses): not shown to differ",
    "  from B, the paired 95 % interval of the difference includes 0",
    "gap: 0 % = best history policy, 100 % = best unlimited oracle, in misses and in time per token;",
    "  blank: the oracle was not shown to gain; unclear: the interval is wider than ± 100 %",
    "∞: unlimited horizon     scope: one cache for each layer, or a global one, of equal bytes in all",
)
MARKS_OF_WHOLES = (
    "B baseline: the best of level history that waits for missing experts, at equal bytes, by time",
    MARKS[1],
    "± half of the 95 % interval over replications, of the mean or of the paired difference from B; (in",
    "  parentheses): not shown to differ from B. Not corrected for the number of comparisons",
    "hits: keys of layer events that were there, of an earlier use + first use since a prefetch, in %",
    "GB a token: all that crossed the link, wasted prefetches included     scope: of the cache",
    "~ lossy: so many tokens were served by a smaller copy of their expert, or by none; what that does to",
    "  answers is not known here, and such a row is neither B nor marked as best",
)


def render(results: Any, width: int = WIDTH) -> str:
    """The table as plain text, at most `width` columns wide where it can be. `results` is a summary or has one."""
    return plain(lines(results, width))


def lines(results: Any, width: int = WIDTH) -> list[Line]:
    """All lines: a block per group with its bounds, then what the figures are of and what the marks mean."""
    configurations = read(summary_of(results))
    groups = [ranked(group) for group in grouped(configurations).values()]
    columns = columns_of([group for group in groups if not largest_of(group)])
    blocks = [[_cells(c, group, columns) for c in group] + _bound_rows(group, columns) for group in groups]
    kept, widths = fit(columns, [row for block in blocks for row in block], width)
    head = [Line(join(columns, [column.heading[i] for column in columns], kept, widths), "head") for i in (0, 1)]
    keys = list(sets(configurations))
    result = warning(configurations)
    for group, block in zip(groups, blocks, strict=True):
        if largest_of(group):
            result += [Line(text, "title") for text in wrapped(_title(group, keys), width)]
            result += [*latency_table.lines(group, width), Line("")]
            continue
        styles = ["oracle" if c.level == "oracle" else "plain" for c in group]
        styles += ["bound"] * (len(block) - len(group))
        result += _headed(wrapped(_title(group, keys), width), head)
        result += [Line(join(columns, row, kept, widths), style) for row, style in zip(block, styles, strict=True)]
        result += [Line(text, "note") for text in disagree.words(group)]
        result += latency_table.lines(group, width) if latency_table.is_free(group) else []
        result.append(Line(""))
    notes = [*footer(configurations), *passed_over.notes(configurations)]
    marks = [*notes, *(MARKS_OF_WHOLES if columns is LEAGUE else MARKS)]
    marks += latency_table.MARKS if any(map(latency_table.is_free, groups)) else ()
    return result + [Line(text, "note") for text in marks]


def columns_of(groups: Sequence[Sequence[Configuration]]) -> tuple[Column, ...]:
    """Misses and time side by side for presets, batchers; latencies, where those of free runs do not stand below."""
    if any(c.whole for group in groups for c in group):
        return LEAGUE
    return FREE if groups and all(map(latency_table.is_free, groups)) else COLUMNS


def warning(configurations: Sequence[Configuration]) -> list[Line]:
    """Said before anything else: times that are estimated, runs that have no latencies."""
    estimated = any(is_estimated(c) for c in configurations)
    found = ["Times are ESTIMATED, not measured; see the last lines."] * estimated + measured.warnings(configurations)
    return [*(Line(text, "warn") for text in found), Line("")] if found else []


def footer(configurations: Sequence[Configuration]) -> list[str]:
    """What the figures are of, which of them are estimated, and what holds for all."""
    schedules = {
        "frozen": "schedule frozen: all policies replay the same recorded steps; misses and bounds compare exactly",
        "free": "schedule free: each policy forms its own batches; an oracle is no bound here",
    }
    found = sorted({str(c.value("schedule")) for c in configurations})
    replications = max((len(c.units) for c in configurations), default=0)
    labels = [text for c in configurations for text in labels_of(c)]
    notes = list(dict.fromkeys(labels)) + [schedules.get(name, f"schedule {name}") for name in found]
    if replications == 1:
        notes.append("one replication: no intervals, so no difference and no gap is claimed (replications: 2 or more)")
    notes += measured.notes(configurations)
    return [*notes, *filter(None, [usual_words(list(sets(configurations)))])]


def _headed(title: list[str], head: list[Line]) -> list[Line]:
    """Title and column headings; the title stands in the blank start of the first heading where it fits."""
    blank = len(head[0].text) - len(head[0].text.lstrip())
    if len(title) > 1 or len(title[0]) >= blank:
        return [*(Line(text, "title") for text in title), *head]
    return [Line(title[0] + head[0].text[len(title[0]) :], "title"), *head[1:]]


def _title(group: Sequence[Configuration], keys: Sequence[Set]) -> list[str]:
    first = group[0]
    words = heading(set_of(first), keys)
    rest = words[1:] if first.case else words
    return [*filter(None, [first.case, size_text(first)]), *rest, *no_bound(group)]


def no_bound(configurations: Sequence[Configuration]) -> list[str]:
    """What a heading says of oracles that are no bound."""
    return ["oracle: not a bound"] * oracle_is_no_bound(configurations)


def _cells(configuration: Configuration, group: Sequence[Configuration], columns: Sequence[Column]) -> list[str]:
    return [column.cell(configuration, group) for column in columns]


def _mark(c: Configuration, group: Sequence[Configuration]) -> str:
    return "o" if c.level == "oracle" else "B" if c is baseline(group, judged_by(group)) else "~" if c.lossy else " "


def _mean_of(column: str, scale: float = 1.0) -> Callable[[Configuration, Sequence[Configuration]], str]:
    def cell(c: Configuration, group: Sequence[Configuration]) -> str:
        star = "*" if c is best(deployable(group), column) else " "
        return number(compare.mean(c.values(column) * scale)) + star

    return cell


def _time(c: Configuration, group: Sequence[Configuration]) -> str:
    column = judged_by(group)
    if math.isnan(c.mean(column)):
        return f"{c.unmeasured} "
    return _mean_of(column, 1e-6)(c, group)


def _latency(column: str) -> Callable[[Configuration, Sequence[Configuration]], str]:
    return lambda c, group: "" if latency_table.is_free(group) else significant(c.mean(column) / 1e6)


def _difference(c: Configuration, group: Sequence[Configuration]) -> str:
    column = judged_by(group)
    if c is baseline(group, column):
        return ""
    found = against_baseline(c, group, column)
    if math.isnan(found.value):
        return ""
    return f"{found.value:+.1%} " if found.excludes(0) else f"({found.value:+.1%})"


def _against_base(measure: str) -> Callable[[Configuration, Sequence[Configuration]], str]:
    """The difference from the baseline by time, in misses or in time, with half of its interval."""

    def cell(c: Configuration, group: Sequence[Configuration]) -> str:
        base = baseline(group, judged_by(group))
        if base is None or c is base:
            return ""
        found = disagree.relative(c, base, column_of(measure, group)).scaled(100)
        if math.isnan(found.value) or not found.bounded:
            return "" if math.isnan(found.value) else f"({found.value:+.0f})"
        digits = 1 if found.half < 9.95 else 0
        words = f"{found.value:+.{digits}f} ±{found.half:.{digits}f}"
        return f"{words} " if found.excludes(0) else f"({words})"

    return cell


def _hits(c: Configuration, group: Sequence[Configuration]) -> str:
    return f"{c.mean('reuse_rate') * 100:.0f}+{c.mean('prefetch_rate') * 100:.0f}"


def _less(c: Configuration, group: Sequence[Configuration]) -> str:
    return f"{c.mean('degraded_token_share') * 100:.0f}" if c.lossy else ""


def _moved(c: Configuration, group: Sequence[Configuration]) -> str:
    return significant(c.mean("moved_bytes_per_output_token") / 1e9)


def _gap(measure: str) -> Callable[[Configuration, Sequence[Configuration]], str]:
    def cell(c: Configuration, group: Sequence[Configuration]) -> str:
        column = column_of(measure, group)
        captured = gap(c, group, column)
        if math.isnan(captured.value):
            return ""
        if c in (baseline(group, column), bound(group, column)):
            return f"{abs(captured.value) * 100:.0f}"
        return share(captured)

    return cell


COLUMNS = (
    Column(("", ""), _mark, left=True),
    Column(("", "policy"), lambda c, group: c.policy.replace(UNLIMITED, "∞"), left=True),
    Column(("", "scope"), lambda c, group: c.scope, left=True),
    Column(("misses per", "token "), _mean_of(MISSES)),
    Column(("ms per", "token "), _time),
    Column(("time", "vs B "), _difference, give_up=2),
    Column(("TTFT", "p50 ms"), _latency("ttft_p50_ns"), give_up=3),
    Column(("TPOT", "p50 ms"), _latency("tpot_p50_ns"), give_up=4),
    Column(("gap, %", "misses"), _gap("misses"), give_up=1),
    Column(("gap, %", "time"), _gap("time"), give_up=1),
)
FREE = tuple(column for column in COLUMNS if column.heading[0] not in ("TTFT", "TPOT"))
LEAGUE = (
    *COLUMNS[:4],
    Column(("misses", "vs B, % "), _against_base("misses")),
    COLUMNS[4],
    Column(("time", "vs B, % "), _against_base("time")),
    Column(("hits,", "%"), _hits, give_up=2),
    Column(("GB a", "token"), _moved, give_up=3),
    Column(("lossy,", "%"), _less, give_up=1),
)
"""columns where presets or batchers are compared: misses and time side by side, what crossed the link; no gap, which is
defined between caches with one prefetcher"""
BOUNDS = (
    ("bound: transfers (MIN)", "min_misses_per_output_token", "bound_transfer_ns_per_output_token"),
    ("bound: all resident", "", "bound_resident_ns_per_output_token"),
)


def _bound_rows(group: Sequence[Configuration], columns: Sequence[Column]) -> list[list[str]]:
    """The bounds of the group as rows, in the columns of misses and of time; none where the runs have none.

    A scope has a row of its own where its bound differs; of several in a scope (staging slots) the least holds for all.
    """
    rows: dict[tuple[str, ...], list[list[str]]] = {}
    heads = [column.heading for column in columns]
    for name, misses, time in BOUNDS:
        for scope in dict.fromkeys(c.scope for c in group):
            here = [c for c in group if c.scope == scope and not math.isnan(c.mean(time))]
            if here:
                least = min(c.mean(misses) for c in here) if misses else math.nan
                cells = dict.fromkeys(heads, "") | {heads[1]: name, heads[2]: scope}
                cells[COLUMNS[3].heading] = significant(least) + " "
                cells[COLUMNS[4].heading] = significant(min(c.mean(time) for c in here) / 1e6) + " "
                shown = list(cells.values())
                rows.setdefault((name, *shown[3:]), []).append(shown)
    several = len({c.scope for c in group}) > 1
    return [[*same[0][:2], same[0][2] * (several and len(same) == 1), *same[0][3:]] for same in rows.values()]
