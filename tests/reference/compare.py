"""Run the simulator and the reference over one case, and say where they differ."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np

from moesim.experiment import Experiment
from moesim.sim import Inputs, simulate
from moesim.sim.engine import PARTS
from moesim.sim.log import COUNTED, StepLog
from tests.reference.server import Run

TIMES = ("arrival", "visible", "first_token", "finished")
Flat = dict[str, dict[str, Any]]
"""what is compared, by step or request"""


def simulated(config: Experiment, inputs: Inputs, *, direct: bool) -> Flat:
    """What the simulator says of a run, with its checks on; `direct`: without its shortcuts."""
    noted: dict[int, list[dict[str, Any]]] = {}
    logs: list[StepLog] = []
    add = StepLog.add

    def noting(log: StepLog, step: int, start: int, end: int, work: Any) -> None:
        add(log, step, start, end, work)
        if log not in logs:
            logs.append(log)
        times = {"start": start, "end": end, "sampled_at": log.setup.engine.sampled_at, "parts": work.parts}
        spent = dict(zip(PARTS, map(int, log.parts[-1]), strict=True))
        noted.setdefault(id(log), []).append(times | spent)

    with mock.patch.object(StepLog, "add", noting):
        result = simulate(config, inputs, 0, check=True, direct=direct)
    log = logs[-1]  # the one before it, if any, is that of the recording
    counts = np.diff(np.array(log.counts).reshape(-1, len(COUNTED)), axis=0, prepend=0).tolist()
    flat: Flat = {}
    for number, (step, counted) in enumerate(zip(noted[id(log)], counts, strict=True)):
        flat[f"step {number}"] = step | dict(zip(COUNTED, counted, strict=True))
    times = zip(*(result.requests[f"{name}_ns"].tolist() for name in TIMES), strict=True)
    return flat | _requests(dict(zip(result.requests["request"].tolist(), times, strict=True)))


def referred(run: Run) -> Flat:
    """The same of the reference."""
    flat: Flat = {}
    for number, (parts, done) in enumerate(run.steps):
        times = {"start": done.start, "end": done.end, "sampled_at": done.sampled_at, "parts": parts}
        flat[f"step {number}"] = times | done.parts | {name: done.counts[name] for name in COUNTED}
    return flat | _requests(run.requests)


def _requests(times: dict[int, tuple[int, ...]]) -> Flat:
    return {f"request {number}": dict(zip(TIMES, times[number], strict=True)) for number in sorted(times)}


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
