"""Where hits and time disagree: one policy misses less than another and takes longer, and both are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from moesim.analysis import compare
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import Configuration, baseline, deployable
from moesim.analysis.gap import column_of, paired
from moesim.analysis.searched import largest_of


@dataclass(frozen=True, slots=True)
class Reversal:
    """`ours` misses less than `theirs` and is slower: relative paired differences, both intervals exclude 0."""

    ours: Configuration
    theirs: Configuration
    misses: Interval
    time: Interval

    @property
    def size(self) -> float:
        """How plain it is: the lesser of the two differences."""
        return min(-self.misses.value, self.time.value)


def reversals(group: Sequence[Configuration]) -> list[Reversal]:
    """All of a group, the plainest first; oracles apart, which nobody deploys, and what changes the model.

    None where each ran at a load of its own, so that times do not compare.
    """
    if largest_of(group):
        return []
    pairs = permutations(deployable(group), 2)
    found = [r for pair in pairs for r in _reversal(*pair)]
    return sorted(found, key=lambda r: -r.size)


def relative(ours: Configuration, theirs: Configuration, column: str) -> Interval:
    """(ours - theirs) / theirs with its paired interval."""
    mine, other = paired((ours, theirs), column)
    return compare.ratio(mine - other, other)


def _reversal(ours: Configuration, theirs: Configuration) -> Iterator[Reversal]:
    misses, time = (relative(ours, theirs, column_of(measure, (ours, theirs))) for measure in ("misses", "time"))
    if misses.excludes(0) and time.excludes(0) and misses.value < 0 < time.value:
        yield Reversal(ours, theirs, misses, time)


def words(group: Sequence[Configuration], most: int = 3) -> list[str]:
    """How often it happens in a group of presets or batchers, in a line, and the plainest against each beaten so."""
    if not any(c.whole for c in group) or largest_of(group) or len(group[0].units) < 2:
        return []
    found = reversals(group)
    others = len(deployable(group))
    lines = [f"fewer misses and more time: {len(found)} of {others * (others - 1) // 2} pairs without an oracle"]
    base = baseline(group, column_of("time", group))
    ranked = sorted(found, key=lambda r: (r.theirs is not base, -r.size))
    by_rival = {id(r.theirs): r for r in reversed(ranked)}  # the plainest against each
    for r in sorted(by_rival.values(), key=ranked.index)[:most]:
        differences = f"misses {_percent(r.misses)}, time {_percent(r.time)}"
        lines.append(f"  {r.ours.policy} against {r.theirs.policy}: {differences}")
    return lines


def _percent(interval: Interval) -> str:
    value, low, high = (f"{part * 100:+.1f}" for part in (interval.value, interval.low, interval.high))
    return f"{value} % [{low}, {high}]"
