from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from moesim.errors import InputError
from moesim.trace.routing import PromptSource, RoutingMeta, RoutingTrace, read_routing, write_routing


def meta(**changes) -> RoutingMeta:
    known = {"model": "tiny", "router": "decoupled", "layers": 2, "experts": 4, "key_bytes": 100, "label": "synthetic"}
    return RoutingMeta(**(known | changes))


def small(**changes) -> RoutingTrace:
    """Two sequences: 2 prompt + 1 output tokens, and 1 prompt token."""
    known = {
        "meta": meta(),
        "experts": np.array([0, 1, 1, 3], np.int16).reshape(4, 1, 1),
        "weights": np.full((4, 1, 1), 0.5, np.float16),
        "offsets": np.array([0, 3, 4], np.int64),
        "prompt_tokens": np.array([2, 1], np.int32),
        "domains": ("code", "maths"),
    }
    return RoutingTrace(**(known | changes))


def problems(call, *args) -> str:
    with pytest.raises(InputError) as caught:
        call(*args)
    return "\n".join(map(str, caught.value.problems))


def distinct(random: np.random.Generator, tokens: int, decisions: int, width: int, experts: int) -> np.ndarray:
    ids = np.argsort(random.random((tokens, decisions, experts)), axis=2)[:, :, :width].astype(np.int16)
    ids[random.random(ids.shape) < 0.2] = -1
    return ids


@st.composite
def traces(draw) -> RoutingTrace:
    """Decoupled and layer-wise, variable k, unequal keys, shared keys, predictions."""
    layers, experts = draw(st.integers(1, 5)), draw(st.integers(1, 9))
    router = draw(st.sampled_from(["decoupled", "layerwise"]))
    k = draw(st.integers(1, experts))
    m = draw(st.sampled_from([0, min(2 * k, experts), experts]))
    p = draw(st.integers(0, experts)) if router == "layerwise" else 0
    key_map, keys = None, layers * experts
    if draw(st.booleans()):
        key_map, keys = [list(range(experts))] * layers, experts
    key_bytes = draw(st.one_of(st.integers(1, 2**40), st.lists(st.integers(1, 2**40), min_size=keys, max_size=keys)))
    source = PromptSource(domain="code", source="a file", licence="MIT", split="held-out", sequences=1, tokens=9)
    about = meta(
        router=router,
        layers=layers,
        experts=experts,
        k=k,
        m=m,
        p=p,
        key_map=key_map,
        key_bytes=key_bytes,
        prompts=[source],
        report={"losses": [1.5, 2.0]},
        notes="größer",
    )
    lengths = np.array(draw(st.lists(st.integers(1, 9), min_size=1, max_size=6)))
    prompt = np.array([draw(st.integers(1, int(n))) for n in lengths], np.int32)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    tokens, decisions = int(lengths.sum()), about.decisions
    predicted = (
        {d: distinct(random, tokens, decisions, p, experts) for d in range(1, draw(st.integers(1, 3)) + 1)} if p else {}
    )
    for distance, ids in predicted.items():
        ids[:, max(decisions - distance, 0) :] = -1
    scores = {d: random.random(ids.shape).astype(np.float16) for d, ids in predicted.items() if draw(st.booleans())}
    top = distinct(random, tokens, decisions, m, experts) if m else None
    return RoutingTrace(
        meta=about,
        experts=distinct(random, tokens, decisions, k, experts),
        weights=random.random((tokens, decisions, k)).astype(np.float16),
        offsets=np.append(0, np.cumsum(lengths)).astype(np.int64),
        prompt_tokens=prompt,
        domains=tuple(draw(st.sampled_from(["code", "literature", "日本"])) for _ in lengths),
        predicted=predicted,
        predicted_weights=scores,
        top_experts=top,
        top_weights=None if top is None else random.random(top.shape).astype(np.float16),
    )


def assert_same(one: RoutingTrace, two: RoutingTrace) -> None:
    assert one.meta == two.meta
    assert one.domains == two.domains
    for name in ("experts", "weights", "offsets", "prompt_tokens", "top_experts", "top_weights"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, err_msg=name)
    for name in ("predicted", "predicted_weights"):
        a, b = getattr(one, name), getattr(two, name)
        assert a.keys() == b.keys()
        for distance in a:
            np.testing.assert_array_equal(a[distance], b[distance])


