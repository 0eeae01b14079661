"""The numbers of a run: latencies of its requests, and rates from its counters. docs/metrics.md defines each of them.

A percentile is the nearest rank: the smallest observed value that at least p % of the values do not exceed. It is
always a time that some request had, an exact integer where the times are. A quotient without a denominator is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis.objective import service

if TYPE_CHECKING:
    import pandas as pd

    from moesim.experiment import Objective

ACCESS = ("reuse", "prefetch", "late", "miss")
PARTS = ("attention", "rest", "gate", "router", "experts", "host", "miss_stall", "late_stall", "cpu_stall")
PERCENTILES = (50, 95, 99)


def request_metrics(requests: pd.DataFrame) -> pd.DataFrame:
    """The requests with `ttft_ns`, `e2e_ns`, `queueing_ns` (Int64) and `tpot_ns`, `normalized_ns` (float64) added.

    What has not happened in the run (a time of -1) leaves its metrics missing. Rows and other columns stay as they are.
    """
    names = ("arrival_ns", "visible_ns", "started_ns", "first_token_ns", "finished_ns")
    times = (requests[name].astype("Int64") for name in names)
    arrival, visible, started, first, finished = (time.mask(time < 0) for time in times)
    tokens = requests["output_tokens"]
    return requests.assign(
        ttft_ns=first - arrival,
        tpot_ns=_quotient(finished - first, tokens - 1),
        e2e_ns=finished - arrival,
        normalized_ns=_quotient(finished - arrival, tokens),
        queueing_ns=started - visible,
    )


def _quotient(amount: pd.Series, count: pd.Series) -> np.ndarray:
    divisor = count.to_numpy("float64")
    return amount.to_numpy("float64", na_value=np.nan) / np.where(divisor > 0, divisor, np.nan)


def summarize(
    counters: Mapping[str, int],
    requests: Mapping[str, Any] | pd.DataFrame,
    tokens: Mapping[str, Any] | pd.DataFrame | None = None,
    objective: Objective | None = None,
) -> dict[str, Any]:
    """Derived columns of one run's row in `summary.csv`, from its counters and its tables (columns or frames).

    `tokens` has a row per output token; without it there is no inter-token latency.
    """
    rates = per_token(counters) | shares(counters) | degraded(counters) | bounds(counters)
    times = latencies(requests) | inter_token(requests, tokens)
    return rates | times | throughput(counters, requests) | service(counters, requests, objective) | borrowed(requests)


def per_token(counters: Mapping[str, int]) -> dict[str, float]:
    """What an output token, a step and a layer event cost.

    `misses_per_output_token` counts the keys that were not there in time, misses and late hits;
    `full_misses_per_output_token` only those of which nothing had been submitted. `moved_bytes_per_output_token` is
    all that crossed the link, wasted prefetches included: fetching everything must not look good.
    """
    c, tokens = counters, counters["output_tokens"]
    absent_keys = _access(c, "miss", "keys") + _access(c, "late", "keys")
    absent_bytes = _access(c, "miss", "bytes") + _access(c, "late", "bytes")
    return {
        "misses_per_output_token": ratio(absent_keys, tokens),
        "full_misses_per_output_token": ratio(_access(c, "miss", "keys"), tokens),
        "miss_bytes_per_output_token": ratio(absent_bytes, tokens),
        "moved_bytes_per_output_token": ratio(c["demand_bytes"] + c["prefetch_bytes"], tokens),
        "ns_per_output_token": ratio(c["span_ns"], tokens),
        "ns_per_step": ratio(c["span_ns"], c["steps"]),
        "unique_experts_per_event": ratio(c["unique_keys"], c["layer_events"]),
        "unique_experts_per_step": ratio(c["unique_keys"], c["steps"]),
    }


def shares(counters: Mapping[str, int]) -> dict[str, float]:
    """Shares of the access classes, by keys and by tokens, and of the span's parts. Each group adds up to one."""
    result: dict[str, float] = {}
    for unit, suffix in (("keys", "rate"), ("tokens", "token_rate")):
        total = sum(_access(counters, kind, unit) for kind in ACCESS)
        result |= {f"{kind}_{suffix}": ratio(_access(counters, kind, unit), total) for kind in ACCESS}
    span = counters["span_ns"]
    compute = sum(counters[f"{part}_ns"] for part in ("attention", "rest", "gate", "router", "experts"))
    result["compute_share"] = ratio(compute, span)
    result["link_share"] = ratio(counters["link_busy_ns"], span)
    waits = ("host", "miss_stall", "late_stall", "cpu_stall", "kv_stall", "idle")
    return result | {f"{part}_share": ratio(counters.get(f"{part}_ns", 0), span) for part in waits}


def throughput(counters: Mapping[str, int], requests: Mapping[str, Any] | pd.DataFrame) -> dict[str, float]:
    """Output tokens, and requests that left, per second of the measured steps: whoever they are of."""
    span, left = counters["span_ns"], int(np.asarray(requests["left_measured"], dtype=bool).sum())
    return {
        "throughput_tokens_per_s": ratio(counters["output_tokens"] * 10**9, span),
        "throughput_requests_per_s": ratio(left * 10**9, span),
    }


def kv_used(counters: Mapping[str, int], blocks: int) -> dict[str, float]:
    """Mean share of the `blocks` of KV memory that are held when a step starts."""
    return {"kv_share_used": ratio(counters.get("kv_blocks_used", 0), blocks * counters["steps"])}


