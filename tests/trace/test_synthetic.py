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
