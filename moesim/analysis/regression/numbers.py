"""The numbers of an experiment, as they are now and as a baseline has them, and what differs between the two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from moesim.analysis import compare
from moesim.analysis.regression.rules import Number, Rule, is_blank, same

SEPARATOR = " | "
Kind = Literal[
    "failed", "no baselines", "no experiment", "input", "settings", "new run", "lost run", "new metric", "lost metric"
]


@dataclass(frozen=True, slots=True)
class RunNumbers:
    """The metrics of one run. `point`: its place in the grid; `unit`: the cluster or replication that it counts as."""

    point: str
    replication: int
    values: Mapping[str, Number]
    unit: int = -1

    @property
    def name(self) -> str:
        """As the baselines have it."""
        return f"{self.point}{SEPARATOR}r{self.replication}"


@dataclass(frozen=True, slots=True)
class Numbers:
    """What an experiment gave: runs by name; digests of what it read; settings of all points, and of each its own."""

    runs: Mapping[str, RunNumbers]
    inputs: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    points: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """Those that any run has, sorted."""
        return sorted({metric for run in self.runs.values() for metric in run.values})

    @property
    def count(self) -> int:
        return sum(len(run.values) for run in self.runs.values())


@dataclass(frozen=True, slots=True)
class Change:
    """A number that does not pass: of a run, or with an interval the mean of a point (`run` is then its name)."""

    metric: str
    run: str
    point: str
    before: Number
    after: Number
    low: float = math.nan
    high: float = math.nan

    @property
    def relative(self) -> float:
        """(after - before) / before; infinite from 0, NaN where one of them is blank."""
        if is_blank(self.before) or is_blank(self.after):
            return math.nan
        difference = self.after - self.before
        return difference / abs(self.before) if self.before else math.copysign(math.inf, difference)


@dataclass(frozen=True, slots=True)
class Note:
    """What differs beside numbers, in a sentence."""

    kind: Kind
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """An experiment of the file beside its baselines. Nothing differs where there are neither changes nor notes.

    `labels`: what its times and routing are of; `trace`: where the program failed, if it did.
    """

    name: str
    about: str
    rules: Mapping[str, Rule]
    now: Numbers | None
    before: Numbers | None
    changes: tuple[Change, ...]
    notes: tuple[Note, ...]
    labels: tuple[str, ...] = ()
    trace: str = ""

    @property
    def passed(self) -> bool:
        return not self.changes and not self.notes

    @property
    def failed(self) -> bool:
        """Whether it did not run to its end, so that there are no numbers to compare."""
        return any(note.kind == "failed" for note in self.notes)

    @property
    def compared(self) -> list[str]:
        """Names of the runs that both have."""
        return [name for name in self.now.runs if name in self.before.runs] if self.now and self.before else []

    @property
    def metrics(self) -> list[str]:
        """Metrics that both have, in the order of the file."""
        known = set(self.before.metrics) if self.before else set()
        return [metric for metric in self.rules if metric in known]

    def changed(self) -> dict[str, list[Change]]:
        """The changes by metric, in the order of the file; the largest first."""
        found = {metric: [c for c in self.changes if c.metric == metric] for metric in self.rules}
        return {metric: sorted(some, key=_largest) for metric, some in found.items() if some}


def _largest(change: Change) -> tuple[float, str]:
    size = abs(change.relative)
    return (-math.inf if math.isnan(size) else -size), change.run


def judge(
    name: str, about: str, rules: Mapping[str, Rule], now: Numbers, before: Numbers | None, labels: Sequence[str] = ()
) -> Verdict:
    """Hold the numbers of an experiment against its baselines."""
    if before is None:
        note = Note("no baselines", f"no baselines yet ({len(now.runs)} runs, {len(rules)} metrics)")
        return Verdict(name, about, rules, now, None, (), (note,), tuple(labels))
    changes = [*_changes(rules, now, before)]
    notes = [*_of_inputs(now, before), *_of_settings(now, before), *_of_runs(now, before)]
    notes += _of_metrics(rules, now, before)
    return Verdict(name, about, rules, now, before, tuple(changes), tuple(notes), tuple(labels))


def failed(
    name: str, about: str, rules: Mapping[str, Rule], before: Numbers | None, error: str, trace: str = ""
) -> Verdict:
    """An experiment that did not run to its end."""
    note = Note("failed", f"the runs failed: {error}")
    return Verdict(name, about, rules, None, before, (), (note,), trace=trace)


def without_experiment(name: str, before: Numbers) -> Verdict:
    """Baselines that the file has no experiment for."""
    text = f"baselines of {len(before.runs)} runs, and no experiment {name!r} in the file: removed, or renamed?"
    return Verdict(name, "", {}, None, before, (), (Note("no experiment", text),))


def _changes(rules: Mapping[str, Rule], now: Numbers, before: Numbers) -> Iterator[Change]:
    for metric, rule in rules.items():
        pairs = [
            (run, before.runs[name].values[metric], run.values[metric])
            for name, run in now.runs.items()
            if name in before.runs and metric in before.runs[name].values and metric in run.values
        ]
        if rule.kind == "interval":
            yield from _of_points(metric, pairs)
        else:
            yield from (
                Change(metric, run.name, run.point, old, new) for run, old, new in pairs if not same(rule, old, new)
            )


def _of_points(metric: str, pairs: Sequence[tuple[RunNumbers, Number, Number]]) -> Iterator[Change]:
    """Points whose paired differences over replications show a change; exactly, where there is no interval."""
    points: dict[str, list[tuple[RunNumbers, Number, Number]]] = {}
    for pair in pairs:
        points.setdefault(pair[0].point, []).append(pair)
    for point, members in points.items():
        old, new = _by_unit(members)
        found = compare.difference(new, old)
        mean_old, mean_new = (math.fsum(values) / len(values) for values in (old, new))
        if is_blank(mean_old) or is_blank(mean_new) or not found.bounded:
            moved = any(not same(Rule(), before, after) for _, before, after in members)
        else:
            moved = found.excludes(0)
        if moved:
            scale = abs(mean_old) or math.nan
            yield Change(metric, point, point, mean_old, mean_new, found.low / scale, found.high / scale)


def _by_unit(members: Sequence[tuple[RunNumbers, Number, Number]]) -> tuple[list[float], list[float]]:
    """Means of each unit, before and after: replications that share captured sequences are one observation."""
    units: dict[int, list[tuple[Number, Number]]] = {}
    for run, old, new in members:
        units.setdefault(run.replication if run.unit < 0 else run.unit, []).append((old, new))
    means = [[math.fsum(values) / len(values) for values in zip(*pairs, strict=True)] for pairs in units.values()]
    return [old for old, _ in means], [new for _, new in means]


def _of_inputs(now: Numbers, before: Numbers) -> Iterator[Note]:
    tail = "numbers may differ for that reason, and not because the program changed"
    for name in sorted({*now.inputs, *before.inputs}):
        old, new = before.inputs.get(name), now.inputs.get(name)
        if old is None:
            yield Note("input", f"input {name} is new to the baselines (sha256 {_short(new)}): {tail}")
        elif new is None:
            yield Note("input", f"input {name} of the baselines is not read any more (sha256 {_short(old)}): {tail}")
        elif old != new:
            yield Note("input", f"input {name} has changed (sha256 {_short(old)} -> {_short(new)}): {tail}")


def _short(digest: str | None) -> str:
    return (digest or "")[:12]


def _of_settings(now: Numbers, before: Numbers) -> Iterator[Note]:
    changed = differences(before.settings, now.settings)
    if changed:
        yield Note("settings", f"settings of all runs have changed: {', '.join(changed)}")
    for point in now.points:
        if point in before.points and (more := differences(before.points[point], now.points[point])):
            told = [words for words in more if words not in changed]
            if told:
                yield Note("settings", f"settings of {point} have changed: {', '.join(told)}")


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """In words what differs between two trees, such as `steps 24 -> 30`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(key for key in new if key not in old)]
        inner = (differences(old.get(k), new.get(k), f"{path}.{k}" if path else str(k)) for k in keys)
        return [words for some in inner for words in some]
    return [] if old == new else [f"{path} {_word(old)} -> {_word(new)}"]


