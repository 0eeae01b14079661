"""Next uses inside and beyond a step, by hand, and the oracle's against a search through the whole schedule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.toy import keys
from moesim.policy import FAR
from moesim.sim.foresight import Foresight, of_schedule, persisting
from moesim.sim.work import LayerWork, Part, Work


def work(*layers: tuple[int, ...], decode: tuple[int, ...] = ()) -> Work:
    """A step whose layers use these experts; one entry serves every layer (decoupled). `decode`: of decode tokens."""
    made = tuple(
        LayerWork(used, (1,) * len(used), tuple(int(e in decode) for e in used), (1,) * len(used)) for used in layers
    )
    return Work((Part(0, 0, 1, True),), made, 1, 0)


def shown(foresight: Foresight) -> list[list[int]]:
    """Next uses by layer; -1 where not shown."""
    return [[-1 if use >= FAR else use for use in row] for row in foresight.grid.tolist()]


def test_within_a_step_of_a_decoupled_router_every_layer_is_seen() -> None:
    # Two layers, three experts; step 5 starts at event 10. Experts 0 and 2 now; nothing known beyond.
    foresight = Foresight(keys(2, 3))
    unseen = np.full(3, foresight.unseen)
    foresight.begin(5, work((2, 0)), unseen)
    assert shown(foresight) == [[10, -1, 10], [11, -1, 11]]
    foresight.enter(0)
    assert shown(foresight) == [[-1, -1, -1], [11, -1, 11]]
    foresight.enter(1)
    assert shown(foresight) == [[-1, -1, -1], [-1, -1, -1]]


def test_beyond_the_step_the_later_ones_stand() -> None:
    # Expert 0 is used next in step 6 (events 12 and 13), expert 1 in step 8 (16 and 17), expert 2 is not shown.
    foresight = Foresight(keys(2, 3))
    foresight.begin(5, work((2, 0)), np.array([6, 8, foresight.unseen]))
    assert shown(foresight) == [[10, 16, 10], [11, 17, 11]]
    foresight.enter(0)
    assert shown(foresight) == [[12, 16, -1], [11, 17, 11]]


def test_a_layerwise_router_has_experts_of_its_own_in_each_layer() -> None:
    foresight = Foresight(keys(2, 3))
    later = np.array([[6, foresight.unseen, 7], [foresight.unseen] * 3])
    foresight.begin(5, work((0,), (1, 2)), later)
    assert shown(foresight) == [[10, -1, 14], [-1, 11, 11]]
    foresight.enter(0)
    assert shown(foresight) == [[12, -1, 14], [-1, 11, 11]]


def test_the_next_step_forgets_the_one_before() -> None:
    foresight = Foresight(keys(2, 3))
    foresight.begin(0, work((0, 1, 2)), np.array([1, 2, 3]))
    foresight.begin(1, work((1,)), np.full(3, foresight.unseen))
    assert shown(foresight) == [[-1, 2, -1], [-1, 3, -1]]


def test_keys_index_next_uses() -> None:
    foresight = Foresight(keys(2, 3))
    foresight.begin(0, work((1,)), np.full(3, foresight.unseen))
    assert foresight.next_uses[1 * 3 + 1] == 1
    assert np.shares_memory(foresight.next_uses, foresight.grid)


@pytest.mark.parametrize("layers", [1, 3, 32, 61])
def test_unseen_is_beyond_far_in_every_layer_and_fits(layers: int) -> None:
    foresight = Foresight(keys(layers, 2))
    foresight.begin(10**6, work(()), np.full(2, foresight.unseen))
    assert int(foresight.grid.min()) >= FAR
    assert int(foresight.grid.max()) < 2**62


def test_persist_expects_the_experts_of_decode_tokens_in_the_next_step() -> None:
    assert persisting(work((0, 2), decode=(2,)), 4, (3,), 99).tolist() == [99, 99, 5]
    layerwise = persisting(work((0, 2), (1,), decode=(1, 2)), 4, (2, 3), 99)
    assert layerwise.tolist() == [[99, 99, 5], [99, 5, 99]]


@st.composite
def schedules(draw: st.DrawFn) -> tuple[list[Work], int, int]:
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rows = draw(st.sampled_from([1, layers]))
    used = st.lists(st.integers(0, experts - 1), unique=True, max_size=experts).map(tuple)
    step = st.lists(used, min_size=rows, max_size=rows)
    return [work(*rows) for rows in draw(st.lists(step, min_size=1, max_size=8))], layers, experts


def search(works: list[Work], event: int, layers: int, key: int, experts: int) -> int:
    """The first layer event after `event` that uses `key`, or -1."""
    layer, expert = divmod(key, experts)
    for later in range(event + 1, len(works) * layers):
        if later % layers == layer and expert in works[later // layers].layer(layer).experts:
            return later
    return -1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(schedules())
def test_the_oracle_of_a_schedule_is_a_search_through_all_of_it(case: tuple[list[Work], int, int]) -> None:
    works, layers, experts = case
    foresight = Foresight(keys(layers, experts))
    later = of_schedule(works, layers, experts, foresight.unseen)
    assert len(later) == len(works)
    for step, of_step in enumerate(works):
        foresight.begin(step, of_step, later[step])
        for layer in range(-1, layers):
            if layer >= 0:
                foresight.enter(layer)
            expected = [search(works, step * layers + layer, layers, key, experts) for key in range(layers * experts)]
            assert [use for row in shown(foresight) for use in row] == expected


def test_an_empty_schedule_has_no_later() -> None:
    assert of_schedule([], 2, 3, 99) == []
