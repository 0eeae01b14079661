"""Run the simulator and the reference over one case, and say where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import mock

import numpy as np

from moesim.experiment import Experiment
from moesim.sim import Inputs, kv, simulate
from moesim.sim.compiled import compiled_steps
from moesim.sim.engine import PARTS
from moesim.sim.log import COUNTED, GIVEN
from moesim.sim.server import Server
from moesim.sim.setup import set_up
from tests.reference.server import Run

WAYS = ("direct", "patterns", "compiled")
"""in which the simulator can run a case: event by event, repeating what it knows, as compiled code where that fits"""
OF_REQUESTS = ("arrival_ns", "visible_ns", "first_token_ns", "finished_ns", "preemptions")
Flat = dict[str, dict[str, Any]]
"""what is compared, by step or request"""


def fitting(config: Experiment, inputs: Inputs) -> bool:
    """Whether the simulator may run the case as compiled code."""
    return compiled_steps(config, inputs, set_up(config, inputs, 0), False, True) is not None


def simulated(config: Experiment, inputs: Inputs, way: str, replication: int = 0) -> Flat:
    """What the simulator says of a run, with its checks on; `way`: one of WAYS."""
    servers: list[Server] = []
    noted: list[dict[str, Any]] = []
    run_step = Server.run_step

    def noting(server: Server, step: int, work: Any, *rest: Any) -> int:
        end = run_step(server, step, work, *rest)
        if server not in servers:  # the one before, if any, made the recording
            servers.append(server)
            noted.clear()
        sampled_at = (server.compiled or server.setup.engine).sampled_at
        noted.append({"sampled_at": sampled_at, "parts": tuple(map(tuple, work.parts))})
        return end

    with mock.patch.object(Server, "run_step", noting):
        result = simulate(config, inputs, replication, check=True, direct=way == "direct", compiled=way == "compiled")
    log = servers[-1].log
    counts = np.diff(log.counts, axis=0, prepend=0).tolist()
    flat: Flat = {}
    for note, row, parts, counted in zip(noted, log.rows.tolist(), log.parts.tolist(), counts, strict=True):
        given, spent = dict(zip(GIVEN, row, strict=True)), dict(zip(PARTS, parts, strict=True))
        times = {"start": given["start_ns"], "end": given["end_ns"]}
        flat[f"step {given['step']}"] = times | note | spent | dict(zip(COUNTED, counted, strict=True))
    for number, row in enumerate(log.kv):
        flat[f"step {number}"] |= dict(zip(kv.COUNTED, row, strict=True))
    columns = zip(*(result.requests[name].tolist() for name in OF_REQUESTS), strict=True)
    return flat | _requests(dict(zip(result.requests["request"].tolist(), columns, strict=True)))


def referred(run: Run) -> Flat:
    """The same of the reference."""
    flat: Flat = {}
    for number, (parts, done) in enumerate(run.steps):
        times: dict[str, Any] = {"start": done.start, "end": done.end, "sampled_at": done.sampled_at}
        times |= {"parts": tuple(map(tuple, parts))}
        counted = (*COUNTED, *kv.COUNTED) if run.memory else COUNTED
        flat[f"step {number}"] = times | done.parts | {name: done.counts[name] for name in counted}
    return flat | _requests(run.requests)


def _requests(found: Mapping[int, tuple[int, ...]]) -> Flat:
    return {f"request {number}": dict(zip(OF_REQUESTS, found[number], strict=True)) for number in sorted(found)}


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