def _word(value: Any) -> str:
    return "(as moesim has it)" if value is None else str(value)


def _of_runs(now: Numbers, before: Numbers) -> Iterator[Note]:
    new = [name for name in now.runs if name not in before.runs]
    lost = [name for name in before.runs if name not in now.runs]
    renamed = dict(_renamed_runs(new, lost, now, before))
    for name in new:
        told = f"; {renamed[name]} of the baselines has its settings and numbers: renamed?" if name in renamed else ""
        yield Note("new run", f"run {name} has no baseline{told}")
    for name in lost:
        if name not in renamed.values():
            yield Note("lost run", f"baseline of run {name} has no run: its place in the grid is gone, or renamed")


def _renamed_runs(new: Sequence[str], lost: Sequence[str], now: Numbers, before: Numbers) -> Iterator[tuple[str, str]]:
    left = list(lost)
    for name in new:
        run = now.runs[name]
        for other in left:
            old = before.runs[other]
            if old.replication == run.replication and _alike(run, old, now, before):
                left.remove(other)
                yield name, other
                break


def _alike(run: RunNumbers, old: RunNumbers, now: Numbers, before: Numbers) -> bool:
    shared = run.values.keys() & old.values.keys()
    settings = now.points.get(run.point) == before.points.get(old.point)
    return settings and bool(shared) and all(same(Rule(), old.values[m], run.values[m]) for m in shared)


def _of_metrics(rules: Mapping[str, Rule], now: Numbers, before: Numbers) -> Iterator[Note]:
    known = before.metrics
    lost = [metric for metric in known if metric not in rules]
    renamed: dict[str, str] = {}
    for metric in (metric for metric in rules if metric not in known):
        other = next((o for o in lost if o not in renamed.values() and _same_numbers(metric, o, now, before)), None)
        if other is not None:
            renamed[metric] = other
        told = f"; {other} of the baselines has the same numbers: renamed?" if other else ""
        yield Note("new metric", f"metric {metric} has no baselines{told}")
    for metric in lost:
        if metric not in renamed.values():
            yield Note("lost metric", f"metric {metric} has baselines and is not in the file any more")


def _same_numbers(metric: str, other: str, now: Numbers, before: Numbers) -> bool:
    pairs = [
        (before.runs[name].values[other], run.values[metric])
        for name, run in now.runs.items()
        if name in before.runs and other in before.runs[name].values
    ]
    return len({new for _, new in pairs}) > 1 and all(same(Rule(), old, new) for old, new in pairs)
