from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from moesim.replay import Capacity, Settings, players, replay
from moesim.trace.info import persistence
from moesim.trace.stats import ahead, measures, render, statistics, ties
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


def test_exactly_the_same_experts_in_any_order() -> None:
    found = measures.overlap(sample([[[0, 1], [2, 3]], [[1, 0], [2, 1]], [[1, 0], [2, 1]]], [0, 3]))
    assert found["same_by_lag"] == {"1": 3 / 4, "2": 1 / 2, "4": None, "8": None, "16": None, "64": None}
    none = measures.overlap(sample([[[-1, -1]], [[-1, -1]]], [0, 2]))
    assert none["same_by_lag"]["1"] is None and none["by_lag"]["1"] is None


def test_persistence_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.random.default_rng(1).integers(0, 4, (50, 3, 1)).astype(np.int16)
    whole = persistence(ids, np.array([0, 20, 50]), 2)
    monkeypatch.setattr("moesim.trace.info.BLOCK", 10)
    assert persistence(ids, np.array([0, 20, 50]), 2) == whole is not None


def test_breadth() -> None:
    """Each sequence has an expert of its own: b sequences need b of them."""
    found = measures.breadth(one_layer([0, 0, 1, 1, 2, 2, 3, 3], [0, 2, 4, 6, 8]))
    assert (found["batches"], found["unique"]) == ([1, 2, 4, 8], [1, 2, 4, 4])
    assert found["even"][1] == pytest.approx(4 * (1 - (3 / 4) ** 2))


def test_foresight_of_a_next_layer_that_follows() -> None:
    """Layer 1 takes the expert after layer 0's: the table knows it, popularity and the token before do not."""
    ids = np.random.default_rng(3).integers(0, 4, 400)
    found = ahead.foresight(sample([[[e], [(e + 1) % 4]] for e in ids], [0, 400]))
    assert found is not None
    assert found["table"] == 1.0 and found["by_layer"]["table"] == [1.0]
    assert found["popular"] < 0.4 and found["token_before"] < 0.4


def test_foresight_from_token_to_token() -> None:
    found = ahead.foresight(one_layer([0, 1, 2, 3] * 20))
    assert found is not None
    assert (found["of"], found["table"], found["token_before"]) == ("next token", 1.0, 0.0)
    assert ahead.foresight(one_layer([0])) is None


@pytest.mark.parametrize("router", ["decoupled", "layerwise"])
def test_the_findings_are_sentences_with_the_numbers(router) -> None:
    trace = synthetic("sticky", layers=3, experts=8, key_bytes=10, router=router, k=2, sequences=6)
    found = statistics(trace)
    assert json.loads(json.dumps(found)) == found
    more = ["layers"] if router == "layerwise" else []
    assert list(found["findings"]) == ["balance", "reuse", "overlap", "breadth", "foresight", *more]
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


# ---- what is foretold, and by whom


def foretold(named: dict[int, list], ids: list, offsets: list[int]) -> dict:
    experts = np.array(ids, np.int16)
    predicted = {distance: np.array(of, np.int16) for distance, of in named.items()}
    found = ahead.foresight(Sample(experts, np.array(offsets), 6, "output tokens", predicted=predicted))
    assert found is not None
    return found


def test_recorded_predictions_are_counted_by_distance() -> None:
    """Two tokens a half, of which the second has one before it: layers choose 0 1, 2 3 and 4 5."""
    token = [[0, 1], [2, 3], [4, 5]]
    near = [[3, 0, 2], [0, 4, 1], [-1, -1, -1]]  # of layer 1: 3 in the first two, 2 in all; of layer 2: 4, not first
    far = [[5, 4, 0], [-1, -1, -1], [-1, -1, -1]]
    found = foretold({1: [near] * 4, 2: [far] * 4}, [token] * 4, [0, 2, 4])
    assert (found["named"], found["tokens"]) == (3, 1)
    one, two = found["by_distance"]["1"], found["by_distance"]["2"]
    assert (one["recorded"], one["recorded_all"], one["first"]) == (0.5, 0.75, 0.5)
    assert (two["recorded"], two["recorded_all"], two["first"]) == (1.0, 1.0, 1.0)
    assert one["token_before"] == one["table"] == 1.0
    assert found["by_layer"]["recorded"] == [0.5, 0.5]
    assert "3" not in found["by_distance"]


