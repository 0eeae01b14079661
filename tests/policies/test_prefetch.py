"""Plans of the prefetchers by hand, and what every one of them must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.check import prefetch as contract
from moesim.check.drive import Variant, label, variants
from moesim.policy import FAR, PredictedView, PrefetchPolicy, StepView, find

LAYERS, EXPERTS = 4, 3
STEP = ((1,), (5, 3), (6, 8, 7), (10,))
"""ranked keys of the four layers of a step"""
NAMED: tuple[dict[int, list[list[int]]], ...] = (
    {1: [[2, 0], [2, 1]], 2: [[0, 1], [1, 0]], 3: [[1, 2], [1, 2]]},
    {1: [[1, 0], [0, -1]], 2: [[2, 1], [0, 2]]},
    {1: [[0, 1], [2, 0]]},
    {},
)
"""by layer: what its gate predicts of two tokens, likeliest first, by distance"""


def predicting(layer: int) -> PredictedView:
    """One expert a token."""
    view = PredictedView(LAYERS, EXPERTS, 1)
    show(view, layer)
    return view


def show(view: PredictedView, layer: int) -> None:
    """The view moves on to a layer of `STEP`; -1: to its start."""
    view.layer, view.current = layer, STEP[layer] if layer >= 0 else ()
    view.named = {d: np.array(ids, dtype=np.int16) for d, ids in (NAMED[layer] if layer >= 0 else {}).items()}


def plans(name: str, **params: Any) -> list[list[int]]:
    """What the policy plans at step start (layer -1) and in each layer of `STEP`."""
    made = find("prefetch", name)(**params)
    assert isinstance(made, PrefetchPolicy)
    far = StepView(LAYERS, EXPERTS, np.full(LAYERS * EXPERTS, FAR))
    far.upcoming = STEP
    view = predicting(-1) if made.level == "predicted" else far
    made.start(view)
    found = []
    for layer in range(-1, LAYERS):
        view.layer = layer
        if isinstance(view, PredictedView):
            show(view, layer)
        found.append(list(made.plan()))
    return found


def test_none_plans_nothing() -> None:
    assert plans("none") == [[]] * 5


def test_next_layer_plans_the_layer_after_the_present_one() -> None:
    assert plans("next-layer") == [[1], [5, 3], [6, 8, 7], [10], []]


def test_step_ahead_plans_the_rest_of_the_step_nearest_first() -> None:
    assert plans("step-ahead") == [[1, 5, 3, 6, 8, 7, 10], [5, 3, 6, 8, 7, 10], [6, 8, 7, 10], [10], []]


def test_step_ahead_reaches_as_many_layers_as_it_is_told() -> None:
    assert plans("step-ahead", layers=2) == [[1, 5, 3], [5, 3, 6, 8, 7], [6, 8, 7, 10], [10], []]
    assert plans("step-ahead", layers=1) == plans("next-layer")
    assert plans("step-ahead", layers=9) == plans("step-ahead")


def test_step_ahead_refuses_less_than_a_layer() -> None:
    with pytest.raises(ValueError, match="layers 0 must be null"):
        find("prefetch", "step-ahead")(layers=0)


def test_speculative_plans_what_most_tokens_are_predicted_to_need() -> None:
    """At the first gate two tokens name expert 2 of layer 1: key 5. At the second one each names expert 1 and 0 of
    layer 2; votes and places are equal, so the lower key goes first."""
    assert plans("speculative") == [[], [5], [6, 7], [9, 11], []]


def test_speculative_takes_more_than_a_token_uses_and_goes_farther() -> None:
    # Layer 0, two places: expert 2 has two votes; 0 and 1 one each, in second place. Layer 1: expert 0 has two, 1 one.
    assert plans("speculative", width=1)[1:4] == [[5, 3, 4], [6, 7], [9, 11, 10]]
    assert plans("speculative", width=9) == plans("speculative", width=1)
    assert plans("speculative", distance=2)[1:4] == [[5, 6, 7], [6, 7, 9, 11], [9, 11]]
    assert plans("speculative", distance=3)[1] == [5, 6, 7, 10]


def test_speculative_gives_up_what_the_gate_did_not_choose() -> None:
    made = find("prefetch", "speculative")(distance=2)
    assert isinstance(made, PrefetchPolicy)
    view = predicting(0)
    made.start(view)
    assert made.plan() == [5, 6, 7]
    assert made.cancel([5, 6, 7]) == []
    view.layer, view.named = 1, {}  # the gate of layer 1 chose 5 not: it would have been demanded, and is no prefetch
    assert made.cancel([5, 6, 7]) == [5]
    view.step, view.layer = 1, -1
    assert made.cancel([5, 6, 7]) == [5, 6, 7]
    keeping = find("prefetch", "speculative")(cancel=False)
    assert isinstance(keeping, PrefetchPolicy)
    assert keeping.cancel([5]) == ()


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"distance": 4}, "distance 4 must be 1, 2 or 3"),
        ({"width": -1}, "width -1 must be 0 or more"),
        ({"latency_ns": 0.5}, "latency_ns 0.5 must be a whole number"),
    ],
)
def test_speculative_refuses(params: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        find("prefetch", "speculative")(**params)


@pytest.mark.parametrize("variant", variants("prefetch"), ids=label)
def test_every_prefetcher_names_keys_of_later_layers_once_and_the_same_when_asked_again(variant: Variant) -> None:
    name, params = variant
    found = plans(name, **params)
    assert found == plans(name, **params)
    for layer, keys in enumerate(found, -1):
        assert len(set(keys)) == len(keys)
        assert all(layer < key // EXPERTS < LAYERS for key in keys)


@pytest.mark.parametrize("variant", variants("prefetch"), ids=label)
def test_every_prefetcher_keeps_the_contract_in_a_server_where_it_plans_something(variant: Variant) -> None:
    name, params = variant
    made = find("prefetch", name)(**params)
    router = "layerwise" if made.level == "predicted" else "decoupled"
    spec = {"name": name, **params}
    found = contract.plans(spec, router) + contract.plans(spec, router, memory=contract.SMALL)
    learns_too_late = variant == ("moe-infinity", {"window": 32})  # no server here runs for 32 steps
    assert (found > 0) == (name != "none" and not learns_too_late)
