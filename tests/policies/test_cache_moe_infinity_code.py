from __future__ import annotations

from typing import Any

import pytest

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int, **params: Any) -> Drive:
    """Two layers of four keys: 0 to 3, 4 to 7."""
    return Drive(find("cache", "moe-infinity-code")(**params), slots, range(8), layers=2)  # type: ignore[arg-type]


def test_fewest_visits_then_the_lowest_expert() -> None:
    # 3 is expert 3 of layer 0, 4 expert 0 of layer 1; both were visited once: 4 leaves for 1. For 5 the lower expert of
    # 3 and 1 leaves, 1. It comes back with two visits: 5 leaves, being expert 1. For 0, 3 leaves: one visit against
    # two.
    assert pushed_out(drive(2), 3, 4, 1, 5, 1, 0) == [4, 1, 5, 3]


def test_counts_can_be_cleared() -> None:
    # 0 was visited three times, 1 once: 1 leaves. Counts being cleared in the fourth step, 0 leaves.
    assert pushed_out(drive(2), 0, 0, 0, 1, 2) == [1]
    assert pushed_out(drive(2, clear=4), 0, 0, 0, 1, 2) == [0]


def test_clear_is_a_number_of_steps() -> None:
    with pytest.raises(ValueError, match="clear 0 must be"):
        drive(2, clear=0)