def test_layers_farther_on_have_tables_of_their_own() -> None:
    """Layer 2 follows layer 0, and layer 1 nobody."""
    rng = np.random.default_rng(5)
    first, between = rng.integers(0, 6, 600), rng.integers(0, 6, 600)
    ids = [[[a], [b], [(a + 1) % 6]] for a, b in zip(first, between, strict=True)]
    found = foretold({}, ids, [0, 600])
    assert found["by_distance"]["2"]["table"] == 1.0
    assert found["by_distance"]["1"]["table"] < 0.5
    assert "recorded" not in found["by_distance"]["1"]


def test_synthetic_predictions_have_the_recall_that_was_asked_for() -> None:
    trace = synthetic(
        "iid", layers=8, experts=16, key_bytes=1, router="layerwise", k=2, sequences=40, prompt_tokens=1,
        output_tokens=60, recall=[0.9, 0.7, 0.4], predicted=4,
    )  # fmt: skip
    found = statistics(trace)
    by_distance = found["foresight"]["by_distance"]
    assert [by_distance[d]["recorded"] for d in "123"] == pytest.approx([0.9, 0.7, 0.4], abs=0.03)
    assert "1 ahead" in found["findings"]["recorded"] and "all 4 named" in found["findings"]["recorded"]
    assert json.loads(json.dumps(found)) == found


# ---- domains and layers


def test_domains_that_share_nothing_and_that_are_alike() -> None:
    even, first, second = np.array([[5, 5]]), np.array([[9, 0]]), np.array([[0, 3]])
    found = ties.apart({"a": first, "b": second})
    assert found["apart"] == {"a": 0.5, "b": 0.5}
    assert (found["mean_apart"], found["bits"], found["of_bits"]) == (0.5, 1.0, 1.0)
    assert found["largest"] == {"a": 1.0, "b": 1.0}
    alike = ties.apart({"a": even, "b": 3 * even})
    assert (alike["mean_apart"], alike["bits"]) == (0.0, 0.0)


def test_domains_are_those_of_the_sequences() -> None:
    ids = np.array([[[0]], [[1]], [[1]], [[2]]], np.int16)
    found = ties.specialisation(Sample(ids, np.array([0, 1, 3, 4]), 3, "output tokens", ("x", "y", "x")))
    assert found is not None
    assert found["largest"] == {"x": 0.5, "y": 1.0}
    assert ties.specialisation(Sample(ids, np.array([0, 1, 3, 4]), 3, "output tokens", ("x",) * 3)) is None


def test_layers_tell_of_one_another() -> None:
    """Layer 1 repeats layer 0, layer 2 is independent of both: 2 bits and none."""
    rng = np.random.default_rng(2)
    first, other = rng.integers(0, 4, (2, 4000))
    found = ties.layer_ties(sample([[[a], [a], [b]] for a, b in zip(first, other, strict=True)], [0, 4000]))
    assert found is not None
    assert found["by_layer"] == pytest.approx([2.0, 0.0], abs=0.01)
    assert found["of_bits"] == pytest.approx(2.0, abs=0.01)
    assert ties.layer_ties(one_layer([0, 1, 2])) is None
    assert ties.layer_ties(sample([[[0], [1]]] * 15, [0, 15])) is None, "too few tokens for 16 pairs"


def test_the_best_expert_is_asked_where_it_is_stored() -> None:
    """Both chosen experts weigh the same and stand in any order; the best ones of the two layers are the same."""
    trace = layerwise([[[0, 1], [2, 1]]] * 4, [0, 4], [1])
    best = np.array([[[3, 0], [3, 0]]] * 4, np.int16)
    found = sample_of(replace(trace, top_experts=best, top_weights=best.astype(np.float16)))
    assert found.first.tolist() == [[3, 3]] * 3
    assert sample_of(trace).first.tolist() == [[0, 2]] * 3


def test_the_bias_of_counting_is_taken_off() -> None:
    """Independent rows and columns, counted 64 times over 64 cells, seem to tell of each other; hardly any is left."""
    rng = np.random.default_rng(4)
    left = []
    for _ in range(200):
        joint = np.bincount(rng.integers(0, 64, 256), minlength=64).reshape(8, 8)
        left.append(ties.mutual(joint))
    assert 0 < np.mean(left) < 0.05
