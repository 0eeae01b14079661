"""Synthetic controls: what each rule promises, measured; wrong arguments; files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.trace.routing import RoutingTrace, read_routing, write_routing
from moesim.trace.synthetic import READ_ME_PERSISTENCE, synthetic


def make(kind: str, **changes: Any) -> RoutingTrace:
    return synthetic(kind, **{"layers": 3, "experts": 7, "key_bytes": 100, "seed": 1} | changes)


def sets(trace: RoutingTrace) -> np.ndarray:
    """Sorted experts, [sequences, tokens, decisions, k]; all sequences have one length."""
    return np.sort(trace.experts, axis=-1).reshape(trace.sequences, -1, *trace.experts.shape[1:])


def persistence(trace: RoutingTrace) -> float:
    chosen = sets(trace)
    return float((chosen[:, 1:] == chosen[:, :-1]).all(axis=-1).mean())


def within(share: float, expected: float, samples: int) -> bool:
    """Whether a share of so many independent samples is within five standard deviations of what is expected."""
    return abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / samples)


def test_iid_is_uniform_and_does_not_remember() -> None:
    trace = make("iid", sequences=200, prompt_tokens=100, output_tokens=0)
    shares = np.bincount(trace.experts.ravel(), minlength=7) / trace.tokens
    assert all(within(share, 1 / 7, trace.tokens) for share in shares)
    assert within(persistence(trace), 1 / 7, trace.tokens)


@pytest.mark.parametrize("p", [0.0, 0.25, READ_ME_PERSISTENCE, 1.0])
@pytest.mark.parametrize("k", [1, 2])
def test_sticky_persists_with_exactly_that_probability(p: float, k: int) -> None:
    trace = make("sticky", sequences=200, persistence=p, k=k)
    if p in (0.0, 1.0):
        assert persistence(trace) == p
    assert p in (0.0, 1.0) or within(persistence(trace), p, 200 * 255)
    shares = np.bincount(trace.experts.ravel(), minlength=7) / trace.experts.size
    assert max(abs(shares - 1 / 7)) < 0.05


def test_zipf_shares_follow_the_law() -> None:
    trace = make("zipf", alpha=1.0, sequences=400, experts=5)
    shares = np.sort(np.bincount(trace.experts.ravel(), minlength=5))[::-1] / trace.tokens
    law = (1 / np.arange(1, 6)) / (1 / np.arange(1, 6)).sum()
    assert all(within(share, expected, trace.tokens) for share, expected in zip(shares, law, strict=True))


def test_layers_of_a_layerwise_router_decide_for_themselves() -> None:
    trace = make("sticky", router="layerwise", sequences=100)
    assert trace.experts.shape == (100 * 256, 3, 1)
    same = (trace.experts[:, 0] == trace.experts[:, 1]).mean()
    assert same == pytest.approx(1 / 7, abs=0.02)
    hottest = {
        int(np.bincount(layer).argmax()) for layer in make("zipf", router="layerwise", layers=16).experts[..., 0].T
    }
    assert len(hottest) > 1


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["iid", "sticky", "zipf"]), st.integers(1, 6), st.integers(1, 6), st.integers(0, 5))
def test_experts_of_a_token_are_distinct_and_weigh_one(kind: str, experts: int, k: int, output: int) -> None:
    k = min(k, experts)
    size = {"sequences": 3, "prompt_tokens": 4, "output_tokens": output}
    trace = make(kind, experts=experts, k=k, persistence=1.0 if k == experts else 0.5, **size)
    chosen = sets(trace)
    assert (chosen >= 0).all() and (chosen < experts).all()
    assert (np.diff(chosen, axis=-1) > 0).all()
    assert trace.weights.astype(float).sum(axis=-1) == pytest.approx(1, abs=0.01)
    assert (trace.output_tokens == output).all()


def test_equal_seeds_are_equal_and_others_differ() -> None:
    assert (make("sticky").experts == make("sticky").experts).all()
    assert (make("sticky").experts != make("sticky", seed=2).experts).any()


def test_it_says_that_it_is_synthetic_and_survives_a_file(tmp_path: Path) -> None:
    trace = make("sticky", k=2, router="layerwise", sequences=3)
    write_routing(tmp_path / "t.parquet", trace)
    again = read_routing(tmp_path / "t.parquet")
    assert again.meta.label == "synthetic"
    assert again.meta.model == "synthetic sticky"
    assert "persistence=0.713" in again.meta.command and "alpha" not in again.meta.command
    assert (again.experts == trace.experts).all()


def test_every_wrong_argument_is_named() -> None:
    with pytest.raises(InputError) as caught:
        make("stiky", experts=2, k=3, sequences=0, persistence=1.5, alpha=float("nan"))
    text = str(caught.value)
    for part in ("did you mean 'sticky'", "k is 3", "sequences is 0", "persistence is 1.5", "alpha is nan"):
        assert part in text
    with pytest.raises(InputError, match="there are no other experts"):
        make("sticky", experts=2, k=2, persistence=0.5)


# ---- predictions


def ahead(**changes: Any) -> RoutingTrace:
    return make("zipf", **{"router": "layerwise", "layers": 4, "experts": 9, "k": 2, "sequences": 30} | changes)


def found(trace: RoutingTrace, distance: int, places: int) -> float:
    """Share of the experts of later layers that are among the first predicted ones."""
    truth, named = trace.experts[:, distance:], trace.predicted[distance][:, :-distance, :places]
    return float((truth[..., :, None] == named[..., None, :]).any(axis=-1).mean())


@pytest.mark.parametrize("recall", [(0.0,), (0.8, 0.5, 0.25), (1.0, 1.0)])
def test_predictions_find_as_many_as_they_were_told_to(recall: tuple[float, ...]) -> None:
    trace = ahead(recall=recall)
    assert set(trace.predicted) == set(range(1, len(recall) + 1))
    for distance, expected in enumerate(recall, 1):
        samples = trace.tokens * (4 - distance) * 2
        first, all_four = found(trace, distance, 2), found(trace, distance, 4)
        if expected in (0, 1):
            assert first == expected
        else:
            assert within(first, expected, samples)
        # Two more places find one of seven others each.
        assert all_four == 1 if expected == 1 else within(all_four, expected + (1 - expected) * 2 / 7, samples)


def test_the_first_predictions_stand_in_no_order() -> None:
    """With a recall of one half, the first place is right as often as the second."""
    trace = ahead(recall=(0.5,))
    right = [(trace.experts[:, 1:] == trace.predicted[1][:, :-1, at : at + 1]).any(axis=-1).mean() for at in (0, 1)]
    samples = trace.tokens * 3
    assert all(within(share, 0.5, samples) for share in right)


def test_predictions_change_no_route_and_survive_a_file(tmp_path: Path) -> None:
    plain, trace = ahead(), ahead(recall=(0.9, 0.8))
    assert (plain.experts == trace.experts).all()
    assert (trace.predicted[2][:, 2:] == -1).all() and (trace.predicted[2][:, :2] >= 0).all()
    write_routing(tmp_path / "t.parquet", trace)
    again = read_routing(tmp_path / "t.parquet")
    assert (again.meta.p, ahead(recall=(0.9,), predicted=3).meta.p, plain.meta.p) == (4, 3, 0)
    assert all((again.predicted[d] == trace.predicted[d]).all() for d in (1, 2))
    assert "recall=(0.9, 0.8)" in again.meta.command and "recall" not in plain.meta.command
    assert "predictions are drawn around the routes" in again.meta.notes


def test_a_prediction_reaches_no_farther_than_the_last_layer() -> None:
    trace = ahead(layers=1, recall=(0.9,))
    assert (trace.predicted[1] == -1).all()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"router": "decoupled", "recall": (1.0,)}, "recall needs router: layerwise"),
        ({"recall": (0.5, 1.5)}, r"recall is \[0.5, 1.5\]; it must be one to three probabilities"),
        ({"recall": (1.0,) * 4}, "it must be one to three"),
        ({"recall": (1.0,), "predicted": 1}, r"predicted is 1; it must be k \(2\) to all experts \(9\)"),
        ({"predicted": 3}, "predicted needs recall"),
        ({"recall": (0.9,), "k": 5}, r"recall below 1 needs k \(5\) wrong experts"),
    ],
)
def test_predictions_that_cannot_be_drawn(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        ahead(**changes)
