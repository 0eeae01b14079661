from __future__ import annotations

from typing import Any

import pytest

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int, **params: Any) -> Drive:
    """Two layers of three keys: 0 to 2, 3 to 5."""
    return Drive(find("cache", "finemoe")(**params), slots, range(6), layers=2)  # type: ignore[arg-type]


def test_chance_times_uses_decides() -> None:
    fine = drive(3)
    # The first step uses 0 and 3, the second 1 and 4. It resembles nothing kept: all are worth 1/3, 0 is oldest.
    assert pushed_out(fine, 0, 3, 1, 4) == [0]
    # The third uses 0, as the first: 3 is worth 1, 1 and 4 are worth 1/3 and 1 is older. 3 is used a second time.
    assert pushed_out(fine, 0, 3) == [1]
    # The fourth uses 1, as the second: 4 is worth 1, 3 (two uses) 2/3, 0 1/3: 0 leaves.
    assert pushed_out(fine, 1) == [0]
    # It uses 5: 1 is worth 1, 4 too, 3 2/3.
    assert pushed_out(fine, 5) == [3]


def test_a_prefetch_counts_as_the_use_it_was_for() -> None:
    fine = drive(2)
    fine.prefetch(5)
    pushed_out(fine, 0, 5)
    assert fine.policy.uses.tolist() == [1, 0, 0, 0, 0, 1]  # type: ignore[attr-defined]


def test_maps_is_a_whole_number() -> None:
    with pytest.raises(ValueError, match="maps 0 must be"):
        drive(2, maps=0)