def degraded(counters: Mapping[str, int]) -> dict[str, float]:
    """Shares of tokens (by key) and of gate weight that got less than their expert in full: smaller copies, skips."""
    layers = ratio(counters["layer_events"], counters["steps"])
    weight = (counters["prefill_tokens"] + counters["decode_tokens"]) * layers * 10**6
    tokens = sum(_access(counters, kind, "tokens") for kind in ACCESS)
    return {
        "degraded_token_share": ratio(counters["degraded_tokens"], tokens),
        "degraded_weight_share": counters["degraded_weight"] / weight if weight > 0 else math.nan,
    }


def bounds(counters: Mapping[str, int]) -> dict[str, float]:
    """The bounds per output token; NaN where the run has none (a counter of -1, or none at all)."""
    tokens = counters["output_tokens"]
    names = {
        "bound_resident_ns": "bound_resident_ns_per_output_token",
        "bound_transfer_ns": "bound_transfer_ns_per_output_token",
        "min_miss_keys": "min_misses_per_output_token",
        "min_bytes": "min_bytes_per_output_token",
    }
    values = {column: counters.get(name, -1) for name, column in names.items()}
    return {column: ratio(value, tokens) if value >= 0 else math.nan for column, value in values.items()}


def latencies(requests: Mapping[str, Any] | pd.DataFrame) -> dict[str, float | int]:
    """Mean and percentiles in ns of each latency over the requests that are measured and have finished.

    `measured_requests` says how many were to be measured, and `finished_requests` how many of them the figures are of.
    """
    measured = np.asarray(requests["measured"], dtype=bool)
    times = ("finished_ns", "arrival_ns", "visible_ns", "started_ns", "first_token_ns", "output_tokens")
    columns = [np.asarray(requests[name], dtype=np.int64)[measured] for name in times]
    done = columns[0] >= 0
    finished, arrival, visible, started, first, tokens = (column[done] for column in columns)
    many = tokens > 1
    values = {
        "ttft": first - arrival,
        "tpot": (finished - first)[many] / (tokens[many] - 1),
        "e2e": finished - arrival,
        "normalized": (finished - arrival) / tokens,
        "queueing": started - visible,
    }
    result: dict[str, float | int] = {"measured_requests": int(measured.sum()), "finished_requests": int(done.sum())}
    for name, found in values.items():
        result |= {f"{name}_{statistic}_ns": value for statistic, value in _statistics(found.tolist()).items()}
    return result


def inter_token(
    requests: Mapping[str, Any] | pd.DataFrame, tokens: Mapping[str, Any] | pd.DataFrame | None
) -> dict[str, float | int]:
    """Mean and percentiles in ns of the times between successive tokens of measured requests that have finished."""
    ranked = np.sort(gaps(requests, tokens)) if tokens is not None else np.empty(0, np.int64)
    result: dict[str, float | int] = {"itl_mean_ns": ratio(int(ranked.sum()), len(ranked))}
    return result | {f"itl_p{p}_ns": int(percentile(ranked, p)) if len(ranked) else math.nan for p in PERCENTILES}


def gaps(requests: Mapping[str, Any] | pd.DataFrame, tokens: Mapping[str, Any] | pd.DataFrame) -> np.ndarray:
    """The times between successive tokens of each measured request that has finished, in ns; by request, then time."""
    numbers = np.asarray(requests["request"], dtype=np.int64)
    counted = np.asarray(requests["measured"], dtype=bool) & (np.asarray(requests["finished_ns"]) >= 0)
    who, at = np.asarray(tokens["request"]), np.asarray(tokens["at_ns"])
    kept = np.isin(who, numbers[counted])
    who, at = who[kept], at[kept]
    order = np.argsort(who, kind="stable")  # the tokens of a request beside each other, in their order
    who, at = who[order], at[order]
    return np.diff(at)[who[1:] == who[:-1]]


def borrowed(requests: Mapping[str, Any] | pd.DataFrame) -> dict[str, float]:
    """Shares of the measured requests' tokens whose routing is stitched, recycled, either (docs/traffic.md)."""
    if "borrowed_tokens" not in requests:
        return {}
    measured = np.asarray(requests["measured"], dtype=bool)

    def tokens(name: str) -> int:
        return int(np.asarray(requests[name], dtype=np.int64)[measured].sum())

    total = tokens("prompt_tokens") + tokens("output_tokens")
    return {f"{what}_share": ratio(tokens(f"{what}_tokens"), total) for what in ("stitched", "recycled", "borrowed")}


def _statistics(values: list[float] | list[int]) -> dict[str, float | int]:
    ranked = sorted(values)
    mean = math.fsum(ranked) / len(ranked) if ranked else math.nan
    return {"mean": mean} | {f"p{p}": percentile(ranked, p) for p in PERCENTILES}


def percentile(ranked: Sequence[float] | Sequence[int] | np.ndarray, p: int) -> float | int:
    """The nearest-rank percentile of sorted values: the value at rank ceil(p n / 100), NaN when there is none."""
    return ranked[max(-(-p * len(ranked) // 100), 1) - 1] if len(ranked) else math.nan


def ratio(amount: int, count: int) -> float:
    """amount / count, NaN where there is nothing to divide by."""
    return amount / count if count else math.nan


def _access(counters: Mapping[str, int], kind: str, unit: str) -> int:
    return counters[f"{kind}_{unit}_prefill"] + counters[f"{kind}_{unit}_decode"]
