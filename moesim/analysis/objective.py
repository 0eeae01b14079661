"""Which requests kept what users were promised: attainment and goodput (docs/metrics.md)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from moesim.experiment import Objective

LIMITS = ("ttft", "tpot", "e2e")


def service(
    counters: Mapping[str, int], requests: Mapping[str, Any] | pd.DataFrame, objective: Objective | None
) -> dict[str, Any]:
    """What a run gave of what was promised, and the promise itself; nothing without an objective.

    `requests` are columns or a frame. A request that counts and has not finished kept nothing.
    Goodput is of those that left during the measured steps, which need not be those that count.
    """
    if objective is None:
        return {}
    counted = counts(counters, requests)
    each = keeps(requests, objective)
    kept = np.logical_and.reduce([*each.values()])
    good, count, span = int((kept & counted).sum()), int(counted.sum()), counters["span_ns"]
    left = int((kept & np.asarray(requests["left_measured"], dtype=bool)).sum())
    attainment = _share(good, count)
    found = {
        "good_requests": good,
        "attainment": attainment,
        **{f"attainment_{name}": math.nan for name in LIMITS},
        **{f"attainment_{name}": _share(int((within & counted).sum()), count) for name, within in each.items()},
        "goodput_requests_per_s": left * 10**9 / span if span > 0 else math.nan,
        "meets_objective": attainment >= objective.share,
    }
    limits = {f"objective_{name}_s": getattr(objective, name) for name in LIMITS}
    limits = {name: math.nan if limit is None else limit for name, limit in limits.items()}
    return found | limits | {"objective_share": objective.share}


def _share(part: int, count: int) -> float:
    return part / count if count else math.nan


def counts(counters: Mapping[str, int], requests: Mapping[str, Any] | pd.DataFrame) -> np.ndarray:
    """Which requests attainment is of: those measured, and those that still waited when the run ended; bool [requests].

    None where nothing was measured: then it ended within the warm-up. Where the measured requests are chosen by their
    numbers, those that wait are among them, or came too late to count.
    """
    measured = np.asarray(requests["measured"], dtype=bool)
    if counters.get("window_first", -1) >= 0 or not measured.any():
        return measured
    return measured | (np.asarray(requests["started_ns"]) < 0)


def keeps(requests: Mapping[str, Any] | pd.DataFrame, objective: Objective) -> dict[str, np.ndarray]:
    """Whether each request has finished within each limit that is set, to the nanosecond; bool [requests] each.

    A request of one token has no time per token, and keeps any limit of it.
    """
    arrival, first, finished, tokens = (
        np.asarray(requests[name], dtype=np.int64)
        for name in ("arrival_ns", "first_token_ns", "finished_ns", "output_tokens")
    )
    took = {"ttft": (first - arrival, 1), "tpot": (finished - first, tokens - 1), "e2e": (finished - arrival, 1)}
    return {
        name: (finished >= 0) & (time <= round(limit * 10**9) * times)
        for name, (time, times) in took.items()
        if (limit := getattr(objective, name)) is not None
    }
