from __future__ import annotations

import json

import numpy as np
import pytest

from moesim.replay import Capacity, Settings, players, replay
from moesim.trace.stats import measures, render, statistics
from moesim.trace.stats.sample import Sample, sample_of
from moesim.trace.synthetic import synthetic
from tests.replay.test_stream import layerwise


def sample(ids: list, offsets: list[int], count: int = 4) -> Sample:
    return Sample(np.array(ids, np.int16), np.array(offsets, np.int64), count, "output tokens")


def one_layer(experts: list[int], offsets: list[int] | None = None, count: int = 4) -> Sample:
    return sample([[[e]] for e in experts], offsets or [0, len(experts)], count)


def test_the_sample_is_the_output_tokens_of_each_sequence() -> None:
    trace = layerwise([[[0]], [[1]], [[2]], [[3]], [[0]]], [0, 3, 4, 5], [1, 1, 1])
    found = sample_of(trace)
    assert (found.experts.ravel().tolist(), found.offsets.tolist(), found.of) == ([1, 2], [0, 2], "output tokens")
    only = sample_of(layerwise([[[0]], [[1]]], [0, 2], [2]))
    assert (only.tokens, only.of) == (2, "prompt tokens")


def test_halves_are_of_sequences_or_of_the_only_one() -> None:
    first, second = one_layer([0, 1, 2, 3, 0], [0, 2, 3, 5]).halves()
    assert (first.experts.ravel().tolist(), first.offsets.tolist()) == ([0, 1], [0, 2])
    assert (second.experts.ravel().tolist(), second.offsets.tolist()) == ([2, 3, 0], [0, 1, 3])
    first, second = one_layer([0, 1, 2, 3, 0]).halves()
    assert (first.tokens, second.tokens, second.offsets.tolist()) == (2, 3, [0, 3])


def test_balance() -> None:
    """Layer 0 uses expert 0 three times of four, layer 1 each of four once."""
    found = measures.balance(sample([[[0], [0]], [[0], [1]], [[0], [2]], [[1], [3]]], [0, 4]))
    assert found["curve"] == pytest.approx([0, (0.75 + 0.25) / 2, (1 + 0.5) / 2, (1 + 0.75) / 2, 1])
    assert found["unused"] == 2 / 8
    assert found["largest_share"] == 0.5
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / np.log(4)
    assert found["evenness"] == pytest.approx((entropy + 1) / 2)
    # On the first half layer 0 has 0, 0 and layer 1 0, 1; the second half is 0, 1 and 2, 3.
    assert found["pinned_curve"] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_reuse_distances() -> None:
    """0 1 0 2 1: 0 is used again past one other, 1 past two others; the rest are first uses."""
    found = measures.reuse(one_layer([0, 1, 0, 2, 1]))
    assert found["hit_share"] == pytest.approx([0, 0, 1 / 5, 2 / 5, 2 / 5])
    assert (found["uses"], found["first_uses"], found["median_tokens"]) == (5, 3 / 5, 2.5)
    assert found["experts_for"] == {"50 %": None, "80 %": None, "90 %": None}


def test_reuse_is_what_an_lru_cache_per_layer_hits() -> None:
    trace = synthetic("zipf", layers=3, experts=12, key_bytes=10, router="layerwise", k=2, sequences=4, prompt_tokens=1)
    share = measures.reuse(sample_of(trace))["hit_share"]
    sizes = (2, 3, 5, 9, 12)
    settings = Settings(scopes=("layer",), start="cold")
    rows = replay(trace, players(["lru"]), [Capacity.parse(f"{size}/layer") for size in sizes], settings)
    assert [row.decode_hit_pct for row in rows] == pytest.approx([100 * share[size] for size in sizes])


def test_overlap_and_what_popularity_makes_of_it() -> None:
    found = measures.overlap(sample([[[0, 1]], [[1, 2]], [[1, 0]]], [0, 3]))
    assert found["by_lag"]["1"] == 0.5 and found["by_lag"]["2"] == 1.0 and found["by_lag"]["4"] is None
    assert found["even"] == 2 / 4
    assert found["popular"] == pytest.approx(2 * (1 / 9 + 1 / 4 + 1 / 36))


def test_breadth() -> None:
    """Each sequence has an expert of its own: b sequences need b of them."""
    found = measures.breadth(one_layer([0, 0, 1, 1, 2, 2, 3, 3], [0, 2, 4, 6, 8]))
    assert (found["batches"], found["unique"]) == ([1, 2, 4, 8], [1, 2, 4, 4])
    assert found["even"][1] == pytest.approx(4 * (1 - (3 / 4) ** 2))


def test_foresight_of_a_next_layer_that_follows() -> None:
    """Layer 1 takes the expert after layer 0's: the table knows it, popularity and the token before do not."""
    ids = np.random.default_rng(3).integers(0, 4, 400)
    found = measures.foresight(sample([[[e], [(e + 1) % 4]] for e in ids], [0, 400]))
    assert found is not None
    assert found["table"] == 1.0 and found["by_layer"]["table"] == [1.0]
    assert found["popular"] < 0.4 and found["token_before"] < 0.4


def test_foresight_from_token_to_token() -> None:
    found = measures.foresight(one_layer([0, 1, 2, 3] * 20))
    assert found is not None
    assert (found["of"], found["table"], found["token_before"]) == ("next token", 1.0, 0.0)
    assert measures.foresight(one_layer([0])) is None


@pytest.mark.parametrize("router", ["decoupled", "layerwise"])
def test_the_findings_are_sentences_with_the_numbers(router) -> None:
    trace = synthetic("sticky", layers=3, experts=8, key_bytes=10, router=router, k=2, sequences=6)
    found = statistics(trace)
    assert json.loads(json.dumps(found)) == found
    assert list(found["findings"]) == ["balance", "reuse", "overlap", "breadth", "foresight"]
    assert all(text.endswith(".") and any(c.isdigit() for c in text) for text in found["findings"].values())
    text = render(found)
    assert f"{100 * found['overlap']['by_lag']['1']:.1f} %" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    assert statistics(trace) == found


def test_a_trace_of_one_token() -> None:
    found = statistics(layerwise([[[0, 1]]], [0, 1], [1]))
    assert found["foresight"] is None and "overlap" not in found["findings"]


def test_the_advice_follows_the_numbers() -> None:
    """Sequences that keep to their experts, routing with a short memory, and none."""
    rng = np.random.default_rng(0)
    by_sequence = np.repeat(rng.integers(0, 16, 40), 100).reshape(-1, 1, 1)
    short = np.repeat(rng.integers(0, 16, 1000), 4).reshape(-1, 1, 1)
    none = rng.integers(0, 16, 4000).reshape(-1, 1, 1)
    advice = []
    for ids in (by_sequence, short, none):
        trace = layerwise(ids.tolist(), list(range(0, 4001, 100)), [1] * 40, experts=16)
        advice.append(statistics(trace)["findings"]["overlap"].split(": ")[1])
    assert [text.split()[:2] for text in advice] == [["a", "sequence"], ["recency", "helps"], ["what", "a"]]
