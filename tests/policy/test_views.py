"""A level's view shows what the level may know and nothing of the levels above it."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.check.toy import trace
from moesim.policy import FAR, FAR_VIEWS, LEVELS, NEAR_VIEWS, PredictedView, Queued, View
from moesim.sim.schedule import routes_of

SHOWN = {
    "history": {"layers", "experts", "keys", "layer_of", "step", "layer", "event", "level"},
    "layer": {"current"},
    "step": {"next_uses", "needed", "upcoming"},
    "queue": set(),
    "oracle": set(),
}
"""what each level adds; `queue` and `oracle` see farther through the same attributes"""


def view(level: str) -> View:
    if level in NEAR_VIEWS:
        return NEAR_VIEWS[level](3, 4)
    return FAR_VIEWS[level](3, 4, np.full(12, FAR))


@pytest.mark.parametrize("level", SHOWN)
def test_each_level_shows_its_attributes_and_those_of_the_levels_below(level: str) -> None:
    below = list(SHOWN)[: list(SHOWN).index(level) + 1]
    shown = {name for name in dir(view(level)) if not name.startswith("__")}
    assert shown == set().union(*(SHOWN[name] for name in below))


def test_levels_are_in_the_order_of_what_they_show() -> None:
    assert [level for level in LEVELS if level in SHOWN] == list(SHOWN)
    assert {*NEAR_VIEWS, *FAR_VIEWS} == set(SHOWN)


def test_the_number_of_a_layer_event() -> None:
    at = view("history")
    at.step, at.layer = 5, 2
    assert at.event == 17
    at.layer = -1
    assert at.event == 14  # before the first layer of step 5, the last event is that of step 4


# ---- predictions

ROWS = ((0, 1, 2), (3, 4, 5))


def predicted(*named: list[int], layer: int = 0) -> PredictedView:
    """Two layers of three experts; what each token of the step is predicted to choose in the second one."""
    found = PredictedView(2, 3, 1, ROWS)
    found.layer, found.named = layer, {1: np.array(named, dtype=np.int16)}
    return found


def test_predictions_are_shown_to_their_level_alone() -> None:
    below = SHOWN["history"] | SHOWN["layer"]
    shown = {name for name in dir(predicted([0])) if not name.startswith("__")}
    assert shown == below | {"k", "named", "predicted"}
    assert not any(hasattr(view(level), "named") for level in SHOWN)


def test_predictions_are_ranked_by_votes_then_place_then_key() -> None:
    # Expert 2 has three votes; 0 and 1 two each, and 1 is once in first place; what names nobody has no vote.
    at = predicted([2, 0], [1, 2], [2, 0], [-1, 1])
    assert at.predicted(1) == [(5, 3), (4, 2), (3, 2)]
    assert at.predicted(1, places=1) == [(5, 2), (4, 1)]
    assert predicted([1, 0], [0, 1]).predicted(1) == [(3, 2), (4, 2)]


def test_no_predictions_where_the_trace_has_none() -> None:
    assert predicted([-1, -1]).predicted(1) == []
    assert predicted([1, 2]).predicted(2) == []


def test_predictions_of_the_most_experts_that_there_can_be() -> None:
    found = PredictedView(2, 32767, 1, (range(32767), range(32767, 65534)))
    found.layer, found.named = 0, {1: np.array([[32766, -1]], dtype=np.int16)}
    assert found.predicted(1) == [(65533, 1)]


# ---- the queue


def queued(position: int, prompt_left: int, *experts: int) -> Queued:
    return Queued(7, position, prompt_left, len(experts), np.array(experts, dtype=np.int16))


def test_a_prompt_shows_the_experts_of_its_tokens() -> None:
    prompt = queued(0, 4, 2, 2, 1, 2)
    assert (prompt.decoding, prompt.known) == (False, 4)
    assert prompt.experts.tolist() == [2, 2, 1, 2]
    assert prompt.span() == (2, 2)


def test_what_has_run_is_gone() -> None:
    prompt = queued(0, 4, 2, 2, 1, 2)
    prompt.skipped = 3
    assert prompt.span() == (2, 2)
    prompt.advance(2)
    assert (prompt.position, prompt.known, prompt.prompt_left, prompt.skipped) == (2, 2, 2, 0)
    assert prompt.experts.tolist() == [1, 2]
    assert prompt.span() == (1, 1)


def test_a_decoding_request_shows_one_token() -> None:
    token = queued(9, 0, 3)
    assert token.decoding
    assert (token.experts.tolist(), token.span()) == ([3], (3, 1))


def test_a_copy_goes_its_own_way() -> None:
    prompt = queued(0, 3, 1, 1, 2)
    prompt.skipped = 5
    twin = prompt.copy()
    assert twin.skipped == 5
    twin.advance(2)
    assert (prompt.position, prompt.known, prompt.experts.tolist(), prompt.span()) == (0, 3, [1, 1, 2], (1, 2))
    assert twin.experts.tolist() == [2]


def test_a_layerwise_router_shows_no_routes_in_the_queue() -> None:
    with pytest.raises(AssertionError, match="layer-wise"):
        _ = Queued(0, 0, 3, 3, None).experts


def test_nothing_that_a_request_holds_reaches_beyond_its_known_tokens() -> None:
    """Neither its attributes, nor the arrays that they are views of: expert n is at position n."""
    made = trace([(list(range(6)), list(range(6, 40)))], experts=40)
    prompt = Queued(0, 0, 6, 6, routes_of(made, 0, 0, 6))
    token = Queued(0, 5, 0, 1, routes_of(made, 0, 5, 1))
    for tokens in (1, 2):
        prompt.advance(tokens)
        for held in (prompt, prompt.copy(), token):
            arrays = [v for name in Queued.__slots__ if isinstance(v := getattr(held, name), np.ndarray)]
            arrays += [held.experts]
            seen = {int(e) for array in arrays for part in (array, array.base) if part is not None for e in part}
            assert seen
            assert seen <= set(range(6))
