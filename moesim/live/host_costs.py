"""The host's own times: launches, the way of a gate's result to the host, submitting copies, a policy's decision."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np
import torch

from moesim import policy
from moesim.errors import InputError, Problem
from moesim.experiment import PolicySpec
from moesim.hardware.shape import ModelShape
from moesim.live.copies import Copier
from moesim.live.timing import Clock, Effort, Spread
from moesim.policy import BatchPolicy, Limits
from moesim.results import Results
from moesim.sim.scheduler import Scheduler

REQUESTS = 8
CHUNK = 4096
BATCHER = "decode-first"


def host_costs(
    shape: ModelShape, device: torch.device, effort: Effort, clock: Clock = time.perf_counter_ns
) -> dict[str, Spread]:
    """`HostCosts` with their spreads, as the live engine pays them.

    launch: until one small kernel is issued (on a CPU: a call that computes next to nothing); sync: until the experts
    that a gate chose are numbers on the host, its kernels being over; copy_submit: handing one copy to the copier;
    decision: forming a step of eight decoding requests (`decode-first`).
    """
    found = {
        "launch": _repeated(_launch(device), effort, clock, device),
        "sync": _repeated(_sync(shape, device), effort, clock, device),
        "decision": _repeated(_decision(shape), effort, clock, device),
    }
    with Copier(device) as copier:
        source = torch.zeros(CHUNK, dtype=torch.uint8)
        target = torch.zeros(CHUNK, dtype=torch.uint8, device=device)
        source = source.pin_memory() if device.type == "cuda" else source
        times = []
        for number in range(effort.warmup + effort.repeats):
            begun = clock()
            copy = copier.submit(source, target)
            if number >= effort.warmup:
                times.append(clock() - begun)
            copier.wait(copy)
        found["copy_submit"] = Spread.of(times)
    return found


def host_of_runs(folder: Path) -> dict[str, Spread]:
    """`HostCosts` as live runs had them: medians of the settings that calibrate (`validation: {role: calibrate}`).

    What no run did is left out. Raises InputError where the folder holds no live runs, or none that calibrates: what a
    setting was fitted to is no evidence for it, so that none of those that judge are read.
    """
    results = Results.load(folder)
    if "live_launch_ns" not in results.summary:
        raise InputError(Problem("--host-from", f"{folder} holds no live runs (moesim live writes them)"))
    roles = [config.validation.role if config.validation else "judge" for config in results.configs]
    of_run = [role for role, config in zip(roles, results.configs, strict=True) for _ in range(config.replications)]
    table = results.summary[[of_run[run] == "calibrate" for run in results.summary["run"]]]
    if table.empty:
        text = f"{folder} has no setting that calibrates; give one validation: {{role: calibrate}} in the experiment"
        raise InputError(Problem("--host-from", text))
    launch = table["live_launch_ns"]
    columns = {
        "launch": launch,
        "sync": table["live_sync_ns"],
        "copy_submit": table["live_copy_submit_ns"],
        "decision": table["live_ask_ns"],
        "forming": (table["live_step_ns"] - launch).clip(lower=0)[(table["live_step_ns"] >= 0) & (launch >= 0)],
    }
    known = {name: [int(value) for value in column if value >= 0] for name, column in columns.items()}
    return {name: Spread.of(values) for name, values in known.items() if values}


def _repeated(call: Callable[[], object], effort: Effort, clock: Clock, device: torch.device) -> Spread:
    for _ in range(effort.warmup):
        call()
    times = []
    for _ in range(effort.repeats):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begun = clock()
        call()
        times.append(clock() - begun)
    return Spread.of(times)


def _launch(device: torch.device) -> Callable[[], object]:
    small = torch.zeros(16, device=device)
    return lambda: small.add_(1.0)


def _sync(shape: ModelShape, device: torch.device) -> Callable[[], object]:
    chosen = torch.zeros(REQUESTS, shape.top_k, dtype=torch.int64, device=device)
    return lambda: chosen.tolist()


def _decision(shape: ModelShape) -> Callable[[], object]:
    made = policy.make("batch", PolicySpec(name=BATCHER))
    assert isinstance(made, BatchPolicy)
    scheduler = Scheduler(made, Limits(2048, REQUESTS))
    routes = [np.array([expert % shape.experts], np.int16) for expert in range(REQUESTS)]
    for request in range(REQUESTS):
        scheduler.admit(request, 1, routes[request])
    positions = cycle(range(1, 1024))
    scheduler.form()

    def decide() -> None:
        at = next(positions)
        for request in range(REQUESTS):
            scheduler.sampled(request, at, routes[request])
        scheduler.form()

    return decide
