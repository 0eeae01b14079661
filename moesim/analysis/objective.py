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
    """
    if objective is None:
        return {}
    counted = counts(counters, requests)
    kept = int((keeps(requests, objective) & counted).sum())
    attainment = kept / int(counted.sum()) if counted.any() else math.nan
    span = counters["span_ns"]
    limits = {f"objective_{name}_s": getattr(objective, name) for name in LIMITS}
    return {
        "good_requests": kept,
        "attainment": attainment,
        "goodput_requests_per_s": kept * 10**9 / span if span > 0 else math.nan,
        "meets_objective": attainment >= objective.share,
        **{name: math.nan if limit is None else limit for name, limit in limits.items()},
        "objective_share": objective.share,
    }


def counts(counters: Mapping[str, int], requests: Mapping[str, Any] | pd.DataFrame) -> np.ndarray:
    """Which requests attainment is of: those measured, and those that still waited when the run ended; bool [requests].

    None where nothing was measured: then it ended within the warm-up. Where the measured requests are chosen by their
    numbers, those that wait are among them, or came too late to count.
    """
    measured = np.asarray(requests["measured"], dtype=bool)
    if counters.get("window_first", -1) >= 0 or not measured.any():
        return measured
    return measured | (np.asarray(requests["started_ns"]) < 0)


def keeps(requests: Mapping[str, Any] | pd.DataFrame, objective: Objective) -> np.ndarray:
    """Whether each request has finished within every limit, to the nanosecond; bool [requests].

    A request of one token has no time per token, and keeps any limit of it.
    """
    arrival, first, finished, tokens = (
        np.asarray(requests[name], dtype=np.int64)
        for name in ("arrival_ns", "first_token_ns", "finished_ns", "output_tokens")
    )
    kept = finished >= 0
    if objective.ttft is not None:
        kept &= first - arrival <= _ns(objective.ttft)
    if objective.tpot is not None:
        kept &= finished - first <= _ns(objective.tpot) * (tokens - 1)
    if objective.e2e is not None:
        kept &= finished - arrival <= _ns(objective.e2e)
    return kept


def _ns(seconds: float) -> int:
    return round(seconds * 10**9)