@settings(max_examples=80, deadline=None)
@given(trace=traces())
def test_what_is_written_is_read_back(tmp_path_factory, trace):
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    write_routing(path, trace)
    assert_same(trace, read_routing(path))


@settings(max_examples=30, deadline=None)
@given(trace=traces(), data=st.data())
def test_a_cut_file_is_refused(tmp_path_factory, trace, data):
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    write_routing(path, trace)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert "expected a moesim routing trace" in problems(read_routing, path)


def test_equal_traces_give_equal_bytes_and_digests(tmp_path):
    write_routing(tmp_path / "a", small())
    write_routing(tmp_path / "b", small())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_routing(tmp_path / "a").digest == read_routing(tmp_path / "b").digest != ""


def test_derived_numbers():
    trace = small()
    assert (trace.sequences, trace.tokens, trace.output_tokens.tolist()) == (2, 4, [1, 0])
    assert trace.output_tokens.dtype == np.int32
    assert trace.meta.keys == 8 and trace.meta.key_table[1].tolist() == [4, 5, 6, 7]
    shared = meta(key_map=[[0, 1, 2, 3], [0, 1, 2, 4]], key_bytes=[1, 2, 3, 4, 5])
    assert shared.keys == 5 and shared.key_sizes.tolist() == [1, 2, 3, 4, 5]


def test_pandas_reads_it_without_us(tmp_path):
    write_routing(tmp_path / "t.parquet", small())
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert list(frame.columns) == ["sequence", "position", "phase", "domain", "experts", "weights"]
    assert frame.position.tolist() == [0, 1, 2, 0]
    assert frame.phase.tolist() == ["prompt", "prompt", "output", "prompt"]
    assert frame.domain.tolist() == ["code"] * 3 + ["maths"]
    assert [row.tolist() for row in frame.experts] == [[0], [1], [1], [3]]
    assert frame.weights[0].dtype == np.float16


def test_a_missing_file(tmp_path):
    assert "there is no such file; expected a moesim routing trace" in problems(read_routing, tmp_path / "no.parquet")
    assert "is a folder" in problems(read_routing, tmp_path)


def test_foreign_files(tmp_path):
    text, other = tmp_path / "a.csv", tmp_path / "b.parquet"
    text.write_text("a,b\n1,2\n")
    assert "is not a Parquet file (8 bytes)" in problems(read_routing, text)
    pq.write_table(pa.table({"price": [1]}), other)
    assert "is Parquet of something else (columns price)" in problems(read_routing, other)


def test_a_damaged_file(tmp_path):
    path = tmp_path / "t.parquet"
    write_routing(path, small())
    data = bytearray(path.read_bytes())
    data[-200:-20] = bytes(180)
    path.write_bytes(data)
    assert "expected a moesim routing trace" in problems(read_routing, path)


def rewrite(path: Path, change) -> None:
    """Change the table of a trace file behind the writer's back."""
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def with_meta(table: pa.Table, **changes) -> pa.Table:
    document = json.loads(table.schema.metadata[b"moesim"]) | changes
    return table.replace_schema_metadata({b"moesim": json.dumps(document).encode()})


@pytest.fixture
def path(tmp_path) -> Path:
    write_routing(tmp_path / "t.parquet", small())
    return tmp_path / "t.parquet"


def test_a_later_version(path):
    rewrite(path, lambda table: with_meta(table, version=2))
    assert "holds format 'moesim-routing', version 2; this moesim reads 'moesim-routing', version 1" in problems(
        read_routing, path
    )


def test_metadata_with_wrong_and_unknown_entries(path):
    rewrite(path, lambda table: with_meta(table, layers=0, colour="red"))
    text = problems(read_routing, path)
    assert "metadata.layers" in text and "metadata.colour" in text


def test_all_wrong_columns_at_once(path):
    rewrite(path, lambda table: table.drop_columns(["weights", "position"]).append_column("extra", pa.array([1] * 4)))
    text = problems(read_routing, path)
    assert "column 'weights' is missing; expected lists of 1 halffloat" in text
    assert "column 'position' is missing" in text
    assert "column 'extra' is unknown" in text


