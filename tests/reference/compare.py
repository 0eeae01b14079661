"""Run the simulator and the reference over one case, and say where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.experiment import Experiment
from moesim.sim import Inputs
from moesim.sim.engine import PARTS
from moesim.sim.log import COUNTED
from moesim.sim.server import FreeServer, ReplayServer
from moesim.sim.setup import set_up
from moesim.sim.simulate import _workload, frozen_schedule
from tests.reference.server import Run

Flat = dict[str, dict[str, Any]]
"""what is compared, by step or request"""


def simulated(config: Experiment, inputs: Inputs, *, direct: bool) -> Flat:
    """What the simulator says of a run, with its checks on."""
    setup = set_up(config, inputs, 0, verify=True, direct=direct)
    engine, run = setup.engine, setup.engine.run
    sampled_at: list[int] = []
    parts: list[Any] = []

    def noting(step: int, work: Any, *rest: Any) -> int:
        end = run(step, work, *rest)
        parts.append(work.parts)
        sampled_at.append(engine.sampled_at)
        return end

    engine.run = noting  # type: ignore[method-assign]
    workload = _workload(config, inputs, 0)
    if config.schedule == "frozen":
        server: Any = ReplayServer(config, inputs, setup, frozen_schedule(config, inputs, 0), workload)
    else:
        server = FreeServer(config, inputs, setup, workload)
    server.run()
    log = server.log
    counts = np.diff(np.array(log.counts).reshape(-1, len(COUNTED)), axis=0, prepend=0).tolist()
    flat: Flat = {}
    for number, (row, spent, counted) in enumerate(zip(log.rows, log.parts, counts, strict=True)):
        flat[f"step {number}"] = (
            {"start": row[1], "end": row[2], "sampled_at": sampled_at[number], "parts": parts[number]}
            | dict(zip(PARTS, map(int, spent), strict=True))
            | dict(zip(COUNTED, counted, strict=True))
        )
    came = [r for r in workload.requests if r.visible >= 0]
    return flat | _requests({r.number: (r.arrival, r.visible, r.first_token, r.finished) for r in came})


def referred(run: Run) -> Flat:
    """The same of the reference."""
    flat: Flat = {}
    for number, (parts, done) in enumerate(run.steps):
        flat[f"step {number}"] = (
            {"start": done.start, "end": done.end, "sampled_at": done.sampled_at, "parts": parts}
            | done.parts
            | {name: done.counts[name] for name in COUNTED}
        )
    return flat | _requests(run.requests)


def _requests(times: dict[int, tuple[int, ...]]) -> Flat:
    names = ("arrival", "visible", "first_token", "finished")
    return {f"request {number}": dict(zip(names, times[number], strict=True)) for number in sorted(times)}


def differences(fast: Flat, slow: Flat) -> list[str]:
    """Of the first step that differs, or else of the requests."""
    for name in [*fast, *(name for name in slow if name not in fast)]:
        one, other = fast.get(name, {}), slow.get(name, {})
        told = [
            f"{name}, {what}: simulator {one.get(what)}, reference {other.get(what)}"
            for what in [*one, *(what for what in other if what not in one)]
            if one.get(what) != other.get(what)
        ]
        if told:
            return told
    return []
