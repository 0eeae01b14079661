"""Writing routing traces: at once, or part by part where a trace is larger than memory should hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.errors import InputError
from moesim.files import write_aside
from moesim.trace.check import trace_problems

if TYPE_CHECKING:
    import pyarrow as pa

    from moesim.trace.meta import RoutingMeta
    from moesim.trace.routing import RoutingTrace

KEY = b"moesim"
PHASES = ("prompt", "output")
LEVEL = 12
DISTINCT = 128


def write_routing(path: Path | str, trace: RoutingTrace) -> None:
    """Write `trace` as Parquet (zstd). Raises InputError with every inconsistency; nothing is written then."""
    with routing_writer(path, trace.meta, set(trace.domains)) as writer:
        writer.add(trace)


@contextmanager
def routing_writer(path: Path | str, meta: RoutingMeta, domains: Iterable[str]) -> Iterator[RoutingWriter]:
    """Give a writer of the file's parts, one after the other; the file is there when the block ends without an error.

    `domains` are all that any part may name.
    """
    with write_aside(path) as aside:
        writer = RoutingWriter(str(path), aside, meta, tuple(sorted(domains)))
        try:
            yield writer
        finally:
            writer.close()


@dataclass(slots=True)
class RoutingWriter:
    """Writes sequences as row groups of one file; memory holds one part."""

    place: str
    aside: Path
    meta: RoutingMeta
    domains: tuple[str, ...]
    sequences: int = 0
    tokens: int = 0
    _file: Any = None

    def add(self, part: RoutingTrace) -> None:
        """The next sequences. Raises InputError with every inconsistency of the part."""
        import pyarrow.parquet as pq

        problems = trace_problems(part, self.place)
        if problems:
            raise InputError(problems)
        table = self._table(part)
        if self._file is None:
            # With checksums a flipped bit is noticed where it changes a route.
            options = {"compression": "zstd", "compression_level": LEVEL, "write_page_checksum": True}
            self._file = pq.ParquetWriter(self.aside, table.schema, use_dictionary=_few(table), **options)
        self._file.write_table(table)
        self.sequences += part.sequences
        self.tokens += part.tokens

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _table(self, trace: RoutingTrace) -> pa.Table:
        import pyarrow as pa

        lengths = trace.lengths
        sequence = np.repeat(np.arange(trace.sequences, dtype=np.int32) + self.sequences, lengths).astype(np.int32)
        position = (np.arange(trace.tokens) - np.repeat(trace.offsets[:-1], lengths)).astype(np.int32)
        output = (position >= np.repeat(trace.prompt_tokens, lengths)).astype(np.int8)
        places = np.array([self.domains.index(name) for name in trace.domains], dtype=np.int32)
        columns: dict[str, Any] = {
            "sequence": sequence,
            "position": position,
            "phase": pa.DictionaryArray.from_arrays(output, list(PHASES)),
            "domain": pa.DictionaryArray.from_arrays(np.repeat(places, lengths), list(self.domains)),
            "experts": _lists(trace.experts, np.int16),
            "weights": _lists(trace.weights, np.float16),
        }
        if trace.top_experts is not None and trace.top_weights is not None:
            columns |= {
                "top_experts": _lists(trace.top_experts, np.int16),
                "top_weights": _lists(trace.top_weights, np.float16),
            }
        for distance, chosen in sorted(trace.predicted.items()):
            columns[f"predicted_{distance}"] = _lists(chosen, np.int16)
            if distance in trace.predicted_weights:
                columns[f"predicted_{distance}_weights"] = _lists(trace.predicted_weights[distance], np.float16)
        document = json.dumps(self.meta.model_dump(mode="json"), ensure_ascii=False)
        return pa.table(columns).replace_schema_metadata({KEY: document.encode()})


def _few(table: pa.Table) -> list[str]:
    """Columns with few values: a dictionary suits them, and lets others (unrounded weights) grow by a quarter."""
    found = []
    for field in table.schema:
        column = table[field.name].combine_chunks()
        if field.name.endswith("weights"):
            flat = column.flatten().to_numpy(zero_copy_only=False)
            if len(np.unique(flat.view(np.uint16))) > DISTINCT:
                continue
            found.append(f"{field.name}.list.element")
        else:
            found.append(field.name if not hasattr(field.type, "list_size") else f"{field.name}.list.element")
    return found


def _lists(values: np.ndarray, dtype: type) -> pa.Array:
    import pyarrow as pa

    flat: np.ndarray = np.ascontiguousarray(values, dtype=dtype).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat), int(np.prod(values.shape[1:])))
