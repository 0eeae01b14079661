"""Routing traces: which experts each token of each sequence chose, as Parquet with one row per token.

Columns: sequence, position, phase (prompt, output), domain, experts [R*k], weights [R*k], and where the router can say
more top_experts [R*m], top_weights [R*m] and predicted_1..3 [R*p] with their weights. -1 is "no expert". The metadata
(`RoutingMeta`) is one JSON document under the schema-metadata key `moesim`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from moesim.errors import InputError, Problem
from moesim.trace.check import column_problems, trace_problems
from moesim.trace.meta import FORMAT, VERSION, PromptSource, RoutingMeta
from moesim.trace.writing import KEY, write_routing

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

__all__ = ["PromptSource", "RoutingMeta", "RoutingTrace", "read_routing", "write_routing"]

DISTANCES = (1, 2, 3)
EXPECTED = "expected a moesim routing trace: Parquet with the metadata key 'moesim'"


@dataclass(frozen=True, slots=True)
class RoutingTrace:
    """Routing of whole sequences; R is 1 (decoupled) or the number of layers.

    experts int16 [tokens, R, k] (-1: none), weights float16 [tokens, R, k], offsets int64 [sequences + 1] (rows of each
    sequence), prompt_tokens int32 [sequences], domains one per sequence, predicted: distance -> int16 [tokens, R, p]
    (at layer l about layer l + distance), top_experts, top_weights [tokens, R, m] or None, digest: sha256 of the file,
    ahead: the decoupled trace that this one reveals only at each layer's gate (see `moesim.trace.reveal`), or None.
    """

    meta: RoutingMeta
    experts: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    prompt_tokens: np.ndarray
    domains: tuple[str, ...]
    predicted: dict[int, np.ndarray] = field(default_factory=dict)
    digest: str = ""
    predicted_weights: dict[int, np.ndarray] = field(default_factory=dict)
    top_experts: np.ndarray | None = None
    top_weights: np.ndarray | None = None
    ahead: RoutingTrace | None = None

    @property
    def sequences(self) -> int:
        return len(self.offsets) - 1

    @property
    def tokens(self) -> int:
        return len(self.experts)

    @property
    def lengths(self) -> np.ndarray:
        """int32 [sequences]: prompt and output tokens of each sequence."""
        return np.diff(self.offsets).astype(np.int32)

    @property
    def output_tokens(self) -> np.ndarray:
        """int32 [sequences]: output tokens of each sequence."""
        return self.lengths - self.prompt_tokens


def read_routing(path: Path | str) -> RoutingTrace:
    """Read a routing trace. Raises InputError where the file is missing, truncated, foreign or inconsistent."""
    path = Path(path)
    data = _bytes(path)
    table = _parquet(path, data)
    meta = _meta(path, table)
    problems = column_problems(table, meta, str(path))
    if problems:
        raise InputError(problems)
    trace = replace(_trace(table, meta), digest=hashlib.sha256(data).hexdigest())
    problems = trace_problems(trace, str(path))
    if problems:
        raise InputError(problems)
    return trace


# ---- reading


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise InputError(Problem(str(path), f"{what}; {EXPECTED}"))
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read ({error.strerror}); {EXPECTED}")) from error


def _parquet(path: Path, data: bytes) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if data[:4] != b"PAR1":
        raise InputError(Problem(str(path), f"is not a Parquet file ({len(data)} bytes); {EXPECTED}"))
    if len(data) < 12 or data[-4:] != b"PAR1":
        raise InputError(
            Problem(str(path), f"is truncated: {len(data)} bytes without the Parquet end mark; {EXPECTED}")
        )
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        table = file.read().combine_chunks()
        table.validate(full=True)
        _count(file.metadata)
        return table
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(
            Problem(str(path), f"is a damaged Parquet file ({str(error).splitlines()[0]}); {EXPECTED}")
        ) from error


def _count(meta: pq.FileMetaData) -> None:
    """Raise ValueError where the rows that the end of the file tells of are not those of its columns."""
    groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
    if sum(group.num_rows for group in groups) != meta.num_rows:
        raise ValueError(f"it counts {meta.num_rows} rows, and its parts {sum(group.num_rows for group in groups)}")
    for group in groups:
        for column in map(group.column, range(group.num_columns)):
            width = 1 if "." not in column.path_in_schema else max(column.num_values // max(group.num_rows, 1), 1)
            if column.num_values != width * group.num_rows:
                raise ValueError(f"{column.path_in_schema} has {column.num_values} values in {group.num_rows} rows")


def _meta(path: Path, table: pa.Table) -> RoutingMeta:
    raw = (table.schema.metadata or {}).get(KEY)
    if raw is None:
        columns = ", ".join(table.column_names[:8])
        raise InputError(Problem(str(path), f"is Parquet of something else (columns {columns}); {EXPECTED}"))
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise InputError(Problem(str(path), f"its metadata is not JSON ({error}); {EXPECTED}")) from error
    _same_format(path, document)
    try:
        return RoutingMeta.model_validate(document)
    except ValidationError as error:
        raise InputError(Problem(f"{path}: metadata{_dotted(e['loc'])}", e["msg"]) for e in error.errors()) from error


def _dotted(place: tuple[int | str, ...]) -> str:
    return "".join(f".{part}" for part in place)


def _same_format(path: Path, document: object) -> None:
    found = (document.get("format"), document.get("version")) if isinstance(document, dict) else (None, None)
    if found != (FORMAT, VERSION):
        text = f"holds format {found[0]!r}, version {found[1]!r}; this moesim reads {FORMAT!r}, version {VERSION}"
        raise InputError(Problem(str(path), text))


def _trace(table: pa.Table, meta: RoutingMeta) -> RoutingTrace:
    sequence = table["sequence"].to_numpy()
    starts = np.flatnonzero(np.diff(sequence, prepend=-1)).astype(np.int64)
    offsets = np.append(starts, len(sequence))
    prompt = _codes(table, "phase") == "prompt"
    domains = tuple(str(name) for name in _codes(table, "domain")[starts])
    found = [d for d in DISTANCES if f"predicted_{d}" in table.column_names]
    weighted = [d for d in found if f"predicted_{d}_weights" in table.column_names]
    return RoutingTrace(
        meta=meta,
        experts=_array(table, "experts", meta),
        weights=_array(table, "weights", meta),
        offsets=offsets,
        prompt_tokens=np.add.reduceat(prompt, starts).astype(np.int32) if len(starts) else np.zeros(0, np.int32),
        domains=domains,
        predicted={d: _array(table, f"predicted_{d}", meta) for d in found},
        predicted_weights={d: _array(table, f"predicted_{d}_weights", meta) for d in weighted},
        top_experts=_array(table, "top_experts", meta) if meta.m else None,
        top_weights=_array(table, "top_weights", meta) if meta.m else None,
    )


def _array(table: pa.Table, name: str, meta: RoutingMeta) -> np.ndarray:
    column = table[name].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), meta.decisions, -1)


def _codes(table: pa.Table, name: str) -> np.ndarray:
    import pyarrow as pa

    return np.asarray(table[name].cast(pa.string()).to_numpy(), dtype=object)
