"""Plans of the prefetchers by hand, and what every one of them must do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.check.drive import Variant, label, variants
from moesim.policy import FAR, PrefetchPolicy, StepView, find

LAYERS, EXPERTS = 4, 3
STEP = ((1,), (5, 3), (6, 8, 7), (10,))
"""ranked keys of the four layers of a step"""


def plans(name: str, **params: Any) -> list[list[int]]:
    """What the policy plans at step start (layer -1) and in each layer of `STEP`."""
    made = find("prefetch", name)(**params)
    assert isinstance(made, PrefetchPolicy)
    view = StepView(LAYERS, EXPERTS, np.full(LAYERS * EXPERTS, FAR))
    view.upcoming = STEP
    made.start(view)
    found = []
    for view.layer in range(-1, LAYERS):
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


@pytest.mark.parametrize("variant", variants("prefetch"), ids=label)
def test_every_prefetcher_names_keys_of_later_layers_once_and_the_same_when_asked_again(variant: Variant) -> None:
    name, params = variant
    found = plans(name, **params)
    assert found == plans(name, **params)
    for layer, keys in enumerate(found, -1):
        assert len(set(keys)) == len(keys)
        assert all(layer < key // EXPERTS < LAYERS for key in keys)
