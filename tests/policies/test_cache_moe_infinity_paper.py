from __future__ import annotations

from typing import Any

import pytest

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int, **params: Any) -> Drive:
    """Two layers of three keys: 0 to 2, 3 to 5."""
    return Drive(find("cache", "moe-infinity-paper")(**params), slots, range(6), layers=2)  # type: ignore[arg-type]


def test_the_matched_matrix_decides() -> None:
    moe = drive(3, window=1)
    # The first step uses 0 and 3, the second 1 and 4. It resembles nothing kept: all keys are worth epsilon, in layer 1
    # half of that, so 3 leaves for 4.
    assert pushed_out(moe, 0, 3, 1, 4) == [3]
    # The third step uses 0: the first matrix, with 0 and 3. 1 is worth epsilon, 4 half of that: 4 leaves for 3.
    assert pushed_out(moe, 0, 3) == [4]
    # The fourth uses 1, as the second: 1 is worth 1, 0 epsilon, 3 half of that: 3 leaves for 5.
    assert pushed_out(moe, 1, 5) == [3]


def test_shares_of_a_row_count() -> None:
    moe = drive(3, window=3)
    # Three steps make one matrix: 0 in two of three (2/3), 1 in one (1/3), 3 in all: 1/2, as layer 1 weighs half.
    pushed_out(moe, 0, 3, 0, 3, 1, 3)
    assert pushed_out(moe, 0, 5) == [1]
    assert pushed_out(moe, 0, 4) == [5]
    assert pushed_out(moe, [0, 2]) == [4]
    assert pushed_out(moe, 5) == [2]


def test_parameters() -> None:
    for params in ({"maps": 0}, {"window": 0.5}):
        with pytest.raises(ValueError, match="must be a whole number"):
            drive(2, **params)
