"""A summary as `moesim run` writes it, from plain numbers: made up, but of the shape of a real one."""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd

from moesim.analysis import gap, metrics

LABELS = {
    "label_costs": "ESTIMATED: roofline of an H100 PCIe5",
    "label_link": "ESTIMATED: PCIe 5.0 x16, 55 GB/s",
    "label_routing": "routing: SmolLM2-135M, shape: Llama-2-7B",
    "label_kv": "KV memory: no limit",
}
KEY_BYTES = 135_266_304
LAYERS, EXPERTS = 32, 7
HISTORY = {"random": 1.5, "fifo": 1.25, "lru": 1.0, "lfu": 1.1}
HORIZONS = (0.0, 8.0, 16.0, 32.0, 64.0, math.inf)


def policies() -> list[dict[str, object]]:
    """Every policy, with `part`: the misses that it leaves, LRU's being 1 and the oracle's 0.6."""
    found: list[dict[str, object]] = [
        {"cache": name, "level": "history", "horizon": math.nan, "unknown": "", "part": part}
        for name, part in HISTORY.items()
    ]
    for level, gain in (("step", 0.15), ("queue", 0.3), ("oracle", 0.4)):
        for unknown in ("farthest", "persist") if level == "queue" else ("farthest",):
            for horizon in HORIZONS:
                seen = 1 - math.exp(-horizon / 24)
                penalty = 0.1 if unknown == "farthest" and level == "queue" else 0.0
                part = 1 - (gain - penalty) * seen
                found.append(
                    {"cache": "lookahead", "level": level, "horizon": horizon, "unknown": unknown, "part": part}
                )
    return found


def run(case: str, slots: int, scope: str, policy: dict[str, object], replication: int) -> dict[str, object]:
    """One row: identity, counters, derived columns and labels."""
    draw = np.random.default_rng([replication, slots, len(case)]).normal(1, 0.05)
    own = np.random.default_rng([replication, slots, len(str(policy))]).normal(1, 0.01)
    base = {3: 8.0, 4: 4.0, 5: 1.8, 6: 0.6}[slots] * (1.0 if case == "waiting" else 0.7) * draw
    misses = round(1000 * base * float(policy["part"]) * (1.6 if scope == "global" else 1.0) * own)
    steps, tokens = 125, 1000
    uses = steps * LAYERS * 4
    parts = dict(zip(metrics.PARTS, (60, 40, 0, 2, 200, 30), strict=False))
    counters: dict[str, object] = {
        "steps": steps, "layer_events": steps * LAYERS, "prefill_tokens": 4000, "decode_tokens": 900,
        "output_tokens": tokens, "requests_finished": 9,
    }  # fmt: skip
    times = {f"{name}_ns": value * 10**6 * 10 for name, value in parts.items()}
    times |= {"miss_stall_ns": misses * 2_100_000, "late_stall_ns": 0, "cpu_stall_ns": 0, "idle_ns": 0}
    counters |= {"span_ns": sum(times.values())} | times
    keys = {"reuse": uses - misses, "prefetch": 0, "late": 0, "miss": misses}
    for kind, count in keys.items():
        for unit, size in (("keys", 1), ("tokens", 2), ("bytes", KEY_BYTES)):
            counters |= {
                f"{kind}_{unit}_prefill": count // 4 * size,
                f"{kind}_{unit}_decode": (count - count // 4) * size,
            }
    least = round(1000 * base * 0.6)
    counters |= {
        "demand_bytes": misses * KEY_BYTES, "prefetch_bytes": 0, "wasted_bytes": 0, "link_busy_ns": misses * 2_450_000,
        "evictions": misses, "waves": 0, "prefetch_dropped": 0, "unique_keys": uses,
        "longest_pass_over": 3, "pass_over_bound": 71,
        "degraded_tokens": 0, "degraded_weight": 0,
        "bound_resident_ns": sum(parts.values()) * 10**7, "min_miss_keys": least, "min_bytes": least * KEY_BYTES,
        "bound_transfer_ns": least * 2_450_000,
    }  # fmt: skip
    arrival = np.arange(9) * 10**8
    requests = {
        "arrival_ns": arrival, "visible_ns": arrival, "started_ns": arrival + 10**7,
        "first_token_ns": arrival + 2 * 10**8 + misses * 10**4,
        "finished_ns": arrival + misses * 10**6 + 10**9, "output_tokens": np.full(9, 100), "measured": np.full(9, True),
        "left_measured": np.full(9, True),
    }  # fmt: skip
    unlimited = policy["level"] == "oracle" and policy["horizon"] == math.inf
    identity = {
        "case": case, "replication": replication, "cache": policy["cache"], "level": policy["level"],
        "horizon": "unlimited" if policy["horizon"] == math.inf else policy["horizon"],
        "unknown": policy["unknown"], "prefetch": "none", "batch": "decode-first", "scope": scope, "slots": slots,
        "bytes": slots * LAYERS * KEY_BYTES,
        "schedule": "frozen", "oracle": "oracle" if policy["level"] == "oracle" and unlimited else "",
    }  # fmt: skip
    return identity | counters | metrics.summarize(counters, requests) | LABELS  # type: ignore[arg-type]


def summary(
    replications: int = 4, cases: tuple[str, ...] = ("waiting", "fresh"), slots: tuple[int, ...] = (3, 4, 5, 6)
) -> pd.DataFrame:
    rows = [
        run(case, size, scope, policy, replication)
        for case in cases
        for size in slots
        for scope in ("layer", "global")
        for policy in policies()
        for replication in range(replications)
    ]
    frame = pd.DataFrame(rows)
    frame.insert(0, "run", range(len(frame)))
    return gap.add_gaps(frame)


def read_back(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as it comes out of a CSV file."""
    return pd.read_csv(io.StringIO(frame.to_csv(index=False)))


def plain(rows: list[tuple[str, str, object, str, list[float], list[float]]], **columns: object) -> pd.DataFrame:
    """A group from (cache, level, horizon, scope, misses per replication, ns per replication)."""
    cells = [
        {"case": "a", "replication": replication, "cache": cache, "level": level, "horizon": horizon, "unknown": "",
         "scope": scope, "slots": 4, "bytes": 400, "schedule": "frozen", "oracle": ""}
        | columns
        | {"steps": 10, "misses_per_output_token": misses[replication], "ns_per_output_token": times[replication]}
        for cache, level, horizon, scope, misses, times in rows
        for replication in range(len(misses))
    ]  # fmt: skip
    frame = pd.DataFrame(cells)
    frame.insert(0, "run", range(len(frame)))
    return frame
