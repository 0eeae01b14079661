"""What differs: paired differences of a metric with their intervals, as a tidy frame, a figure and sentences."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from moesim.analysis import compare as statistics
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import (
    SIZE,
    Configuration,
    baseline,
    best,
    deployable,
    grouped,
    identity,
    is_estimated,
    judged_by,
    oracle_is_no_bound,
    text,
)
from moesim.analysis.disagree import relative
from moesim.analysis.frames import labels, measures, plain, telling
from moesim.analysis.gap import paired
from moesim.analysis.layout import DOT, significant
from moesim.analysis.units import TIME, Measure
from moesim.errors import InputError, Problem, unknown

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

LOWER, HIGHER, OPEN, NONE = "lower", "higher", "not shown to differ", "no interval"
SETTINGS_OF_MEMORY = ("memory.slots", "memory.bytes", "memory.share", "memory.kv", "memory.gpu")
NAME = "results"
NAMES = {"experts_per_layer": "experts a layer", "cache_gb": "GB of experts"}


@dataclass(frozen=True)
class Pair:
    """One comparison: a configuration, what it is compared with, and the metric."""

    ours: Configuration
    theirs: Configuration
    measure: Measure
    label: Mapping[str, Any] = field(default_factory=dict)
    against: str = ""

    @cached_property
    def difference(self) -> Interval:
        """ours - theirs in the metric's unit, paired over the replications that both have."""
        mine, other = paired((self.ours, self.theirs), self.measure.column)
        return statistics.difference(mine, other).scaled(self.measure.scale)

    @cached_property
    def relative(self) -> Interval:
        """(ours - theirs) / theirs, with Fieller's interval."""
        return relative(self.ours, self.theirs, self.measure.column)

    @property
    def verdict(self) -> str:
        """What the paired interval of the relative difference says."""
        if not self.relative.bounded:
            return NONE
        if not self.relative.excludes(0):
            return OPEN
        return LOWER if self.relative.value < 0 else HIGHER

    @property
    def common(self) -> int:
        """How many independent replications both have."""
        return len(set(self.ours.units) & set(self.theirs.units))

    def row(self) -> dict[str, Any]:
        """As a row of the frame."""
        scale = self.measure.scale
        values = (c.mean(self.measure.column) * scale for c in (self.ours, self.theirs))
        mine, other = values
        gap, share = self.difference, self.relative.scaled(100)
        return {
            **self.label,
            "metric": self.measure.name,
            "unit": self.measure.unit,
            "value": mine,
            "against": self.against,
            "against_value": other,
            "difference": gap.value,
            "low": gap.low,
            "high": gap.high,
            "percent": share.value,
            "percent_low": share.low,
            "percent_high": share.high,
            "shown": self.verdict,
            "replications": self.common,
        }


