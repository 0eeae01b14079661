from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find

SIZES = (10, 20, 10, 10, *[10] * 12)


def drive(slots: int, sizes: tuple[int, ...] = SIZES, **params: Any) -> Drive:
    return Drive(find("cache", "gdsf")(**params), slots, sizes=sizes)  # type: ignore[arg-type]


def test_large_keys_leave_first_and_age_makes_up_for_uses() -> None:
    # In units of 10 bytes: 0 and 2 are worth 1, 1 is worth 1/2. 3 is worth 1 and pushes out 1: the age is 1/2. 1 is
    # worth 1/2 + 1/2 now and pushes out 0 (1, the oldest of three): age 1. 0 is worth 2 and pushes out 2 (1), 2 is
    # worth 2 and pushes out 3 (1, older than 1), and 3 pushes out 1 (1).
    assert pushed_out(drive(4), 0, 1, 2, 3, 1, 0, 2, 3) == [1, 0, 2, 3, 1]


def test_at_a_cost_that_grows_with_size_size_does_not_matter() -> None:
    assert pushed_out(drive(4, cost="link", fixed_bytes=0), 0, 1, 2, 3) == [0]
    # A fixed cost of 1 byte makes the large key worth a little less for its size.
    assert pushed_out(drive(4, cost="link", fixed_bytes=1), 0, 1, 2, 3) == [1]


def test_a_large_key_may_push_out_several() -> None:
    assert pushed_out(drive(2), 0, 2, 1) == [0, 2]


def textbook(keys: list[int], capacity: int) -> int:
    """Misses of GreedyDual-Frequency, written out."""
    age, worth, uses, last, misses = 0, {}, {}, {}, 0
    for now, key in enumerate(keys):
        if key not in worth:
            misses += 1
            full = len(worth) == capacity
            victim = min(worth, key=lambda k: (worth[k], last[k]), default=key)
            uses[key] = 1
            worth[key] = age + 1
            if full:
                age = worth.pop(victim)
        else:
            uses[key] += 1
            worth[key] = age + uses[key]
        last[key] = now
    return misses


@pytest.mark.parametrize("capacity", [2, 5, 9])
def test_misses_are_the_textbooks(capacity: int) -> None:
    keys = np.random.default_rng(capacity).zipf(1.3, 3000) % 16
    gdsf, misses = Drive(find("cache", "gdsf")(), capacity, range(16)), 0  # type: ignore[arg-type]
    for key in keys.tolist():
        misses += key not in gdsf.resident
        gdsf.use(key)
    assert misses == textbook(keys.tolist(), capacity)


def test_a_prefetch_that_is_called_off_makes_nothing_old() -> None:
    gdsf = drive(2)
    pushed_out(gdsf, 0, 2)
    assert gdsf.policy.age == 0  # type: ignore[attr-defined]
    gdsf = drive(3)
    pushed_out(gdsf, 0, 0, 2, 2)
    gdsf.prefetch(3)
    assert gdsf.policy.ranking.rank[3][0] == 1  # type: ignore[attr-defined]
    gdsf.policy.evicted(3)
    assert gdsf.policy.age <= 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(("params", "text"), [({"cost": "time"}, "must be one or link"), ({"fixed_bytes": -1}, "0 or")])
def test_parameters(params: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        find("cache", "gdsf")(**params)
