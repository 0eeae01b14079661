"""Damaged and mismatched traces: refused with a message, or the same data; never a traceback, never other routing."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from moesim.errors import InputError
from moesim.trace.info import describe, render
from moesim.trace.routing import RoutingTrace, read_routing, write_routing
from moesim.trace.stats import statistics
from moesim.trace.synthetic import synthetic

ROUTERS = ("decoupled", "layerwise")
FLIPS = 400


def written(path: Path, router: str) -> RoutingTrace:
    guesses: dict[str, Any] = {"recall": [0.9, 0.8], "predicted": 3} if router == "layerwise" else {}
    trace = synthetic(
        "sticky", layers=4, experts=7, key_bytes=100, router=router, sequences=9, prompt_tokens=5, output_tokens=6,
        **guesses,
    )  # fmt: skip
    write_routing(path, trace)
    return trace


def data_of(trace: RoutingTrace) -> list[Any]:
    arrays = [trace.experts, trace.weights, trace.offsets, trace.prompt_tokens, *trace.predicted.values()]
    return [trace.domains, *(array.tolist() for array in arrays)]


@pytest.mark.parametrize("router", ROUTERS)
def test_flipped_bits_are_refused_or_change_no_route(tmp_path: Path, router: str) -> None:
    """Pages carry checksums: what is read is what was written. Only a text of the metadata may read otherwise."""
    path = tmp_path / "t.parquet"
    trace = written(path, router)
    whole, rng, refused = path.read_bytes(), random.Random(f"flips/{router}"), 0
    for _ in range(FLIPS):
        damaged = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 30])):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            read = read_routing(path)
        except InputError as error:
            assert all(str(path) in problem.place and problem.text for problem in error.problems)
            refused += 1
            continue
        assert data_of(read) == data_of(trace)
    assert refused > FLIPS // 2


@pytest.mark.parametrize("router", ROUTERS)
def test_holes_are_refused_or_change_no_route(tmp_path: Path, router: str) -> None:
    """Zeros and garbage anywhere, several bytes long."""
    path = tmp_path / "t.parquet"
    trace = written(path, router)
    whole, rng = path.read_bytes(), random.Random(f"holes/{router}")
    for _ in range(FLIPS // 2):
        first, count = rng.randrange(len(whole)), rng.randrange(1, 200)
        hole = bytes(count) if rng.random() < 0.5 else rng.randbytes(count)
        path.write_bytes(whole[:first] + hole + whole[first + count :])
        try:
            assert data_of(read_routing(path)) == data_of(trace)
        except InputError as error:
            assert error.problems


VALUES = [None, -1, 0, 1, 3, 8, 10**6, 10**9, 10**30, 1.5, float("nan"), "x", "layerwise", "decoupled", [], [[0]], {}]
FIELDS = ("router", "layers", "experts", "k", "m", "p", "key_map", "key_bytes", "label", "prompts", "versions", "more")


@pytest.mark.parametrize("router", ROUTERS)
def test_metadata_of_any_other_kind_is_refused_or_serves(tmp_path: Path, router: str) -> None:
    path = tmp_path / "t.parquet"
    written(path, router)
    table = pq.read_table(path)
    document = json.loads(table.schema.metadata[b"moesim"])
    accepted = 0
    for field, value in itertools.product(FIELDS, VALUES):
        changed = json.dumps(document | {field: value}).encode()
        pq.write_table(table.replace_schema_metadata({b"moesim": changed}), path)
        try:
            read = read_routing(path)
        except InputError:
            continue
        accepted += 1
        assert render(describe(read))
        if read.meta.layers < 10:
            assert statistics(read)["tokens"] == 54
    assert 5 < accepted < len(FIELDS) * len(VALUES) // 4


def test_more_keys_than_any_model_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    written(path, "decoupled")
    table = pq.read_table(path)
    document = json.loads(table.schema.metadata[b"moesim"]) | {"layers": 900_000}
    pq.write_table(table.replace_schema_metadata({b"moesim": json.dumps(document).encode()}), path)
    with pytest.raises(InputError, match="900,000 layers of 7 experts are more than 1,000,000 keys"):
        read_routing(path)


def test_a_trace_of_before_checksums_is_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    trace = written(path, "layerwise")
    pq.write_table(pq.read_table(path), path, compression="zstd")
    assert np.array_equal(read_routing(path).experts, trace.experts)
