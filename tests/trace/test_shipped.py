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
    assert path.stat().st_size < 4 * 2**20


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_trace_has_no_text(path):
    import pyarrow.parquet as pq

    names = set(pq.read_schema(path).names)
    assert names == {"sequence", "position", "phase", "domain", "experts", "weights", "top_experts", "top_weights"}


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
