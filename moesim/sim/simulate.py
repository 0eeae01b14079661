"""One run: a configuration, its inputs and a replication in, counters and tables out."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol

import numpy as np

from moesim.experiment import Experiment
from moesim.hardware.budget import pools
from moesim.policy.residency import Residency
from moesim.sim.bounds import min_misses
from moesim.sim.compiled import compiled_steps
from moesim.sim.inputs import traffic_label
from moesim.sim.log import requests_table
from moesim.sim.replayed import ReplayServer
from moesim.sim.result import RunResult
from moesim.sim.schedule import Schedule
from moesim.sim.server import FreeServer, Server
from moesim.sim.setup import MAKERS, Inputs, Makers, Setup, set_up, settle
from moesim.sim.transfers import Recorder
from moesim.sim.watch import Watch
from moesim.sim.watched import Watched
from moesim.sim.window import Window, left_within, windows_of
from moesim.sim.work import make_work
from moesim.sim.workload import Workload

Progress = Callable[[int], None]


class Machine(Protocol):
    """What steps run on in place of the simulated machine: a real one (`moesim.live.engine`)."""

    @property
    def makers(self) -> Makers:
        """Who makes the parts that `set_up` puts together."""

    def server(
        self, config: Experiment, inputs: Inputs, setup: Setup, schedule: Schedule | None, workload: Workload
    ) -> FreeServer | ReplayServer:
        """The server that runs on them: of a frozen schedule, or, without one, as it comes."""

KEPT = 8
"""frozen schedules that a process keeps"""
_schedules: dict[str, Schedule] = {}


def schedule_key(config: Experiment, inputs: Inputs, replication: int) -> str:
    """What a frozen schedule depends on; runs with equal keys replay the same steps."""
    free = {"name", "question", "memory", "cache", "prefetch", "miss", "preset", "labels", "objective", "search"}
    plain = config.model_dump(mode="json", exclude=free | {"trace", "validation"})  # which is known by its digest
    plain["machine"].pop("expert_start", None)
    if (kv := settle(config, inputs).memory.kv) is not None:
        plain["kv"] = kv.model_dump(mode="json")
        plain["kv_link"] = inputs.link.digest if kv.preempt == "swap" else ""
    arrivals = inputs.arrivals.digest if inputs.arrivals else ""
    digests = (inputs.trace.digest, id(inputs.trace), inputs.costs.digest, inputs.shape.name, arrivals)
    return json.dumps([plain, replication, digests], sort_keys=True)


def simulate(
    config: Experiment,
    inputs: Inputs,
    replication: int,
    *,
    check: bool = False,
    progress: Progress | None = None,
    direct: bool = False,
    compiled: bool | None = None,
    watch: Watch | None = None,
    transfers: bool = False,
    machine: Machine | None = None,
) -> RunResult:
    """Run one replication of one point of a grid. `check` verifies conservation after every step.

    `direct` works every layer event out anew (see `Engine`): slower, and equal to the nanosecond. So is what `compiled`
    says: whether to run compiled steps where they fit (moesim.sim.compiled); None: where that pays. A `watch` is
    told what happens; a run that is watched is direct. `transfers`: keep a row per copy on the link, which no compiled
    steps do; not of a run that is watched. On a `machine` the run is executed, with neither.

    Raises InputError where a cost table does not reach (see `CostTable`).
    """
    config = settle(config, inputs)
    watched = Watched(watch) if watch is not None else None
    recorder = Recorder() if transfers and watched is None and machine is None else None
    direct = direct or watched is not None or machine is not None
    looking = machine or watched or recorder
    makers = looking.makers if looking else MAKERS
    setup = set_up(config, inputs, replication, verify=check, direct=direct, makers=makers)
    workload = _workload(config, inputs, replication)
    config, served = _served(config, inputs, workload)
    server: FreeServer | ReplayServer
    schedule = None
    if config.schedule == "frozen":
        schedule = frozen_schedule(config, inputs, replication)
        # The recorded requests have all their routes; those of this workload are bound as they come.
        served = replace(inputs, trace=schedule.workload.trace)
    kernel = None if direct or recorder else compiled_steps(config, served, setup, check, compiled)
    if machine is not None:
        server = machine.server(config, served, setup, schedule, workload)
    elif schedule is not None:
        server = ReplayServer(config, served, setup, schedule, workload, kernel)
    else:
        server = FreeServer(config, served, setup, workload, kernel)
    _show_cache(server)
    if watched is not None:
        watched.server(server)
    if progress is not None:
        server.progress = progress
    with undisturbed():
        server.run()
    result = _result(config, inputs, server, schedule)
    return replace(result, transfers=recorder.log.table(setup.engine.keys)) if recorder else result


@contextmanager
def undisturbed() -> Iterator[None]:
    """What is there when a run starts is no garbage of the run: Python's collector need not look through it each time.

    There are some 160,000 objects in what is imported, and a full collection of them takes as long as a thousand steps.
    """
    if gc.get_freeze_count():  # somebody else has seen to it, and would not get back what they froze
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _show_cache(server: Server) -> None:
    """Let a batch policy that wants to see what is on the GPU."""
    watch = getattr(server.scheduler.policy, "watch", None)
    if watch is not None:
        state = server.setup.cache.state if server.compiled is None else server.compiled.here
        watch(Residency(server.setup.engine.keys.table, state))


def frozen_schedule(config: Experiment, inputs: Inputs, replication: int) -> Schedule:
    """The schedule that the server forms with every expert resident; recorded once a process and kept."""
    key = schedule_key(config, inputs, replication)
    if key not in _schedules:
        while len(_schedules) >= KEPT:
            del _schedules[next(iter(_schedules))]
        ahead = inputs.trace.ahead
        if ahead is None:
            _schedules[key] = _record(config, inputs, replication)
        else:
            known = frozen_schedule(config, replace(inputs, trace=ahead), replication)
            _schedules[key] = _at_gate(config, inputs, replication, known)
    return _schedules[key]


def _at_gate(config: Experiment, inputs: Inputs, replication: int, known: Schedule) -> Schedule:
    """The steps of a schedule that was recorded with routes `known` ahead, timed as they are revealed at each gate."""
    workload = _workload(config, inputs, replication)
    workload[len(known.workload.requests) - 1]  # draws them all: the same, in the same order
    frames = [replace(f, work=make_work(f.work.parts, workload.trace, workload.sequences)) for f in known.frames]
    schedule = replace(known, frames=frames, workload=workload, memo={})
    config, served = _served(config, inputs, workload)
    setup = set_up(config, inputs, replication, resident=True)
    machine = compiled_steps(config, served, setup, False, None)
    server = ReplayServer(config, served, setup, schedule, _workload(config, inputs, replication), machine)
    with undisturbed():
        server.run()
    _, starts, ends, *_ = server.log.rows.T.tolist()
    return replace(schedule, starts=starts, ends=ends)


def _record(config: Experiment, inputs: Inputs, replication: int) -> Schedule:
    setup = set_up(config, inputs, replication, resident=True)
    workload = _workload(config, inputs, replication)
    config, served = _served(config, inputs, workload)
    machine = compiled_steps(config, served, setup, False, None)
    server = FreeServer(config, served, setup, workload, machine)
    server.recording = True
    with undisturbed():
        server.run()
    _, starts, ends, *_ = server.log.rows.T.tolist()
    passed_over, bound = server.scheduler.longest_pass_over, server.scheduler.pass_over_bound
    return Schedule(server.frames, server.workload, server.after_step, starts, ends, passed_over, bound)


def _workload(config: Experiment, inputs: Inputs, replication: int) -> Workload:
    return Workload(
        inputs.trace, config.traffic, config.seed, replication, config.replications, arrivals=inputs.arrivals
    )


def _served(config: Experiment, inputs: Inputs, workload: Workload) -> tuple[Experiment, Inputs]:
    """What the server is handed: the routes of its requests, and how many of them a file of arrivals has."""
    if config.traffic.kind == "trace":
        config = config.model_copy(update={"traffic": workload.traffic})
    return config, replace(inputs, trace=workload.trace)


def _result(config: Experiment, inputs: Inputs, server: Server, schedule: Schedule | None) -> RunResult:
    table = requests_table(server.workload.requests, config.warmup_steps)
    windows = windows_of(config.window, table, server.log.rows) or [Window(-1, config.warmup_steps, len(server.log))]
    if config.window is not None:
        table["measured"] = windows[-1].measures(table["request"], config.window.requests)
    whole = _of_the_run(config, server, schedule) | _bounds(config, inputs, server, schedule)
    rows = [_of_a_window(config, inputs, server, table, window) | whole for window in windows]
    names = dict.fromkeys(name for row in rows for name in row)
    grid = {name: np.array([row.get(name, 0) for row in rows], np.int64) for name in names} if config.window else {}
    steps = server.log.steps(*windows[-1].steps)
    table["left_measured"] = left_within(table["finished_ns"], steps)
    labels = server.setup.labels | traffic_label(inputs.arrivals, config.traffic.requests)
    return RunResult(rows[-1], steps, table, labels, grid, server.tokens.table())


def _of_a_window(
    config: Experiment, inputs: Inputs, server: Server, table: dict[str, np.ndarray], window: Window
) -> dict[str, int]:
    """Counters over the steps of a window, and of its requests."""
    first, end = window.steps
    measured = table["measured"] if config.window is None else window.measures(table["request"], config.window.requests)
    counters = server.log.counters(first, inputs.shape.layers, end)
    counters["output_tokens"] = sum(server.tokens.counts[first:end])
    counters["requests_finished"] = int(((table["finished_ns"] >= 0) & measured).sum())
    return counters | window.columns(config.window)


def _of_the_run(config: Experiment, server: Server, schedule: Schedule | None) -> dict[str, int]:
    """Counters over the whole run, warm-up included, and what it was."""
    passed = server.scheduler if schedule is None else schedule
    return {
        "longest_pass_over": passed.longest_pass_over,
        "pass_over_bound": -1 if passed.pass_over_bound is None else passed.pass_over_bound,
        "arrivals_ended": int(config.window is not None and server.arrived == config.traffic.requests),
        "arrival_gap_ns": round(10**9 / config.traffic.rate) if config.traffic.rate else -1,
        "cluster": server.workload.cluster,
    }


def _bounds(config: Experiment, inputs: Inputs, server: Server, schedule: Schedule | None) -> dict[str, int]:
    names = ("bound_resident_ns", "min_miss_keys", "min_bytes", "bound_transfer_ns")
    warmup = config.warmup_steps
    if schedule is None or len(schedule.frames) <= warmup:
        return dict.fromkeys(names, -1)
    resident_ns = schedule.ends[-1] - schedule.starts[warmup]
    if server.setup.engine.misses is not None:  # what is not loaded, or loaded in part, has no bound
        return dict.fromkeys(names, -1) | {"bound_resident_ns": resident_ns}
    keys = server.setup.engine.keys
    # Where sizes differ every key is taken to be as small as the smallest: loose, and never beaten.
    small = min(keys.sizes)
    slots = [(of_pool, capacity // small) for of_pool, capacity in pools(config.memory, keys)]
    bypass = config.memory.staging > 0
    key = ("min", tuple(count for _, count in slots), bypass)
    if key not in schedule.memo:
        schedule.memo[key] = min_misses(schedule, keys, slots, warmup, bypass=bypass)
    missed = schedule.memo[key]
    assert isinstance(missed, int)
    link_ns = sum(server.setup.link.chunks(small))
    return dict(zip(names, (resident_ns, missed, missed * small, missed * link_ns), strict=True))
