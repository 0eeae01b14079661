"""Our own format: Parquet with arrival_ns, prompt_tokens, output_tokens, if you like domain, and its metadata inside.

The metadata (`ArrivalsMeta`) is one JSON document under the schema-metadata key `moesim`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moesim.errors import InputError, Problem
from moesim.files import write_aside
from moesim.trace.formats.sheet import LATEST_NS, MOST_TOKENS

if TYPE_CHECKING:
    import pyarrow as pa

KEY = b"moesim"
EXPECTED = "expected moesim arrivals: Parquet with the metadata key 'moesim'"
COLUMNS = {"arrival_ns": "int64", "prompt_tokens": "int32", "output_tokens": "int32"}


class ArrivalsMeta(BaseModel):
    """Metadata of an arrivals file. `label` says whether people sent the requests or a rule made them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["moesim-arrivals"] = "moesim-arrivals"
    version: Literal[1] = 1
    name: str
    label: Literal["recorded", "synthetic"]
    requests: Annotated[int, Field(ge=1, strict=True)]
    source: str = ""
    licence: str = ""
    created: str = ""
    command: str = ""
    versions: dict[str, str] = {}
    notes: str = ""


Columns = tuple[np.ndarray, np.ndarray, np.ndarray, tuple[str, ...] | None]
"""arrival int64 [n] ns, prompt int32 [n], output int32 [n], domains"""


def write(path: Path | str, columns: Columns, meta: ArrivalsMeta) -> None:
    """Write arrivals as Parquet (zstd)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrival, prompt, output, domains = columns
    made: dict[str, Any] = {"arrival_ns": arrival, "prompt_tokens": prompt, "output_tokens": output}
    if domains is not None:
        made["domain"] = pa.array(domains).dictionary_encode()
    document = json.dumps(meta.model_dump(mode="json"), ensure_ascii=False)
    table = pa.table(made).replace_schema_metadata({KEY: document.encode()})
    with write_aside(path) as aside:
        pq.write_table(table, aside, compression="zstd", compression_level=12)


def read(path: Path, data: bytes) -> tuple[Columns, ArrivalsMeta]:
    """Read arrivals. Raises InputError where the file is truncated, foreign or inconsistent, naming the row."""
    table = _table(path, data)
    meta = _meta(path, table)
    problems = _column_problems(table, str(path))
    if problems:
        raise InputError(problems)
    arrival, prompt, output = (table[name].to_numpy() for name in COLUMNS)
    problems = _value_problems(arrival, prompt, output, meta.requests, str(path))
    if problems:
        raise InputError(problems)
    domains = tuple(map(str, table["domain"].to_pylist())) if "domain" in table.column_names else None
    return (arrival, prompt, output, domains), meta


def _table(path: Path, data: bytes) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if len(data) < 12 or data[-4:] != b"PAR1":
        text = f"is truncated: {len(data)} bytes without the Parquet end mark; {EXPECTED}"
        raise InputError(Problem(str(path), text))
    try:
        return pq.read_table(pa.BufferReader(data)).combine_chunks()
    except (pa.ArrowException, OSError, ValueError) as error:
        text = f"is a damaged Parquet file ({str(error).splitlines()[0]}); {EXPECTED}"
        raise InputError(Problem(str(path), text)) from error


def _meta(path: Path, table: pa.Table) -> ArrivalsMeta:
    raw = (table.schema.metadata or {}).get(KEY)
    try:
        document = json.loads(raw) if raw is not None else None
    except ValueError as error:
        raise InputError(Problem(str(path), f"its metadata is not JSON ({error}); {EXPECTED}")) from error
    if not isinstance(document, dict) or document.get("format") != "moesim-arrivals" or document.get("version") != 1:
        held = document.get("format") if isinstance(document, dict) else None
        what = f"format {held!r}" if held else f"columns {', '.join(table.column_names[:8])}"
        raise InputError(Problem(str(path), f"is Parquet of something else ({what}); {EXPECTED}"))
    try:
        return ArrivalsMeta.model_validate(document)
    except ValidationError as error:
        places = [("".join(f".{part}" for part in e["loc"]), e["msg"]) for e in error.errors()]
        raise InputError(Problem(f"{path}: metadata{place}", text) for place, text in places) from error


def _column_problems(table: pa.Table, place: str) -> list[Problem]:
    texts = []
    for name, kind in COLUMNS.items():
        if name not in table.column_names:
            texts.append(f"column {name!r} is missing; expected {kind}")
        elif str(table.schema.field(name).type) != kind:
            texts.append(f"column {name!r} holds {table.schema.field(name).type}; expected {kind}")
    texts += [
        f"column {name!r} is unknown; there is: {', '.join([*COLUMNS, 'domain'])}"
        for name in table.column_names
        if name not in (*COLUMNS, "domain")
    ]
    texts += [
        f"column {name!r} has {table[name].null_count} missing values; expected none"
        for name in table.column_names
        if table[name].null_count
    ]
    return [Problem(place, text) for text in texts]


def _value_problems(
    arrival: np.ndarray, prompt: np.ndarray, output: np.ndarray, requests: int, place: str
) -> list[Problem]:
    if len(arrival) != requests:
        return [Problem(place, f"holds {len(arrival):,} requests; its metadata says {requests:,}")]
    rules = {
        "arrival_ns {} must be 0 or more": (arrival, (arrival < 0) | (arrival > LATEST_NS)),
        "arrival_ns {} is before that of the row above; requests must be sorted by time": (
            arrival,
            np.diff(arrival, prepend=arrival[:1]) < 0,
        ),
        "prompt_tokens {} must be " + f"1 to {MOST_TOKENS:,}": (prompt, (prompt < 1) | (prompt > MOST_TOKENS)),
        "output_tokens {} must be " + f"1 to {MOST_TOKENS:,}": (output, (output < 1) | (output > MOST_TOKENS)),
    }
    first = {rule: (values, int(np.argmax(bad))) for rule, (values, bad) in rules.items() if bad.any()}
    return [Problem(f"{place}: row {row}", rule.format(values[row])) for rule, (values, row) in first.items()]
