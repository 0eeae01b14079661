from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int, **params: Any) -> Drive:
    """Three layers of four keys: 0 to 3, 4 to 7, 8 to 11."""
    return Drive(find("cache", "layer-aware-lru")(**params), slots, range(12), layers=3)  # type: ignore[arg-type]


def test_missed_passes_then_the_layer_that_comes_last() -> None:
    look = drive(2)
    # Step 1 uses 0 (layer 0, event 3) and 8 (layer 2, event 5). Event 6, layer 0, uses 1: 0 is 3 events old and 3 from
    # its layer's next turn, 8 is 1 old and 2 from it: 0 leaves.
    assert pushed_out(look, 0, 8, 1) == [0]
    # Event 7, layer 1, uses 4: 8 is 2 old and 1 ahead, 1 is 1 old and 2 ahead. Neither missed a pass: the layer that
    # comes last is 1's. LRU would push out 8, just before its layer.
    assert pushed_out(look, 4) == [1]
    # 8 is used again. Event 9, layer 0: 8 is 1 old and 2 ahead, 4 is 2 old and 1 ahead: 8 leaves. Event 10, layer 1,
    # uses 5: 4 is 3 old and 3 ahead, 0 is 1 old and 2 ahead: 4 leaves.
    assert pushed_out(look, 8, 0, 5) == [8, 4]


def test_the_farthest_layer_first() -> None:
    look = drive(3, distance=1.0)
    # At layer 1, in the second step: 0 is 2 from its layer's turn, 4 is 3 from it, 8 is 1 from it.
    assert pushed_out(look, 0, 4, 8, 0, 5) == [4]


STEPS = st.lists(st.lists(st.integers(0, 3), min_size=3, max_size=3), max_size=20)


@settings(derandomize=True, deadline=None)
@given(STEPS, st.lists(st.integers(0, 11), max_size=5))
def test_at_distance_0_it_is_lru(steps: list[list[int]], prefetches: list[int]) -> None:
    events = [[4 * layer + expert for layer, expert in enumerate(step)] for step in steps]
    ours, lru = drive(4, distance=0.0), Drive(find("cache", "lru")(), 4, range(12), layers=3)  # type: ignore[arg-type]
    for number, step in enumerate(events):
        assert pushed_out(ours, *step) == pushed_out(lru, *step)
        if number < len(prefetches) and prefetches[number] not in lru.resident:
            assert ours.prefetch(prefetches[number]) == lru.prefetch(prefetches[number])


@pytest.mark.parametrize("distance", [-1, 2, "far", None])
def test_distance_is_a_number_from_0_to_1(distance: Any) -> None:
    with pytest.raises(ValueError, match="must be a number from 0"):
        drive(2, distance=distance)
