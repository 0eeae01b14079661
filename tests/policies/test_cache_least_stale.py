from __future__ import annotations

from typing import Any

import pytest

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int, **params: Any) -> Drive:
    """Three layers of four keys: 0 to 3, 4 to 7, 8 to 11."""
    return Drive(find("cache", "least-stale")(**params), slots, range(12), layers=3)  # type: ignore[arg-type]


def test_stale_keys_leave_layer_by_layer() -> None:
    stale = drive(3)
    # The second pass touches 1: 0, 4 and 8 are stale, and layer 0 comes first. It touches 5: 4 and 8 are stale, 4
    # leaves.
    assert pushed_out(stale, 0, 4, 8, 1, 5) == [0, 4]
    # It touches 8; the third touches 1, so that 5 is stale, 8 too: for 6 the key of layer 1 leaves.
    assert pushed_out(stale, 8, 1, 6) == [5]
    # For 9, stale 8 leaves. For 10 nothing stale is left: of 1 and 6 the first layer's leaves.
    assert pushed_out(stale, [9, 10]) == [8, 1]


def test_or_the_layer_that_comes_last() -> None:
    # As above; at layer 2, layer 1 comes after layer 0.
    assert pushed_out(drive(3, order="farthest"), 0, 4, 8, 1, 5, 8, 1, 6, [9, 10]) == [0, 4, 5, 8, 6]


def test_a_prefetch_for_a_layer_that_is_over_is_of_the_next_pass() -> None:
    stale = drive(3)
    pushed_out(stale, 1, 4)
    stale.prefetch(2)  # in pass 1, at layer 1, for layer 0
    # In pass 2, which begins at layer 1 here, 1 and 4 are stale, but 2 is not.
    assert pushed_out(stale, 5, 8) == [1, 4]


def test_order_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="must be first or farthest"):
        drive(2, order="last")
