"""Run the simulator, note what each step was given, give the same to the reference, and compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.experiment import Experiment
from moesim.sim import Inputs
from moesim.sim.engine import CLASSES, PARTS
from moesim.sim.log import COUNTED
from moesim.sim.server import FreeServer, ReplayServer
from moesim.sim.setup import pools, set_up
from moesim.sim.simulate import _workload, frozen_schedule
from tests.reference.model import Machine, Outcome

COMPARED = ("demand_bytes", "prefetch_bytes", "wasted_bytes", "evictions", "prefetch_dropped")


@dataclass
class Step:
    """What a step of the simulator was given, and what it did."""

    given: tuple[Any, ...]
    outcome: Outcome | None
    failed: str


def record(config: Experiment, inputs: Inputs, *, direct: bool) -> list[Step]:
    """Run the simulator over the case, with its checks on; its last step has no outcome if they failed there."""
    setup = set_up(config, inputs, 0, verify=True, direct=direct)
    engine, run = setup.engine, setup.engine.run
    given: list[tuple[Any, ...]] = []
    ends: list[tuple[int, int]] = []

    def noting(step: int, work: Any, costs: Any, start: int, laters: Any) -> int:
        kept = {kind: np.array(later) for kind, later in zip(setup.foresights, laters, strict=True)}
        given.append((step, work, costs, start, kept))
        end = run(step, work, costs, start, laters)
        engine._advance(end)  # it would count what the link does behind the last gate in the next step
        ends.append((end, engine.sampled_at))
        return end

    engine.run = noting  # type: ignore[method-assign]
    workload = _workload(config, inputs, 0)
    if config.schedule == "frozen":
        server: Any = ReplayServer(config, inputs, setup, frozen_schedule(config, inputs, 0), workload)
    else:
        server = FreeServer(config, inputs, setup, workload)
    failed = ""
    try:
        server.run()
    except AssertionError as error:
        failed = f"simulator failed: {error!r}"
    counts = np.diff(np.array(server.log.counts).reshape(-1, len(COUNTED)), axis=0, prepend=0)
    done = [_outcome(*step) for step in zip(ends, server.log.parts, counts, strict=True)]
    return [Step(*step, failed) for step in zip(given, [*done, *[None] * (len(given) - len(done))], strict=True)]


def _outcome(end: tuple[int, int], parts: list[int], counted: np.ndarray) -> Outcome:
    count = dict(zip(COUNTED, map(int, counted), strict=True))
    classes = {name: n for name, n in count.items() if name.split("_")[0] in CLASSES and name.count("_") == 2}
    traffic = {name: count[name] for name in COMPARED}
    return Outcome(*end, dict(zip(PARTS, map(int, parts), strict=True)), classes, traffic)


@dataclass
class Comparison:
    """`differences` of the first step that differs, up to the first in which something `contested` happened."""

    steps: int
    differences: list[str]
    contested: set[str]


def compare(config: Experiment, inputs: Inputs, steps: list[Step], *, set_aside: bool = True) -> Comparison:
    """Run the reference over what the simulator was given; `set_aside`: stop at what is contested."""
    machine = Machine(config, inputs, pools(config.memory, inputs.shape), 0)
    for number, step in enumerate(steps):
        found = machine.step(*step.given)
        if machine.contested and set_aside:
            return Comparison(number, [], machine.contested)
        if found != step.outcome:
            told = _differing(step.outcome, found) if step.outcome else [step.failed]
            return Comparison(number, [f"step {step.given[0]}, start {step.given[3]}", *told], set())
    return Comparison(len(steps), [], set())


def _differing(fast: Outcome, slow: Outcome) -> list[str]:
    one, other = _flat(fast), _flat(slow)
    return [f"{name}: simulator {one[name]}, reference {other[name]}" for name in one if one[name] != other[name]]


def _flat(outcome: Outcome) -> dict[str, int]:
    numbers = {"end": outcome.end, "sampled_at": outcome.sampled_at}
    return numbers | outcome.parts | outcome.classes | outcome.traffic
