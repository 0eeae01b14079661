"""The largest load that still meets an objective, found by bisection (docs/metrics.md, "The largest rate").

A run with a search tries loads, each in a simulation of its own with the same random streams: the same requests with
the same lengths and routing, and with every gap between arrivals scaled alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from moesim.analysis.objective import service
from moesim.document import Node, join
from moesim.errors import InputError, Problem
from moesim.experiment import Experiment, Search

if TYPE_CHECKING:
    from moesim.sim import RunResult

Config = TypeVar("Config", bound=Experiment)
FOUND, NONE_MEETS, ALL_MEET = "found", "even from fails", "even to meets"
WHOLE = "concurrency"  # a number of users; the others are rates
LOADS = {"closed": WHOLE, "poisson": "rate", "gamma": "rate"}  # what traffic of a kind is without, if it is searched


def filled(tree: Node) -> Node:
    """A point of a grid, with the first value to try where what it searches has none.

    A search with a mistake of its own has some value, so that it alone is told and no missing rate.
    """
    search, traffic = tree.child("search"), tree.child("traffic")
    key = LOADS.get(str(traffic.child("kind").value)) if traffic.is_mapping else None
    if search.value is None or key is None or traffic.child(key).value is not None:
        return tree
    start = search.child("from")
    value: int | float = 1
    if isinstance(start.value, int | float):
        value = int(start.value) if key == WHOLE and float(start.value).is_integer() else start.value
    given = Node(traffic.value | {key: Node(value, start.where, join(traffic.path, key))}, traffic.where, traffic.path)
    return Node(tree.value | {"traffic": given}, tree.where, tree.path)


def most_probes(search: Search) -> int:
    """How many loads a search may try."""
    halvings = math.log2(math.log(search.end / search.start) / math.log1p(search.tolerance))
    return 2 + max(0, math.ceil(halvings)) + 1


def largest(config: Config, attempt: Callable[[Config], RunResult]) -> RunResult:
    """The run at the largest load that met the objective, with what was found; `attempt` simulates one load.

    The run is that at `from` where even that failed, and that at `to` where even that met. Raises InputError where
    nothing was measured at a load.
    """
    assert config.search is not None
    bisection = Bisection(config.search)
    kept = None
    while (load := bisection.next()) is not None:
        result = attempt(at(config, load))
        met = _meets(config, result, load)
        bisection.learn(load, met)
        if met or kept is None:
            kept = result
    assert kept is not None
    return replace(kept, found=bisection.found())


def at(config: Config, load: float) -> Config:
    """The configuration at one load, without the search."""
    assert config.search is not None
    keys = config.search.over.split(".")[1:]
    value = int(load) if keys[-1] == WHOLE else load
    traffic: Any = config.traffic
    if len(keys) > 1:
        value = traffic.arrivals.model_copy(update={keys[1]: value})
    return config.model_copy(update={"search": None, "traffic": traffic.model_copy(update={keys[0]: value})})


def _meets(config: Experiment, result: RunResult, load: float) -> bool:
    assert config.search is not None
    found = service(result.counters, result.requests, config.objective)
    if not found["attainment"] >= 0:
        over = config.search.over
        text = f"with {over} {load:g} nothing was measured: give it more requests, or fewer warmup_steps"
        raise InputError(Problem("search", text))
    return bool(found["meets_objective"])


class Bisection:
    """Which load to try next: the ends, then the geometric middle of what met and what failed."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.met: float | None = None
        self.failed: float | None = None
        self.probes = 0

    def next(self) -> float | None:
        """The next load to try; None when all is known."""
        search = self.search
        if self.met is None:
            return search.start if self.failed is None else None
        if self.failed is None:
            return search.end if self.met < search.end else None
        if self.failed / self.met <= 1 + search.tolerance:
            return None
        middle = math.sqrt(self.met * self.failed)
        # Six digits are finer than any tolerance, and readable.
        middle = round(middle) if self._whole else float(f"{middle:.6g}")
        return middle if self.met < middle < self.failed else None

    @property
    def _whole(self) -> bool:
        return self.search.over.endswith(WHOLE)

    def learn(self, load: float, met: bool) -> None:
        """Whether the objective was met at a load."""
        self.probes += 1
        if met:
            self.met = load
        else:
            self.failed = load

    def found(self) -> dict[str, float | str]:
        """Columns of the summary: the largest load (NaN where none was enclosed), what met, what failed, and how."""
        name = self.search.over.split(".")[-1]
        met, failed = (math.nan if load is None else load for load in (self.met, self.failed))
        outcome = NONE_MEETS if self.met is None else ALL_MEET if self.failed is None else FOUND
        return {
            f"max_{name}": met if outcome == FOUND else math.nan,
            f"{name}_met": met,
            f"{name}_failed": failed,
            "search_outcome": outcome,
            "search_probes": self.probes,
        }