class Comparison:
    """Paired differences. `frame` has a row each; `plot()` draws them; `sentences()` says what is shown."""

    def __init__(self, pairs: Sequence[Pair], unmatched: int = 0) -> None:
        self.pairs = tuple(pairs)
        self.unmatched = unmatched
        """configurations that have nothing to be compared with"""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row per comparison: labels, `metric` and its `unit`, `value`, `against` whom and their value, `difference`
        with `low` and `high` in the unit, `percent` with its own, what is `shown`, of how many replications.

        Limits are NaN where there is no interval (one replication). Each comparison stands by itself: of twenty that
        are nothing, one is called lower or higher.
        """
        import pandas as pd

        return pd.DataFrame([pair.row() for pair in self.pairs])

    def shown(self) -> pd.DataFrame:
        """The rows whose interval excludes no difference."""
        return self.frame[self.frame["shown"].isin((LOWER, HIGHER))]

    def sentences(self, most: int | None = None) -> list[str]:
        """A sentence per comparison, the largest shown differences first, then how many are not shown."""
        told = sorted((p for p in self.pairs if p.verdict in (LOWER, HIGHER)), key=lambda p: -abs(p.relative.value))
        lines = [_sentence(pair) for pair in told[:most]]
        if len(told) > len(lines):
            lines.append(f"{len(told) - len(lines)} more are shown to differ")
        if open_ones := sum(pair.verdict == OPEN for pair in self.pairs):
            lines.append(f"{open_ones} of {len(self.pairs)} not shown to differ")
        if without := sum(pair.verdict == NONE for pair in self.pairs):
            lines.append(f"{without} of {len(self.pairs)} without an interval: one replication, or no value")
        return lines

    @property
    def estimated(self) -> bool:
        """Whether the differences are of estimated times."""
        return any(p.measure.is_time and (is_estimated(p.ours) or is_estimated(p.theirs)) for p in self.pairs)

    def plot(self, ax: Axes | None = None) -> Axes:
        """The relative differences with their intervals, a row each; hollow: not shown to differ."""
        from moesim.analysis.axes import draw_comparison

        return draw_comparison(self, ax)

    def notes(self) -> list[str]:
        """What holds for all rows."""
        found = ["times are ESTIMATED"] * self.estimated
        found.append("paired 95 % intervals over replications, each comparison by itself")
        if oracle_is_no_bound([p.ours for p in self.pairs]):
            found.append("an oracle is no bound in a free schedule")
        if self.unmatched:
            found.append(f"{self.unmatched} configurations have nothing to be compared with")
        return found

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return "\n".join([*self.sentences(10), f"({DOT.join(self.notes())})"])

    def _repr_html_(self) -> str:
        from moesim.analysis.report.card import of_comparison

        return of_comparison(self)


def compare(
    *results: Any,
    metric: str | Sequence[str] = TIME,
    against: str | float | None = None,
    on: str | None = None,
    names: Sequence[str] | None = None,
) -> Comparison:
    """Paired differences with intervals, between policies, between values of a label, or between results.

    * one result: the policies of each group (equal bytes, case, traffic, batcher ...) with `against`, a policy or a
      label of it; by default the best policy of level history.
    * one result and `on`: its values of that label ("experts_per_layer", "batch", "traffic.rate", ...) with the value
      `against`, by default the first; all else must be equal.
    * several results: the same configurations of each with those of the first, whatever differs between them; `names`
      says what they are called.

    metric: "time" (per output token; in open traffic the mean normalized latency), "misses", "moved", "ttft", "e2e_p95"
    and the like, or any column of `Results.runs`; or several of them. Two results that do not have the same traffic
    and seed did not see the same requests: the intervals are valid, and wide. Raises InputError with every mistake.
    """
    wanted = [metric] if isinstance(metric, str) else list(metric)
    problems = _arguments(results, against, on, names)
    if problems:
        raise InputError(problems)
    if len(results) > 1:
        return _between(results, wanted, list(names) if names else _names(results))
    if on is not None:
        return _along(results[0], wanted, on, against)
    return _policies(results[0], wanted, None if against is None else str(against))


def _arguments(
    results: Sequence[Any], against: object, on: str | None, names: Sequence[str] | None
) -> list[Problem]:
    found = []
    if not results:
        found.append(Problem("compare", "nothing is given; give one result or several"))
    for place, result in enumerate(results):
        if not hasattr(result, "shown_configurations"):
            kind = type(result).__name__
            found.append(Problem("compare", f"argument {place + 1} is of type {kind}; give what run or load returned"))
    if len(results) > 1 and on is not None:
        found.append(Problem("on", "is for one result; several are compared with the first"))
    if len(results) > 1 and against is not None:
        found.append(Problem("against", "is for one result; several are compared with the first"))
    if names is not None and len(names) != len(results):
        found.append(Problem("names", f"{len(names)} names for {len(results)} results; give one each"))
    return found


# -- policies of one result


def _policies(result: Any, metrics: Sequence[str], against: str | None) -> Comparison:
    shown = result.shown_configurations()
    groups = grouped(result.configurations)
    told = dict(zip(shown, telling(shown), strict=True))
    by_metric = [measures(name, result.configurations) for name in metrics]
    if against is not None:
        _known_policy(against, result.configurations)
    pairs, unmatched = [], set()
    for found in by_metric:
        for c in shown:
            group, what = groups[c.group], found[c.group]
            base = _base(c, group, what, against)
            if base is None:
                unmatched.add(c)
            elif base is not c:
                pairs.append(Pair(c, base, what, told[c], _who(base)))
    return Comparison(pairs, len(unmatched))


def _base(c: Configuration, group: Sequence[Configuration], what: Measure, against: str | None) -> Configuration | None:
    """What a configuration is compared with: that of its own scope where a policy of this name is in both."""
    if against is None:
        column = judged_by(group)
        return baseline(group, column) or best(deployable(group), column)
    found = [other for other in group if against in _names_of(other)]
    same = [other for other in found if other.scope == c.scope]
    return best(same or found, what.column) or next(iter(same or found), None)


def _names_of(c: Configuration) -> set[str]:
    """What a configuration may be called: its policy in words, with its scope, and the labels of its axes."""
    said = labels(c)
    own = {str(said[name]) for name in ("cache.label", "preset", "batch.label", "cache") if said.get(name)}
    return {said["policy"], c.policy, _who(c), *own}


def _known_policy(name: str, configurations: Sequence[Configuration]) -> None:
    known = {own for c in configurations for own in _names_of(c)}
    if name not in known:
        raise InputError(Problem("against", unknown("policy", name, known)))


def _who(c: Configuration) -> str:
    return f"{labels(c)['policy']}, {c.scope}" if c.scope else str(labels(c)["policy"])


# -- values of a label


def _along(result: Any, metrics: Sequence[str], on: str, against: Any) -> Comparison:
    shown = result.shown_configurations()
    named = {c: labels(c) for c in shown}
    known = dict.fromkeys(name for row in named.values() for name in row)
    name = on if on in known else on.replace("__", ".")
    if name not in known:
        raise InputError(Problem("on", unknown("label", on, known)))
    values = list(dict.fromkeys(plain(row.get(name, "")) for row in named.values()))
    first = values[0] if against is None else plain(against)
    if first not in values:
        raise InputError(Problem("against", unknown(f"value of {name}", first, values)))
    if len(values) < 2:
        raise InputError(Problem("on", f"{name} is {first} in all of them: there is nothing to compare"))
    keys = {c: _key(c, _columns_of(name)) for c in shown}
    bases = {keys[c]: c for c in shown if plain(named[c].get(name, "")) == first}
    told = dict(zip(shown, telling(shown), strict=True))
    others = [c for c in shown if plain(named[c].get(name, "")) != first]
    pairs = [
        Pair(c, bases[keys[c]], found[c.group], told[c], _word(NAMES.get(name, ""), name, first))
        for found in (measures(metric, result.configurations) for metric in metrics)
        for c in others
        if keys[c] in bases and found[c.group].column == found[bases[keys[c]].group].column
    ]
    return Comparison(pairs, len(others) - len({id(pair.ours) for pair in pairs}))


def _columns_of(name: str) -> set[str]:
    """Columns of the summary that change with a label."""
    if name in ("experts_per_layer", "cache_gb", "kv_gb", "gpu_gb") or name.startswith(SETTINGS_OF_MEMORY):
        return {*SIZE, "gpu_bytes", *SETTINGS_OF_MEMORY}
    kinds = {"batch": "scheduler.batch", "scope": "memory.scope", "policy": "cache"}
    found = {name, kinds.get(name, name), f"{name}.label"}
    return found | ({"cache", "level", "horizon", "unknown", "knows", "oracle"} if name == "policy" else set())


def _key(c: Configuration, leave_out: set[str]) -> Hashable:
    return tuple(
        (column, text(c.value(column)))
        for column in identity(c.runs)
        if column not in leave_out and not column.startswith(tuple(f"{name}." for name in leave_out))
    )


# -- several results


def _names(results: Sequence[Any]) -> list[str]:
    folders = [result.folder.name for result in results]
    return folders if len(set(folders)) == len(folders) else [f"{name} {i + 1}" for i, name in enumerate(folders)]


def _between(results: Sequence[Any], metrics: Sequence[str], names: Sequence[str]) -> Comparison:
    every = [result.shown_configurations() for result in results]
    columns = [dict.fromkeys(column for c in found for column in identity(c.runs)) for found in every]
    common = [column for column in columns[0] if all(column in others for others in columns)]
    matching = [column for column in common if not _tells_results_apart(column, every)]
    keyed = [{tuple(text(c.value(column)) for column in matching): c for c in found} for found in every]
    problems = [
        Problem(names[place], "has several configurations that nothing tells apart which all results have; use where()")
        for place, (found, keys) in enumerate(zip(every, keyed, strict=True))
        if len(keys) < len(found)
    ]
    pairs, unmatched = [], 0
    for place, (result, found) in enumerate(zip(results[1:], keyed[1:], strict=True), 1):
        unmatched += len(found.keys() - keyed[0].keys())
        both = [key for key in found if key in keyed[0]]
        told = telling([found[key] for key in both])
        for metric in metrics:
            ours, theirs = measures(metric, result.configurations), measures(metric, results[0].configurations)
            for key, said in zip(both, told, strict=True):
                mine, other = found[key], keyed[0][key]
                if ours[mine.group].column == theirs[other.group].column:
                    label = {NAME: names[place], **said}
                    pairs.append(Pair(mine, other, ours[mine.group], label, names[0]))
    if not pairs and not problems:
        problems.append(Problem("compare", f"no configuration of {names[1]} is one of {names[0]} as well"))
    if problems:
        raise InputError(problems)
    return Comparison(pairs, unmatched)


def _tells_results_apart(column: str, every: Sequence[Sequence[Configuration]]) -> bool:
    """Whether it is the same in all of a result, and not in all results: what was changed between them."""
    values = [{text(c.value(column)) for c in found} for found in every]
    return all(len(found) == 1 for found in values) and len(set.union(*values)) > 1


# -- words


def _sentence(pair: Pair) -> str:
    share = pair.relative.scaled(100)
    digits = 0 if share.half >= 1 else 1
    low, high = f"{share.low:+.{digits}f}", f"{share.high:+.{digits}f}"
    words = f"{abs(share.value):.{digits}f} % {'less' if share.value < 0 else 'more'} [{low}, {high}]"
    what = pair.measure
    mine, other = (significant(c.mean(what.column) * what.scale) for c in (pair.ours, pair.theirs))
    return f"{said(pair)}: {words} {what.words} than {pair.against} ({mine} against {other} {what.unit})"


def said(pair: Pair) -> str:
    """A comparison's labels in words, the policy first."""
    label = dict(pair.label)
    policy, scope = label.pop("policy", ""), label.pop("scope", "")
    rest = [_word(NAMES.get(name, ""), name, value) for name, value in label.items() if _worth(value)]
    return DOT.join([f"{policy}, {scope}" if scope else str(policy), *rest])


def _worth(value: Any) -> bool:
    return value not in ("", None) and not (isinstance(value, float) and not math.isfinite(value))


def _word(unit: str, name: str, value: Any) -> str:
    shown = f"{value:.4g}" if isinstance(value, float) else str(value)
    if unit:
        return f"{shown} {unit}"
    return shown if name in ("case", NAME) else f"{name.split('.')[-1].replace('_', ' ')} {shown}"

