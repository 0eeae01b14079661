"""A row per step, and the counters over the measured window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.sim.engine import CLASSES, PARTS
from moesim.sim.setup import Setup
from moesim.sim.work import Work
from moesim.sim.workload import Request

PHASES = ("prefill", "decode")
COUNTED = (
    *(f"{c}_{unit}_{phase}" for c in CLASSES for unit in ("keys", "tokens", "bytes") for phase in PHASES),
    "demand_bytes",
    "prefetch_bytes",
    "wasted_bytes",
    "link_busy_ns",
    "evictions",
    "waves",
    "prefetch_dropped",
    "prefetch_cancelled",
    "bypasses",
    "unique_keys",
)
"""counters that only grow; a step's share is the difference"""


class StepLog:
    """Cumulative counters after each step; differences give any window."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.rows: list[list[int]] = []
        self.parts: list[list[int]] = []
        self.counts: list[list[int]] = []

    def add(self, step: int, start: int, end: int, work: Work) -> None:
        """Step `step` is over."""
        self.rows.append([step, start, end, work.prefill_tokens, work.decode_tokens, len(work.parts)])
        self.parts.append(self.setup.engine.parts)
        self.counts.append(self._count())

    def _count(self) -> list[int]:
        engine, cache, link = self.setup.engine, self.setup.cache.count, self.setup.link
        found = list(engine.counts)
        found += [cache.demand_bytes, cache.prefetch_bytes, cache.wasted_bytes, link.busy_ns, cache.evictions]
        return [*found, engine.waves, link.dropped, link.cancelled, cache.bypasses, engine.unique_keys]

    def steps(self, warmup: int) -> dict[str, np.ndarray]:
        """Columns of the table of steps."""
        rows, parts = _columns(self.rows, 6), _columns(self.parts, len(PARTS))
        counts = np.diff(_columns(self.counts, len(COUNTED)), axis=1, prepend=0)
        count = dict(zip(COUNTED, counts, strict=True))
        names = ("step", "start_ns", "end_ns", "prefill_tokens", "decode_tokens", "requests")
        table = dict(zip(names, rows, strict=True))
        table["unique_keys"] = count["unique_keys"]
        table |= {f"{name}_ns": column for name, column in zip(PARTS, parts, strict=True)}
        table |= {f"{c}_keys": count[f"{c}_keys_prefill"] + count[f"{c}_keys_decode"] for c in CLASSES}
        table |= {
            name: count[name] for name in ("demand_bytes", "prefetch_bytes", "wasted_bytes", "evictions", "waves")
        }
        table["measured"] = table["step"] >= warmup
        return table

    def counters(self, warmup: int, layers: int) -> dict[str, int]:
        """Sums over the measured steps. The eight parts and `idle_ns` add up to `span_ns` exactly."""
        if len(self.rows) <= warmup:
            return (
                dict.fromkeys(("steps", "layer_events", "span_ns", "idle_ns", *COUNTED), 0)
                | {f"{part}_ns": 0 for part in PARTS}
                | {"prefill_tokens": 0, "decode_tokens": 0}
            )
        rows, parts = self.rows[warmup:], self.parts[warmup:]
        before = self.counts[warmup - 1] if warmup else [0] * len(COUNTED)
        busy = sum(end - start for _, start, end, *_ in rows)
        span = rows[-1][2] - rows[0][1]
        found = {"steps": len(rows), "layer_events": len(rows) * layers, "span_ns": span, "idle_ns": span - busy}
        found |= {"prefill_tokens": sum(r[3] for r in rows), "decode_tokens": sum(r[4] for r in rows)}
        found |= {f"{name}_ns": sum(p[i] for p in parts) for i, name in enumerate(PARTS)}
        return found | {n: a - b for n, a, b in zip(COUNTED, self.counts[-1], before, strict=True)}


def _columns(rows: Sequence[Sequence[int]], width: int) -> np.ndarray:
    return np.array(rows, dtype=np.int64).reshape(-1, width).T


def requests_table(requests: Sequence[Request], warmup: int) -> dict[str, np.ndarray]:
    """Columns of the table of requests that arrived; times are -1 where the run ended before."""
    came = [r for r in requests if r.visible >= 0]

    def ints(name: str) -> np.ndarray:
        return np.array([getattr(r, name) for r in came], dtype=np.int64)

    return {
        "request": ints("number"),
        "sequence": ints("captured"),
        "domain": np.array([r.domain for r in came], dtype=object),
        "arrival_ns": ints("arrival"),
        "visible_ns": ints("visible"),
        "started_ns": ints("started"),
        "first_token_ns": ints("first_token"),
        "finished_ns": ints("finished"),
        "prompt_tokens": ints("prompt"),
        "output_tokens": ints("output"),
        "recycled": np.array([r.recycled for r in came], dtype=bool),
        "stitched_tokens": ints("stitched_tokens"),
        "recycled_tokens": ints("recycled_tokens"),
        "borrowed_tokens": ints("borrowed_tokens"),
        "measured": ints("started_step") >= warmup,
    }
