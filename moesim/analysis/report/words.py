"""What differs and what does not, in words that follow from the paired intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from moesim.analysis import disagree
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import (
    LATENCY,
    UNLIMITED,
    Configuration,
    baseline,
    best,
    bound,
    deployable,
    grouped,
    judged_by,
    oracle_is_no_bound,
    size_text,
    time_of,
)
from moesim.analysis.gap import MEASURES, gap
from moesim.analysis.report import numbers
from moesim.analysis.report.html import Html, join, tag
from moesim.analysis.searched import largest_of
from moesim.analysis.sweep import LARGEST

MISSES = MEASURES["misses"]
FASTER, SLOWER, OPEN = "faster", "slower", "not shown to differ"
FEW = 5
"""policies that a sentence lists"""
RESIDENT = "bound_resident_ns_per_output_token"


@dataclass(frozen=True)
class Group:
    """Configurations that compare, and what the others are compared with."""

    members: list[Configuration]

    @cached_property
    def time(self) -> str:
        """The column by which times are judged: per output token, or in open traffic the normalized latency."""
        return time_of(self.members)

    @property
    def is_open(self) -> bool:
        return self.time == LATENCY

    @cached_property
    def base(self) -> Configuration | None:
        """The best policy without foresight; where there is none, the fastest without an oracle."""
        return baseline(self.members, self.time) or best(deployable(self.members), self.time)

    @cached_property
    def is_history(self) -> bool:
        return baseline(self.members, self.time) is not None

    @cached_property
    def ours(self) -> Configuration | None:
        return best(deployable(self.members), self.time)

    @cached_property
    def oracle(self) -> Configuration | None:
        return bound(self.members, self.time)

    @cached_property
    def others(self) -> list[Configuration]:
        """All but the one that they are compared with, oracles and lossy ones apart."""
        return [c for c in deployable(self.members) if c is not self.base]

    @cached_property
    def verdicts(self) -> dict[str, list[Configuration]]:
        """The others by what their paired interval of time says."""
        found: dict[str, list[Configuration]] = {FASTER: [], SLOWER: [], OPEN: []}
        for c in self.others:
            found[verdict(self.against(c))].append(c)
        return found

    @property
    def replicated(self) -> bool:
        return all(len(c.units) > 1 for c in self.members)

    @cached_property
    def largest(self) -> str:
        """The column of the largest load that each was searched for; blank where times compare."""
        return largest_of(self.members)

    @property
    def compares(self) -> bool:
        """Whether differences in time are shown or not: all ran at the same load, and more than once."""
        return self.base is not None and self.replicated and not self.largest

    def against(self, c: Configuration, column: str = "") -> Interval:
        """Paired relative difference of `c` from the one they are compared with, by default in time."""
        assert self.base is not None
        return disagree.relative(c, self.base, column or self.time)

    def difference(self, c: Configuration) -> Html:
        """The same in words, with the runs that it is of."""
        found = numbers.relative(self.against(c), self.time)
        return tag("span", found, data_runs=numbers.runs_of(c), data_base=numbers.runs_of(self.base))


def groups_of(members: Sequence[Configuration]) -> list[Group]:
    """The groups of a set, a memory size each."""
    return [Group(found) for found in grouped(members).values()]


def verdict(difference: Interval) -> str:
    if not difference.excludes(0):
        return OPEN
    return FASTER if difference.value < 0 else SLOWER


def name(c: Configuration) -> Html:
    """A policy and its scope."""
    return tag("span", f"{c.policy.replace(UNLIMITED, '∞')}, {c.scope}", class_="policy")


# -- all of it ---------------------------------------------------------------------------------------------------------


def in_short(groups: Sequence[Group]) -> list[Html]:
    """How many differences were shown, over all groups."""
    compared = [g for g in groups if g.compares and g.others]
    if not compared:
        if all(g.largest for g in groups):
            return []
        replicated = any(g.replicated for g in groups)
        why = "Nothing here compares with anything else" if replicated else "One replication: there are no intervals"
        return [tag("p", f"{why}, so that no difference is claimed.")]
    tally = {v: sum(len(g.verdicts[v]) for g in compared) for v in (FASTER, SLOWER, OPEN)}
    history = all(g.is_history for g in compared)
    ours = "the best policy without foresight at equal bytes (B)" if history else "the fastest policy (B)"
    judged = {g.is_open: "normalized latency" if g.is_open else "time per output token" for g in compared}
    what = " or ".join(judged.values())
    text = join(
        numbers.count(sum(tally.values()), "compared"),
        f" comparisons of {what} with {ours}: ",
        numbers.count(tally[FASTER], FASTER),
        " faster, ",
        numbers.count(tally[SLOWER], SLOWER),
        " slower, ",
        numbers.count(tally[OPEN], OPEN),
        " not shown to differ. Each by its paired 95 % interval over replications; not corrected for the number of "
        "comparisons, nor for having picked the best of several.",
    )
    return [tag("p", text)]


def of_set(title: str, groups: Sequence[Group]) -> Html | None:
    """One sentence for a set: what the fastest policy and the oracle are worth over its memory sizes."""
    compared = [g for g in groups if g.compares]
    if not compared:
        return None
    shown = [(g, c) for g in compared if (c := best(g.verdicts[FASTER], g.time)) is not None]
    sizes = _of_sizes(len(shown), len(compared))
    if shown:
        names = dict.fromkeys(name(c) for _, c in shown)
        who = [" (", join(*names, between="; "), ")"] if len(names) <= FEW else []
        lead_in = "without an oracle, the fastest policy that is shown to be faster than B"
        text = join(lead_in, *who, " saves ", _range(shown), f" of its time{sizes}")
        if len(shown) < len(compared):
            text = join(text, "; at the others none was shown to save any")
    else:
        text = join("no policy without an oracle was shown to be faster than B")
    oracles = [(g, g.oracle) for g in compared if g.oracle is not None and verdict(g.against(g.oracle)) == FASTER]
    if oracles:
        text = join(text, "; the oracle saves ", _range(oracles), _of_sizes(len(oracles), len(compared)))
    elif any(g.oracle is not None for g in compared):
        text = join(text, "; the oracle was not shown to save any" if shown else "; nor was the oracle")
    lead = [tag("b", title), ": "] if title else []
    return tag("li", *lead, text, ".")


def _of_sizes(some: int, every: int) -> str:
    if every == 1:
        return ""
    return f" at all {every} memory sizes" if some == every else f" at {some} of {every} memory sizes"


def _range(found: Sequence[tuple[Group, Configuration]]) -> Html:
    """The least and the largest saving among some, in percent."""
    ranked = sorted(found, key=lambda pair: -pair[0].against(pair[1]).value)
    ends = [_saving(group, c) for group, c in (ranked[0], ranked[-1])]
    return join(join(*(ends[:1] if len(found) == 1 else ends), between=" to "), " %")


def _saving(group: Group, c: Configuration) -> Html:
    value = group.against(c).value
    shown = numbers.number(value, f"relative {group.time}", -100, 0 if abs(value) >= 0.0995 else 1)
    return tag("span", shown, data_runs=numbers.runs_of(c), data_base=numbers.runs_of(group.base))


# -- a group -----------------------------------------------------------------------------------------------------------


def of_group(group: Group) -> Html:
    """What is known of one memory size."""
    base = group.base
    size = tag("b", size_text(group.members[0]) or "All")
    if group.largest:
        return tag("p", size, ": ", *_loads(group))
    if base is None:
        return tag("p", size, ": every policy here knows the future.")
    kind = "the best policy without foresight (B)" if group.is_history else "the fastest policy (B)"
    parts = [join(size, f": {kind} is ", tag("b", name(base)), " with ", _time(base, group), ".")]
    if group.compares:
        parts += [part for part in (_fastest(group), _others(group), _oracle(group)) if part]
    elif group.others or group.oracle:
        parts.append(Html("One replication, so that no difference is claimed."))
    parts += [part for part in (_resident(group),) if part]
    return tag("p", join(*parts, between=" "))


def _loads(group: Group) -> list[Html]:
    """The largest loads that met the objective, the largest first."""
    column = group.largest
    found = sorted((c for c in group.members if not math.isnan(c.mean(column))), key=lambda c: -c.mean(column))
    shown = [
        join(name(c), " ", tag("span", numbers.mean(c, column), data_runs=numbers.runs_of(c))) for c in found[:FEW]
    ]
    rest = "; the others are in the table" if len(found) > FEW else ""
    first = join(f"{LARGEST[column]} that meets the objective: ", join(*shown, between="; ") if shown else "none found")
    return [first, Html(f"{rest}. Each ran at its own largest load, so that their times do not compare.")]


def _time(c: Configuration, group: Group) -> Html:
    unit = " ms a token of normalized latency" if group.is_open else " ms an output token"
    return tag("span", numbers.mean(c, group.time, 1e-6), unit, data_runs=numbers.runs_of(c))


def _fastest(group: Group) -> Html | None:
    ours = group.ours
    if ours is None or ours is group.base:
        return Html("No other without an oracle has a lower mean.") if group.others else None
    shown = verdict(group.against(ours)) == FASTER
    what = "is faster: " if shown else "has the lowest mean, but is not shown to differ: "
    return join(tag("b", name(ours)), f" {what}", group.difference(ours), ".")


def _others(group: Group) -> Html | None:
    """Whose time was shown to differ from B's, whose was not."""
    parts = []
    for word in (FASTER, SLOWER, OPEN):
        found = [c for c in group.verdicts[word] if c is not group.ours]
        if found:
            amount = numbers.count(len(found), f"{word} beside")
            some = [name(c) for c in found]
            names = [" (", join(*some, between="; "), ")"] if len(some) <= FEW else []
            parts.append(join(amount, f" {word}", *names))
    return join("Of the rest: ", join(*parts, between="; "), ".") if parts else None


