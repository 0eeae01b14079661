from __future__ import annotations

from typing import Any

import pytest

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int, **params: Any) -> Drive:
    """Three layers of two keys: 0 and 1, 2 and 3, 4 and 5."""
    return Drive(find("cache", "shallow-pinned")(**params), slots, range(6), layers=3)  # type: ignore[arg-type]


def test_shallow_keys_stay_and_deep_layers_keep_to_their_share() -> None:
    # Four slots, two for layer 0, one for each of the others. LRU would push out 0 for 3.
    assert pushed_out(drive(4, layers=1), 0, 2, 4, 1, 3, 5, 0, 2) == [2, 4, 3]


def test_the_layer_most_beyond_its_share_gives() -> None:
    fate = drive(4, layers=1)
    # Layer 1 has two keys, as layer 0 has not come yet with 1: 1 pushes out 2, the older of them.
    assert pushed_out(fate, 0, [2, 3], 4, 1) == [2]


def test_shallow_keys_leave_if_nothing_else_may() -> None:
    fate = drive(2, layers=1)
    # No deep layer has a share. 1 pushes out 2. The event needs 2 and 3, and neither may go: 0, then 1 leave.
    assert pushed_out(fate, 0, 2, 1, [2, 3]) == [2, 0, 1]


def test_deep_layers_are_under_arc() -> None:
    # Without shallow layers, one layer deep: what ARC does (its own test has the lists).
    arc = Drive(find("cache", "arc")(), 2)  # type: ignore[arg-type]
    same = Drive(find("cache", "shallow-pinned")(layers=0), 2)  # type: ignore[arg-type,call-arg]
    events = (0, 1, 0, 2, 1, 0, 3, 1, 2, 0)
    assert pushed_out(same, *events) == pushed_out(arc, *events)


def test_layers_is_a_whole_number() -> None:
    with pytest.raises(ValueError, match="layers -1 must be"):
        drive(2, layers=-1)
