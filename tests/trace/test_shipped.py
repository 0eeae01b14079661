"""The routing traces that are shipped: readable, as large as they say, and with reports that their rows bear out."""

from __future__ import annotations

import re

import numpy as np
import pytest

from moesim.files import shipped
from moesim.trace.info import describe, persistence
from moesim.trace.routing import read_routing

FILES = sorted(shipped("traces", "routing").glob("*.parquet"))
SMOLLM2 = "smollm2-135m-decoupled.parquet"


def test_there_are_shipped_traces():
    assert SMOLLM2 in [path.name for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_trace_says_where_it_comes_from(path):
    meta = read_routing(path).meta
    for name in ("model", "device", "dtype", "created", "command", "outputs", "versions", "report"):
        assert getattr(meta, name), name
    assert meta.prompts and all(source.licence and source.split == "held-out" for source in meta.prompts)
    assert not re.search(r"(^|[\s\"'])/\w+/", meta.model_dump_json()), "a path of one machine"


def test_all_shipped_traces_together_are_small():
    assert sum(path.stat().st_size for path in FILES) < 32 * 2**20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_trace_has_no_text(path):
    import pyarrow.parquet as pq

    names = set(pq.read_schema(path).names)
    needed = {"sequence", "position", "phase", "domain", "experts", "weights"}
    more = {"top_experts", "top_weights", "predicted_1", "predicted_2", "predicted_3"}
    assert needed <= names <= needed | more


@pytest.fixture(scope="module")
def smollm2():
    return read_routing(shipped("traces", "routing", SMOLLM2))


def test_the_size_of_smollm2(smollm2):
    info = describe(smollm2)
    assert smollm2.sequences >= 400 and smollm2.tokens >= 100_000 and info["output_tokens"] >= 20_000
    assert len(info["domains"]) == smollm2.meta.experts == 7
    assert len({part["sequences"] for part in info["domains"].values()}) == 1
    short = smollm2.prompt_tokens <= 128
    assert 0.4 < short.mean() < 0.6 and smollm2.prompt_tokens[~short].min() >= 256
    assert sum(source.tokens for source in smollm2.meta.prompts) == info["prompt_tokens"]
    assert smollm2.meta.key_bytes == 3 * 576 * 768 * 2


def test_sequences_of_smollm2_are_distinct(smollm2):
    rows = zip(smollm2.offsets[:-1], smollm2.prompt_tokens, strict=True)
    seen = {smollm2.top_weights[start : start + size].tobytes() for start, size in rows}
    assert len(seen) == smollm2.sequences


def test_the_report_of_smollm2_is_that_of_its_rows(smollm2):
    report = smollm2.meta.report
    for lag, told in report["persistence"]["router"].items():
        assert persistence(smollm2.experts, smollm2.offsets, int(lag)) == pytest.approx(told, abs=1e-4)
    truth = np.repeat([report["experts"].index(name) for name in smollm2.domains], smollm2.lengths)
    told = report["agreement"]["true_domain"]["all"]
    assert (smollm2.experts[:, 0, 0] == truth).mean() == pytest.approx(told, abs=1e-4)
    losses = report["losses"]["mean"]
    assert losses["dense"] < losses["oracle_label"] < losses["router"] < losses["random_expert"]


# ---- two refactorizations of one model, on the same tokens

PAIR = ("smollm2-135m-domains", "smollm2-135m-fine-grained")


@pytest.fixture(scope="module")
def pair():
    """name -> trace, of both and of their samples."""
    names = [name + end for name in PAIR for end in ("", "-sample")]
    return {name: read_routing(shipped("traces", "routing", f"{name}.parquet")) for name in names}


def test_the_pair_is_large_enough_and_has_the_same_sequences(pair):
    one, two = (pair[name] for name in PAIR)
    assert one.sequences == two.sequences >= 1000 and one.tokens == two.tokens >= 300_000
    assert one.output_tokens.sum() >= 60_000
    assert one.meta.router == "decoupled" and two.meta.router == "layerwise"
    assert one.meta.outputs == two.meta.outputs and one.meta.outputs.startswith("forced, text of: SmolLM2-135M")
    for end in ("", "-sample"):
        one, two = (pair[name + end] for name in PAIR)
        assert np.array_equal(one.offsets, two.offsets) and np.array_equal(one.prompt_tokens, two.prompt_tokens)
        assert one.domains == two.domains and one.meta.prompts == two.meta.prompts


@pytest.mark.parametrize("name", PAIR)
def test_a_sample_is_a_part_of_the_whole(pair, name):
    whole, some = pair[name], pair[f"{name}-sample"]
    numbers = some.meta.report["capture"]["sample"]["sequences"]
    rows = np.concatenate([np.arange(whole.offsets[n], whole.offsets[n + 1]) for n in numbers])
    assert np.array_equal(some.experts, whole.experts[rows]) and np.array_equal(some.weights, whole.weights[rows])
    assert some.tokens >= 10_000 and some.meta.m >= 2 * some.meta.k
    assert sorted(some.predicted) == ([1, 2, 3] if some.meta.router == "layerwise" else [])


def test_the_gates_of_the_twin_choose_their_best_and_foretell_better_than_chance(pair):
    some = pair["smollm2-135m-fine-grained-sample"]
    meta = some.meta
    assert np.array_equal(np.sort(some.top_experts[:, :, : meta.k]), np.sort(some.experts))
    recalls = []
    for distance in (1, 2, 3):
        named, chosen = some.predicted[distance][:, :-distance, : meta.k], some.experts[:, distance:]
        recalls.append((chosen[..., :, None] == named[..., None, :]).any(axis=-1).mean())
    assert recalls == sorted(recalls, reverse=True) and recalls[2] > 2 * meta.k / meta.experts