def _oracle(group: Group) -> Html | None:
    oracle, ours = group.oracle, group.ours
    if oracle is None or oracle is group.base:
        return None
    name_of = "The oracle (not a bound in a free schedule)" if oracle_is_no_bound([oracle]) else "The oracle"
    if verdict(group.against(oracle)) != FASTER:
        return join(f"{name_of} was not shown to gain anything: ", group.difference(oracle), ".")
    text = join(f"{name_of} gains: ", group.difference(oracle))
    captured = gap(ours, group.members, group.time) if ours is not None and ours is not group.base else None
    if ours is None or captured is None or math.isnan(captured.value) or (captured.bounded and captured.half >= 1):
        return join(text, ".")
    share = tag("span", numbers.gap(ours, "time"), data_runs=numbers.runs_of(ours))
    return join(text, "; of this gain ", name(ours), " captures ", share, " %.")


def _resident(group: Group) -> Html | None:
    found = best([c for c in group.members if not math.isnan(c.mean(RESIDENT))], RESIDENT)
    if found is None:
        return None
    shown = tag("span", numbers.plain_mean(found, RESIDENT, 1e-6), data_runs=numbers.runs_of(found))
    return join("With every expert resident it would be ", shown, " ms.")


def reversals(group: Group, most: int = 3) -> list[Html]:
    """Where fewer misses take more time, both shown by paired intervals; of presets and batchers, as in the table."""
    if not group.replicated or not any(c.whole for c in group.members):
        return []
    found = disagree.reversals(group.members)
    plainest: dict[int, disagree.Reversal] = {}
    for reversal in found:
        plainest.setdefault(id(reversal.theirs), reversal)
    return [_reversal(reversal) for reversal in list(plainest.values())[:most]]


def _reversal(found: disagree.Reversal) -> Html:
    runs = {"data_runs": numbers.runs_of(found.ours), "data_base": numbers.runs_of(found.theirs)}
    time_of = judged_by((found.ours, found.theirs))
    misses, time = numbers.relative(found.misses, MISSES), numbers.relative(found.time, time_of)
    return tag("li", name(found.ours), " against ", name(found.theirs), ": misses ", misses, ", time ", time, **runs)
