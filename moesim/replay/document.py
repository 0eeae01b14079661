"""A replay as plain values: what `--json` prints, and what tables and figures are made from."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from moesim.replay.capacity import sizes_known
from moesim.replay.grid import Row, Settings
from moesim.replay.stream import output_rows
from moesim.trace.routing import RoutingTrace

DERIVED = ("decode_hit_pct", "prompt_hit_pct", "misses_per_token", "bytes_per_token")


def document(name: str, trace: RoutingTrace, settings: Settings, rows: Sequence[Row]) -> dict[str, Any]:
    """The trace, how it was replayed, and a dictionary per row; None where a value does not exist."""
    meta = trace.meta
    sizes = meta.key_sizes
    keys, cycle = token_cycle(trace)
    return {
        "trace": name,
        "digest": trace.digest,
        "model": meta.model,
        "label": meta.label,
        "router": meta.router,
        "layers": meta.layers,
        "experts": meta.experts,
        "k": meta.k,
        "keys": meta.keys,
        "key_bytes_known": sizes_known(meta),
        "equal_sizes": bool((sizes == sizes[0]).all()),
        "all_bytes": int(sizes.sum()),
        "cycle": {"keys": keys, "bytes": cycle},
        "order": settings.order,
        "start": settings.start,
        "between": settings.between,
        "rank": settings.rank,
        "seed": settings.seed,
        "bypass": settings.bypass,
        "sequences": trace.sequences if settings.sequences is None else min(settings.sequences, trace.sequences),
        "decode_tokens": rows[0].decode_tokens if rows else 0,
        "rows": [row_document(row) for row in rows],
    }


def token_cycle(trace: RoutingTrace) -> tuple[float, int]:
    """Keys, and bytes, that an output token uses on average (a prompt token where there are no outputs)."""
    meta, output = trace.meta, output_rows(trace)
    experts = trace.experts[output] if output.any() else trace.experts
    keys = np.where(experts >= 0, meta.key_table[np.arange(meta.layers)[:, None], experts], -1)
    used = keys[keys >= 0]
    return len(used) / len(experts), round(int(meta.key_sizes[used].sum()) / len(experts))


def row_document(row: Row) -> dict[str, Any]:
    """A row and what follows from it."""
    values = {name: getattr(row, name) for name in (*Row.__dataclass_fields__, *DERIVED)}
    return {name: None if value != value else value for name, value in values.items()}


def table_csv(documents: Sequence[dict[str, Any]]) -> str:
    """The rows of all traces as CSV, the trace's name first."""
    text = io.StringIO()
    names = ["trace", *(documents[0]["rows"][0] if documents else ())]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for found in documents:
        writer.writerows({"trace": found["trace"], **row} for row in found["rows"])
    return text.getvalue()