def test_metadata_that_does_not_fit_the_columns(path):
    rewrite(path, lambda table: with_meta(table, k=2))
    assert "column 'experts' holds lists of 1 int16; expected lists of 2 int16" in problems(read_routing, path)


def test_rows_out_of_order(path):
    original = path.read_bytes()
    for rows, rule in (
        ([0, 2, 1, 3], "positions of a sequence must run"),
        ([3, 0, 1, 2], "sequences must be numbered"),
        ([0, 2, 2, 3], "positions"),
    ):
        path.write_bytes(original)
        rewrite(path, lambda table, rows=rows: table.take(rows))
        assert rule in problems(read_routing, path)


def test_phase_and_domain_of_rows(path):
    def change(table: pa.Table) -> pa.Table:
        table = table.set_column(2, "phase", pa.array(["output", "prompt", "output", "x"]))
        return table.set_column(3, "domain", pa.array(["code", "code", "law", "maths"]))

    rewrite(path, change)
    text = problems(read_routing, path)
    assert "row 1: prompt rows must stand before output rows" in text
    assert "row 3: phase must be 'prompt' or 'output'" in text
    assert "row 2: all rows of a sequence must have one domain" in text


def test_an_empty_file(path):
    rewrite(path, lambda table: table.slice(0, 0))
    assert "holds no tokens" in problems(read_routing, path)


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (
            {"experts": np.array([0, 1, 4, -2], np.int16).reshape(4, 1, 1)},
            "experts has expert 4 in row 2; expected 0..3",
        ),
        ({"experts": np.zeros((4, 2, 1), np.int16)}, "experts is int16 [4, 2, 1]; expected int16 [4, 1, 1]"),
        ({"experts": np.zeros((4, 1, 1), np.int32)}, "experts is int32 [4, 1, 1]; expected int16"),
        ({"weights": np.full((4, 1, 1), np.nan, np.float16)}, "weights has a value that is not finite"),
        ({"offsets": np.array([0, 3, 5], np.int64)}, "offsets run from 0 to 5; expected 0 to 4"),
        ({"offsets": np.array([0, 4, 4], np.int64)}, "sequence 1 has no tokens"),
        ({"prompt_tokens": np.array([4, 1], np.int32)}, "sequence 0 has 4 prompt tokens in 3 rows"),
        ({"prompt_tokens": np.array([0, 1], np.int32)}, "sequence 0 has 0 prompt tokens"),
        ({"domains": ("code",)}, "there are 1 domains for 2 sequences"),
        ({"top_experts": np.zeros((4, 1, 0), np.int16)}, "1 of top_experts and top_weights"),
        ({"predicted": {2: np.zeros((4, 1, 0), np.int16)}}, "predictions have distances [2]; expected 1"),
        (
            {"meta": meta(k=2), "experts": np.ones((4, 1, 2), np.int16), "weights": np.ones((4, 1, 2), np.float16)},
            "experts names an expert twice in row 0",
        ),
        (
            {
                "meta": meta(router="layerwise", p=1),
                "experts": np.zeros((4, 2, 1), np.int16),
                "weights": np.ones((4, 2, 1), np.float16),
                "predicted": {1: np.zeros((4, 2, 1), np.int16)},
            },
            "predicted_1 predicts beyond the last layer",
        ),
    ],
)
def test_a_wrong_trace_is_not_written(tmp_path, change, rule):
    assert rule in problems(write_routing, tmp_path / "t.parquet", small(**change))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(path):
    before = path.read_bytes()
    problems(write_routing, path, replace(small(), domains=()))
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"k": 5}, "k is 5, but there are 4 experts"),
        ({"m": 1}, "m is 1; it must be 0 or in 2..4"),
        ({"p": 1}, "a decoupled router has no later decision"),
        ({"key_map": [[0, 1, 2, 3]]}, "key_map must have 2 rows"),
        ({"key_map": [[0, 1, 2, 3], [0, 1, 2, 9]]}, "key_map must use dense keys"),
        ({"key_bytes": [1, 2]}, "key_bytes lists 2 sizes; there are 8 keys"),
        ({"router": "both"}, "router"),
        ({"layers": True}, "layers"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_wrong_metadata(change, rule):
    with pytest.raises(ValidationError) as caught:
        meta(**change)
    assert rule in str(caught.value)
