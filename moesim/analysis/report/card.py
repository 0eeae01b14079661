"""Results as a notebook shows them: what was asked, what is estimated, what differs, a table of a size to read.

Styles are in the elements, since a page on the web shows a notebook without any of ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moesim.analysis import compare, measured
from moesim.analysis.configurations import Configuration, grouped, is_estimated, labels_of, ranked
from moesim.analysis.frames import telling
from moesim.analysis.layout import DOT, number, significant
from moesim.analysis.naming import distinctions, sets
from moesim.analysis.report import words
from moesim.analysis.report.asked import several
from moesim.analysis.report.html import Html, join, tag
from moesim.analysis.searched import largest_of
from moesim.analysis.units import Measure

if TYPE_CHECKING:
    from moesim.analysis.contrast import Comparison, Pair

ROWS = 16
"""of a table; the rest is counted"""
SENTENCES = 8
LEFT = "text-align: left; white-space: nowrap"
RIGHT = "text-align: right; white-space: nowrap"
SMALL = "font-size: 85%; opacity: 0.8"
BADGE = "border: 1px solid; border-radius: 3px; padding: 0 4px; font-size: 85%; font-weight: bold"
SHOWN = {"lower": "▼", "higher": "▲", "not shown to differ": "", "no interval": ""}


def of_results(results: Any) -> Html:
    """Question, label, runs, what differs in sentences, and the table with intervals."""
    configurations = results.shown_configurations()
    experiment = results.resolved["points"][0]["experiment"]
    found = sets(configurations)
    groups = [group for members in found.values() for group in words.groups_of(members)]
    question = experiment.get("question")
    how_many = [
        several(len(configurations), "configuration"),
        several(sum(len(c.runs) for c in configurations), "run"),
        f"{max(len(c.units) for c in configurations)} independent replications",
    ]
    sentences = [line for key, members in found.items() if (line := _sentence(key, list(found), members)) is not None]
    more = len(sentences) - SENTENCES
    return tag(
        "div",
        tag("p", tag("b", experiment["name"]), " ", _label(configurations), " ", question or ""),
        tag("p", DOT.join([*how_many, *_labels(configurations)]), style=SMALL),
        *(tag("p", tag("b", text)) for text in measured.warnings(configurations)),
        *([] if results.partial else words.in_short(groups)),
        tag("ul", *sentences[:SENTENCES], tag("li", f"{more} more sets: results.digest()") if more > 0 else None)
        if sentences and not results.partial
        else None,
        _table(configurations, results.configurations),
    )


def _label(configurations: Sequence[Configuration]) -> Html:
    estimated = any(is_estimated(c) for c in configurations)
    return tag("span", "ESTIMATED times" if estimated else "MEASURED costs", style=BADGE)


def _labels(configurations: Sequence[Configuration]) -> list[str]:
    return list(dict.fromkeys(label for c in configurations for label in labels_of(c)))


def _sentence(key: Any, keys: Sequence[Any], members: Sequence[Configuration]) -> Html | None:
    return words.of_set(DOT.join(distinctions(key, keys)), words.groups_of(members))


def _table(shown: Sequence[Configuration], everyone: Sequence[Configuration]) -> Html:
    """A row per configuration: labels, misses, time, and the paired difference from B."""
    told = dict(zip(shown, telling(shown), strict=True))
    groups = {key: words.Group(group) for key, group in grouped(everyone).items()}
    ordered = [c for group in grouped(shown).values() for c in _fastest_first(group, groups[group[0].group].time)]
    names = list(next(iter(told.values())))
    times = {groups[c.group].time for c in shown}
    time = "ms per output token" if len(times) > 1 or "per_output" in next(iter(times)) else "normalized ms a token"
    heads = [*names, "misses a token", time, "time against B, %", "95 % interval"]
    rows = [tag("tr", *_cells(c, told[c], groups[c.group])) for c in ordered[:ROWS]]
    rest = len(ordered) - ROWS
    foot = "B: best policy without foresight at equal bytes; ± and intervals: 95 %, over replications, paired where "
    foot += "they are of a difference; o: an oracle, not to be deployed"
    more = f"{rest} more rows: results.means(), or all of it in results.table(). " if rest > 0 else ""
    head = tag("thead", tag("tr", *(tag("th", name) for name in heads)))
    return join(tag("table", head, tag("tbody", *rows)), tag("p", more, foot, ".", style=SMALL))


def _fastest_first(group: Sequence[Configuration], time: str) -> list[Configuration]:
    """In the order of their times; those that searched for a load, or have no time, as they are."""
    found = ranked(group)
    if largest_of(group) or any(c.whole for c in group):
        return found
    return sorted(found, key=lambda c: (math.isnan(c.mean(time)), c.mean(time)))


def _cells(c: Configuration, told: dict[str, Any], group: words.Group) -> list[Html]:
    mark = " B" if c is group.base and not group.largest else " o" if c.level == "oracle" else ""
    shown = [f"{_plain(value)}{mark if name == 'policy' else ''}" for name, value in told.items()]
    values = [
        number(compare.mean(c.values(words.MISSES))),
        number(compare.mean(c.values(group.time) / 1e6)) or c.unmeasured,
        *_difference(c, group),
    ]
    return [*(tag("td", text, style=LEFT) for text in shown), *(tag("td", text, style=RIGHT) for text in values)]


def _difference(c: Configuration, group: words.Group) -> tuple[str, str]:
    if group.base is None or c is group.base or group.largest:
        return "", ""
    found = group.against(c).scaled(100)
    if math.isnan(found.value):
        return "", ""
    value = f"{found.value:+.1f}"
    if not found.bounded:
        return f"({value})", "none"
    return (value if found.excludes(0) else f"({value})"), f"{found.low:+.1f} to {found.high:+.1f}"


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else "∞" if value == math.inf else f"{value:.4g}"
    return str(value)


# -- a comparison


def of_comparison(comparison: Comparison) -> Html:
    """What is shown, as a table; differences that are not shown in parentheses."""
    pairs = sorted(comparison.pairs, key=lambda p: p.relative.value)
    names = list(dict.fromkeys(name for pair in pairs for name in pair.label))
    several = len({pair.measure.name for pair in pairs}) > 1
    heads = [*names, *(["metric"] if several else []), "value", "against", "theirs"]
    heads += ["difference, %", "95 % interval", ""]
    rows = [tag("tr", *_pair(pair, names, several)) for pair in pairs[:ROWS]]
    what = pairs[0].measure.axis if pairs and not several else "paired differences"
    rest = len(pairs) - ROWS
    notes = [*([f"{rest} more rows in .frame"] if rest > 0 else []), *comparison.notes()]
    head = tag("thead", tag("tr", *(tag("th", name) for name in heads)))
    badge = tag("span", "ESTIMATED", style=BADGE) if comparison.estimated else None
    return tag(
        "div",
        tag("p", tag("b", f"Difference in {what}" if pairs and not several else what), " ", badge),
        tag("table", head, tag("tbody", *rows)),
        tag("p", f"{DOT.join(notes)}. In parentheses: not shown to differ.", style=SMALL),
    )


def _pair(pair: Pair, names: Sequence[str], several: bool) -> list[Html]:
    what = pair.measure
    share = pair.relative.scaled(100)
    value = "" if math.isnan(share.value) else f"{share.value:+.1f}"
    limits = f"{share.low:+.1f} to {share.high:+.1f}" if share.bounded else "none"
    label = [_plain(pair.label.get(name, "")) for name in names]
    said = [*label, *([what.name] if several else [])]
    values = [
        _mean(pair.ours, what),
        pair.against,
        _mean(pair.theirs, what),
        value if share.excludes(0) else f"({value})",
        limits,
        SHOWN[pair.verdict],
    ]
    return [*(tag("td", text, style=LEFT) for text in said), *(tag("td", text, style=RIGHT) for text in values)]


def _mean(c: Configuration, what: Measure) -> str:
    return significant(c.mean(what.column) * what.scale)



# -- an untimed replay


def of_curves(curves: Any) -> Html:
    """Of each trace what it is, and decode hits by size and policy."""
    return tag("div", *(part for found in curves.documents for part in _curves(found)))


def _curves(found: dict[str, Any]) -> list[Html]:
    rows = found["rows"]
    sizes = list(dict.fromkeys(row["capacity"] for row in rows))
    lines = {(row["policy"], row["scope"], row["room"]): row["oracle"] for row in rows}
    hits = {(row["policy"], row["scope"], row["room"], row["capacity"]): row["decode_hit_pct"] for row in rows}
    several = len({room for _, _, room in lines}) > 1
    body = [
        tag(
            "tr",
            tag("td", f"{policy}{' o' if oracle else ''}", style=LEFT),
            tag("td", f"{scope}{f' ({room})' if several else ''}", style=LEFT),
            *(tag("td", _percent(hits.get((policy, scope, room, size)))) for size in sizes),
        )
        for (policy, scope, room), oracle in list(lines.items())[:ROWS]
    ]
    rest = len(lines) - ROWS
    head = tag("thead", tag("tr", *(tag("th", name) for name in ("policy", "scope", *sizes))))
    what = f"{found['model']} ({found['label']}), {found['router']} router, {found['layers']} layers of "
    what += f"{found['experts']} experts, k = {found['k']}; {found['decode_tokens']:,} output tokens in "
    what += f"{found['sequences']:,} sequences, each alone"
    notes = [f"{rest} more rows in .frame"] * (rest > 0) + ["o: knows the future"] * any(lines.values())
    return [
        tag("p", tag("b", "Decode hits, %"), " of an untimed replay: ", what),
        tag("table", head, tag("tbody", *body)),
        tag("p", DOT.join(notes), style=SMALL),
    ]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
