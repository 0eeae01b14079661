"""What can be decided only when all runs are there: one warm-up for those that compare, and who is overloaded.

Runs with a window of requests bring the counters of every warm-up that may be chosen. The one that is, is the largest
that any run with the same arrivals needs, so that all of them measure the same requests (docs/statistics.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis.overload import Pressure, overloaded, pressure
from moesim.analysis.transient import mser
from moesim.sim.window import NONE, Window, left_within

if TYPE_CHECKING:
    from moesim.plan import Run
    from moesim.sim import RunResult

OPEN = ("poisson", "gamma", "trace")
Pair = tuple["Run", "RunResult"]


def settle(runs: Sequence[Run], results: Sequence[RunResult]) -> list[RunResult]:
    """The results in the same order, with their windows chosen and what was decided among their counters.

    `open_traffic`, `overloaded`, `warmup_needed` (requests, by MSER-5; NONE without a window), `unsettled` (the
    transient did not end within what could be left out), `cut_off` (the run ended before all requests had left),
    `steps_ended` (without a window: `steps` were over before all requests had come and left), `same_arrivals` (all
    replications have those of a file).
    """
    pairs = list(zip(runs, results, strict=True))
    fresh = [_judged(run, result) for run, result in pairs]
    full = _of_groups(pairs, _configuration, _overloaded)
    told = [(run, result, needed, over) for (run, result), needed, over in zip(pairs, fresh, full, strict=True)]
    warmups = _of_groups(told, _arrivals, _warmup)
    return [_settled(*one, warmup) for one, warmup in zip(told, warmups, strict=True)]


def _of_groups(
    members: Sequence[Any], key: Callable[[Run], Hashable], decide: Callable[[list[Any]], Any]
) -> list[Any]:
    """What `decide` says of each member's group; members begin with their run."""
    groups: dict[Hashable, list[Any]] = {}
    for member in members:
        groups.setdefault(key(member[0]), []).append(member)
    decided = {name: decide(group) for name, group in groups.items()}
    return [decided[key(member[0])] for member in members]


def _configuration(run: Run) -> Hashable:
    """What all replications of a point have in common."""
    return run.index - run.replication


def _arrivals(run: Run) -> Hashable:
    """What decides which requests come and which of them are measured, all replications together."""
    config = run.config
    plain = config.model_dump(mode="json", include={"traffic", "trace", "seed", "replications", "window", "schedule"})
    return json.dumps([config.labels.get("case", ""), plain], sort_keys=True)


# ---- overload


def is_open(run: Run) -> bool:
    """Whether requests come whatever the server does, so that it may fall behind."""
    return run.config.traffic.kind in OPEN and run.config.schedule == "free"


def _overloaded(group: list[Pair]) -> bool:
    return is_open(group[0][0]) and overloaded([pressure_of(*pair) for pair in group])


def pressure_of(run: Run, result: RunResult) -> Pressure:
    """From the arrival of a third of the requests that the run was about, to that of the last of them."""
    requests, steps = result.requests, result.steps
    came = np.sort(requests["arrival_ns"])
    if run.config.window is not None:
        came = came[: run.config.window.awaited]
    if not len(came):
        return Pressure(0, 0, 0, 0.0)
    start, end = int(came[len(came) // 3]), int(came[-1])
    inside = (steps["end_ns"] > start) & (steps["start_ns"] <= end)
    most = int(steps["requests"][inside].max(initial=1))
    gap = result.counters.get("arrival_gap_ns", NONE)
    arrival, begun, gone = (requests[f"{name}_ns"] for name in ("arrival", "started", "finished"))
    return pressure((arrival, begun, gone), most, start, end, gap if gap > 0 else None)


# ---- the warm-up


def _judged(run: Run, result: RunResult) -> tuple[int, bool]:
    """Requests to leave out by MSER-5, of the time to the first token and of the normalized latency the larger; and
    whether the transient was seen to end. (NONE, False): cannot be said."""
    window = run.config.window
    if window is None or not result.windows or result.windows["cut_off"][-1]:
        return NONE, False
    order = np.argsort(result.requests["request"])[: window.awaited]
    arrival, first, finished, tokens = (
        np.asarray(result.requests[name])[order]
        for name in ("arrival_ns", "first_token_ns", "finished_ns", "output_tokens")
    )
    found = [mser(first - arrival), mser((finished - arrival) / tokens)]
    return max(needed for needed, _ in found), all(ended for _, ended in found)


def _warmup(group: list[tuple[Run, RunResult, tuple[int, bool], bool]]) -> int:
    """Which warm-up all of a group leave out: the largest that any needs. A run without a steady state has no say."""
    window = group[0][0].config.window
    if window is None:
        return NONE
    needed = [need for _, _, (need, _), over in group if need != NONE and not over]
    candidates = window.candidates
    enough = [place for place, requests in enumerate(candidates) if requests >= max(needed, default=candidates[-1])]
    return enough[0] if enough else len(candidates) - 1


def _settled(run: Run, result: RunResult, judged: tuple[int, bool], over: bool, place: int) -> RunResult:
    window, (needed, ended) = run.config.window, judged
    counters: dict[str, Any] = dict(result.counters)
    told: dict[str, Any] = {"cut_off": False, "unsettled": False}
    counters["arrivals_ended"] = False
    requests, steps = result.requests, result.steps
    if window is not None:
        counters |= {name: int(column[place]) for name, column in result.windows.items()}
        first, begin, end = (counters[f"window_{name}"] for name in ("first", "step", "end"))
        measured = Window(first, begin, end).measures(requests["request"], window.requests)
        requests = requests | {"measured": measured}
        steps = steps | {"measured": (steps["step"] >= begin) & (steps["step"] < end)}
        requests |= {"left_measured": left_within(requests["finished_ns"], steps)}
        cut_off = bool(result.windows["cut_off"][-1])
        counters["arrivals_ended"] = bool(counters.get("arrivals_ended")) and not over
        told = {"cut_off": cut_off, "unsettled": not (over or cut_off) and (not ended or needed > first)}
    told |= {"steps_ended": _steps_ended(run, result), "same_arrivals": _same_arrivals(run)}
    told |= {"warmup_needed": needed, "open_traffic": is_open(run), "overloaded": over}
    return replace(result, counters=counters | told, requests=requests, steps=steps)


def _same_arrivals(run: Run) -> bool:
    """Whether all replications have the arrivals of a file as they are: their spread says nothing of those."""
    arrivals = run.config.traffic.arrivals
    return arrivals is not None and arrivals.sample == 1 and run.config.replications > 1


def _steps_ended(run: Run, result: RunResult) -> bool:
    """Whether open traffic, which is asked for by the number of requests, met the end of `steps` first."""
    config, finished = run.config, result.requests["finished_ns"]
    if config.window is not None or not is_open(run):
        return False
    all_left = len(finished) >= config.traffic.requests and bool((finished >= 0).all())
    return result.counters["steps"] + config.warmup_steps >= config.steps and not all_left
