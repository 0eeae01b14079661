from __future__ import annotations

from typing import Any

import pytest

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int, **params: Any) -> Drive:
    return Drive(find("cache", "s3-fifo")(**params), slots, range(20))  # type: ignore[arg-type]


def test_small_main_and_ghosts() -> None:
    # 10 slots: 1 small, 9 main. 0 fills the small queue, 1 to 9 the main one (until something is evicted).
    s3 = drive(10)
    assert pushed_out(s3, *range(10)) == []
    # 10 pushes out 0, which is remembered. 0 comes back, pushes out 10 and enters the main queue: 1 ... 9, 0. That is
    # one too many, so 11 pushes out 1. 11 is used twice.
    assert pushed_out(s3, 10, 0, 11, 11, 11) == [0, 10, 1]
    # 12 moves 11 to the main queue, one too many again: 2 leaves. 13 pushes out 12.
    assert pushed_out(s3, 12, 13) == [2, 12]
    # 3 is used. 12 comes back and pushes out 13; the main queue is one too long. 14 spares 3 and pushes out 4.
    assert pushed_out(s3, 3, 12, 14) == [13, 4]
    # The main queue is 5 ... 9, 0, 11, 12, 3: 3 went to the back. 15 pushes out 14.
    assert list(s3.policy.main) == [5, 6, 7, 8, 9, 0, 11, 12, 3]  # type: ignore[attr-defined]
    assert pushed_out(s3, 15) == [14]


def test_barred_keys_of_the_small_queue_stay_where_they_are() -> None:
    # 20 slots: 2 small. 0 and 1 are in the small queue, 2 to 19 in the main one. The event needs 0, so 1 leaves for 20.
    s3 = Drive(find("cache", "s3-fifo")(), 20, range(24))  # type: ignore[arg-type]
    assert pushed_out(s3, *range(20), [0, 20], 21) == [1, 0]


def test_a_prefetch_that_is_called_off_is_no_ghost() -> None:
    s3 = drive(10)
    s3.prefetch(5)
    s3.policy.evicted(5)
    assert not s3.policy.ghosts  # type: ignore[attr-defined]
    assert not s3.policy.has_evicted  # type: ignore[attr-defined]


@pytest.mark.parametrize("params", [{"small": 0}, {"small": 1}, {"ghosts": -1}, {"moves_at": 0}, {"moves_at": 1.5}])
def test_parameters(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be a"):
        drive(10, **params)
