"""Results over a load - a rate of arrivals, or a number of users - sorted into sweeps: what one figure shows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from moesim.analysis import palette
from moesim.analysis.configurations import BESIDE, UNLIMITED, Configuration
from moesim.analysis.naming import Set
from moesim.analysis.searched import LARGEST, largest_of

AXES = {
    "traffic.rate": "request rate (requests/s)",
    "traffic.arrivals.scale": "request rate (times that of the file)",
    "traffic.concurrency": "users, each with one request at a time",
}
MOST_LINES = 8
OF_A_LINE = ("policy", "scope", *BESIDE)
"""what a line is of; the lines of one sweep may differ in all of it"""


UNSTEADY = ("overloaded", "cut_off")


@dataclass(frozen=True, eq=False)
class Sweep:
    """Configurations that share all but the load and what a line is of. `lines` are by name, each in order of load."""

    axis: str
    key: Set
    lines: dict[str, list[Configuration]]

    @property
    def configurations(self) -> list[Configuration]:
        return [c for line in self.lines.values() for c in line]

    @property
    def loads(self) -> list[float]:
        return sorted({self.load(c) for c in self.configurations})

    def load(self, configuration: Configuration) -> float:
        return loads(configuration)[self.axis]

    @property
    def styles(self) -> dict[str, dict[str, Any]]:
        """How to draw each line: as policies are drawn elsewhere, where the lines differ in them."""
        known = palette.styles(self.configurations)
        families = {name: palette.family(line[0]) for name, line in self.lines.items()}
        if len(set(families.values())) == len(families) > 1:
            return {name: known[family] for name, family in families.items()}
        looks = zip(palette.COLOURS, palette.MARKERS, strict=True)
        return {
            name: {"color": colour, "marker": marker, "markersize": 5, "linestyle": known[families[name]]["linestyle"]}
            for (name, (colour, marker)) in zip(self.lines, looks, strict=False)
        }


def loads(configuration: Configuration) -> dict[str, float]:
    """The load on each axis that the configuration's row has as a number."""
    found = {}
    for column, value in configuration.group:
        if column in AXES:
            try:
                found[column] = float(value)
            except ValueError:  # an axis with names of the user's own
                continue
    return found


def sweeps(configurations: Sequence[Configuration]) -> list[Sweep]:
    """Every sweep over two loads or more, in the order of the file; of at most eight lines each.

    Where there were more, scopes and then the policies beside the cache's come into sweeps of their own.
    """
    found = []
    for axis in AXES:
        for key, members in _grouped([c for c in configurations if axis in loads(c)], axis).items():
            if len({loads(c)[axis] for c in members}) > 1:
                found += [_sweep(axis, key + more, part) for more, part in _parted(members)]
    return found


def searches(configurations: Sequence[Configuration]) -> list[Sweep]:
    """The same of configurations that have searched for their largest load: each line has one, `axis` is its column."""
    found = []
    for column in LARGEST:
        members = [c for c in configurations if largest_of([c]) == column]
        found += [_sweep(column, key, group) for key, group in _grouped(members, column).items()]
    return found


def _grouped(configurations: Iterable[Configuration], axis: str) -> dict[Set, list[Configuration]]:
    groups: dict[Set, list[Configuration]] = {}
    for c in configurations:
        groups.setdefault(_key(c, axis), []).append(c)
    return groups


def _key(c: Configuration, axis: str) -> Set:
    """What all lines of a figure have in common, the columns of a line's own labels left out."""
    mine = (axis, *BESIDE, "scheduler.batch", *(f"{column}.label" for column in BESIDE))
    return tuple(pair for pair in c.group if pair[0] not in mine)


def _parted(members: Sequence[Configuration]) -> Iterable[tuple[Set, list[Configuration]]]:
    """The members where their lines fit a figure; else apart by what tells them from each other beside the policy."""
    apart = [part for part in OF_A_LINE[1:] if len({_of_line(c)[part] for c in members}) > 1]
    if not apart or len({tuple(_of_line(c).values()) for c in members}) <= MOST_LINES:
        yield (), list(members)
        return
    for value in dict.fromkeys(_of_line(c)[apart[0]] for c in members):
        for more, part in _parted([c for c in members if _of_line(c)[apart[0]] == value]):
            yield ((apart[0], value), *more), part


def _of_line(c: Configuration) -> dict[str, str]:
    group = dict(c.group)
    beside = {column: group.get(f"{column}.label") or group.get(column) or str(c.value(column)) for column in BESIDE}
    named = {column: "" for column, name in beside.items() if c.whole and name == c.policy}  # says it already
    return {"policy": c.policy, "scope": c.scope, **beside, **named}


def _sweep(axis: str, key: Set, members: Sequence[Configuration]) -> Sweep:
    described = {c: _of_line(c) for c in members}
    differing = [part for part in OF_A_LINE if len({words[part] for words in described.values()}) > 1] or ["policy"]
    lines: dict[str, list[Configuration]] = {}
    for c, words in described.items():
        name = ", ".join(words[part] for part in differing)
        lines.setdefault(name.replace(f" {UNLIMITED}", ""), []).append(c)
    ordered = {name: sorted(line, key=lambda c: loads(c).get(axis, 0.0)) for name, line in lines.items()}
    return Sweep(axis, key, ordered)


def is_unsteady(c: Configuration) -> bool:
    """Whether its latencies mean nothing, so that no line goes on to it: they grow with the run, or it was cut off."""
    return any(value > 0 for column in UNSTEADY for value in c.values(column) if not math.isnan(value))
