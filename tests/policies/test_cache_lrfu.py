from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int, **params: Any) -> Drive:
    return Drive(find("cache", "lrfu")(**params), slots)  # type: ignore[arg-type]


def test_recency_and_frequency_weigh_together() -> None:
    # decay 1/2. Key 0 is used at 1 and 2: 1 + 0.707 = 1.707. Key 1 at 3. At 4 they weigh 0.854 and 0.707: 1 leaves.
    # At 5 they weigh 0.604 and (key 2) 0.707: 0 leaves. LRU would push out 0, then 1; LFU 1, then 2.
    assert pushed_out(drive(2, decay=0.5), 0, 0, 1, 2, 3) == [1, 0]


EVENTS = st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=3, unique=True), max_size=40)


@pytest.mark.parametrize(("decay", "same"), [(1, "lru"), (0, "lfu-in-cache")])
@settings(derandomize=True, deadline=None)
@given(EVENTS)
def test_the_ends_are_lru_and_lfu(decay: float, same: str, events: list[list[int]]) -> None:
    other = Drive(find("cache", same)(), 3)  # type: ignore[arg-type]
    assert pushed_out(drive(3, decay=decay), *events) == pushed_out(other, *events)


@pytest.mark.parametrize("decay", [-0.1, 1.5, "fast", True])
def test_decay_is_a_number_from_0_to_1(decay: Any) -> None:
    with pytest.raises(ValueError, match="must be a number from 0"):
        find("cache", "lrfu")(decay=decay)  # type: ignore[call-arg]
