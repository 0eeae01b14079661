"""A row per step, and the counters over the measured window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.sim import kv
from moesim.sim.engine import CLASSES, PARTS
from moesim.sim.misses import COUNTS
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
    *COUNTS,
)
"""counters that only grow; a step's share is the difference"""


GIVEN = ("step", "start_ns", "end_ns", "prefill_tokens", "decode_tokens", "requests")
WIDTH = len(GIVEN) + len(PARTS) + len(COUNTED)
CHUNK = 1024
LINK_BUSY = len(GIVEN) + len(PARTS) + COUNTED.index("link_busy_ns")


class StepLog:
    """A row per step: GIVEN, PARTS, and COUNTED up to its end; differences of those give any window."""

    def __init__(self) -> None:
        self._chunks: list[np.ndarray] = []
        self._length = 0
        self.kv: list[tuple[int, ...]] = []
        """`kv.COUNTED` of each step, where KV memory has an end"""

    def add(self, row: Sequence[int] | np.ndarray) -> None:
        """A step is over."""
        at = self._length % CHUNK
        if not at:
            self._chunks.append(np.empty((CHUNK, WIDTH), dtype=np.int64))
        self._chunks[-1][at - CHUNK] = row
        self._length += 1

    def add_link_busy(self, ns: int) -> None:
        """The link was busy for `ns` up to now with what the last row does not know of."""
        self._chunks[-1][(self._length - 1) % CHUNK - CHUNK, LINK_BUSY] += ns

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> np.ndarray:
        """GIVEN of each step, int64 [steps, 6]."""
        return self._table()[:, : len(GIVEN)]

    @property
    def parts(self) -> np.ndarray:
        """PARTS of each step, int64 [steps, 9]."""
        return self._table()[:, len(GIVEN) : len(GIVEN) + len(PARTS)]

    @property
    def counts(self) -> np.ndarray:
        """COUNTED up to the end of each step, int64 [steps, 41]."""
        return self._table()[:, len(GIVEN) + len(PARTS) :]

    def _table(self) -> np.ndarray:
        if len(self._chunks) != 1:
            self._chunks = [np.concatenate([*self._chunks, np.empty((0, WIDTH), dtype=np.int64)])]
        return self._chunks[0][: self._length]

    def steps(self, warmup: int, until: int | None = None) -> dict[str, np.ndarray]:
        """Columns of the table of steps; those from `warmup` to `until` (not included) are measured."""
        count = dict(zip(COUNTED, np.diff(self.counts.T, axis=1, prepend=0), strict=True))
        table = dict(zip(GIVEN, self.rows.T, strict=True))
        table["unique_keys"] = count["unique_keys"]
        table |= {f"{name}_ns": column for name, column in zip(PARTS, self.parts.T, strict=True)}
        table |= {f"{c}_keys": count[f"{c}_keys_prefill"] + count[f"{c}_keys_decode"] for c in CLASSES}
        table |= {
            name: count[name] for name in ("demand_bytes", "prefetch_bytes", "wasted_bytes", "evictions", "waves")
        }
        if self.kv:
            table |= dict(zip(kv.COUNTED, np.array(self.kv, dtype=np.int64).T, strict=True))
        table["measured"] = (table["step"] >= warmup) & (table["step"] < (len(self) if until is None else until))
        return table

    def counters(self, warmup: int, layers: int, until: int | None = None) -> dict[str, int]:
        """Sums over the measured steps. The nine parts, `kv_stall_ns` and `idle_ns` add up to `span_ns` exactly."""
        rows, parts, counts = self.rows[warmup:until], self.parts[warmup:until].sum(axis=0), self.counts[:until]
        _, start, end, prefill, decode, _ = rows.T
        measured = len(rows) > 0
        span = int(end[-1] - start[0]) if measured else 0
        busy = int((end - start).sum())
        of_kv = self._of_kv(warmup, until)
        found = {"steps": len(rows), "layer_events": len(rows) * layers, "span_ns": span}
        found["idle_ns"] = span - busy - of_kv["kv_stall_ns"]
        found |= {"prefill_tokens": int(prefill.sum()), "decode_tokens": int(decode.sum())}
        found |= {f"{name}_ns": int(ns) for name, ns in zip(PARTS, parts, strict=True)}
        total = counts[-1] - (counts[warmup - 1] if warmup else 0) if measured else np.zeros(len(COUNTED), np.int64)
        return found | dict(zip(COUNTED, map(int, total), strict=True)) | of_kv

    def _of_kv(self, warmup: int, until: int | None) -> dict[str, int]:
        """What KV memory did in the measured steps; what the first of them waited for lies before the span."""
        rows = np.array(self.kv[warmup:until], dtype=np.int64).reshape(-1, len(kv.COUNTED))
        if not len(rows):
            return {"kv_stall_ns": 0}
        found = dict(zip(kv.COUNTED, map(int, rows.sum(axis=0)), strict=True))
        found["kv_stall_ns"] -= int(rows[0, 1])
        return {"kv_blocks_peak": int(rows[:, 0].max()), **found}


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
        "preemptions": ints("preemptions"),
        "recycled": np.array([r.recycled for r in came], dtype=bool),
        "stitched_tokens": ints("stitched_tokens"),
        "recycled_tokens": ints("recycled_tokens"),
        "borrowed_tokens": ints("borrowed_tokens"),
        "measured": ints("started_step") >= warmup,
    }
