"""One live run: as `moesim.sim.simulate`, with the times of the clock and a label that says whose."""

from __future__ import annotations

from dataclasses import replace

from moesim.experiment import Experiment
from moesim.live.engine.machine import Options, machine
from moesim.live.engine.model import Weights
from moesim.sim import Inputs, RunResult, simulate
from moesim.sim.setup import settle
from moesim.sim.simulate import Progress

BOUNDS = ("bound_resident_ns", "bound_transfer_ns")


def run_live(
    config: Experiment,
    inputs: Inputs,
    replication: int,
    weights: Weights,
    options: Options,
    *,
    check: bool = False,
    progress: Progress | None = None,
) -> RunResult:
    """Execute one replication of one point. `check` compares every slot and every layer with the full weights.

    A frozen schedule is recorded as the simulator does, with the experiment's tables, and replayed.
    """
    if weights.real is not None:
        inputs = weights.real.inputs(inputs, config)
    settled = settle(config, inputs)
    with machine(settled, inputs, options, weights) as made:
        result = simulate(config, inputs, replication, check=check, progress=progress, machine=made)
    # Bounds in time come from the experiment's tables, and these are not of this machine.
    host = made.engine.times.medians()
    result = replace(result, counters=result.counters | dict.fromkeys(BOUNDS, -1) | host)
    if weights.real is None:
        return result
    return labelled(result, {"routing": f"routing: computed by {weights.real.name}, shape: {inputs.shape.name}"})


def labelled(result: RunResult, labels: dict[str, str]) -> RunResult:
    """The result with labels of its own over those of the simulator."""
    return replace(result, labels=result.labels | labels)
