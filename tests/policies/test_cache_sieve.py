from __future__ import annotations

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int) -> Drive:
    return Drive(find("cache", "sieve")(), slots)  # type: ignore[arg-type]


def test_spared_keys_stay_where_they_are() -> None:
    # When 3 comes, the hand spares 0 and stops at 1, which leaves: 0 | 2 3. When 4 comes 2 leaves: 0 | 3 4. 3 is used
    # and spared when 5 comes, 4 leaves, and the hand is past the young end, so at 0 again: | 0 3 5. When 6 comes 0
    # leaves.
    assert pushed_out(drive(3), 0, 1, 2, 0, 3, 4, 3, 5, 6) == [1, 2, 4, 0]


def test_if_all_were_used_the_hand_comes_round() -> None:
    # 0 and 1 lose their bits and 0 leaves: | 1. 2 enters: | 1 2. 1 leaves.
    assert pushed_out(drive(2), 0, 1, 0, 1, 2, 3) == [0, 1]


def test_the_hand_passes_over_keys_of_the_event() -> None:
    # The event needs 0, which the hand passes: 1 leaves, 0 | 2 3. Then 2 leaves, then 3: 0 is behind the hand.
    assert pushed_out(drive(3), 0, 1, 2, [0, 3], 4, 5) == [1, 2, 3]


def test_a_prefetch_that_is_called_off_does_not_move_the_hand() -> None:
    sieve = drive(3)
    pushed_out(sieve, 0, 1, 0, 1)
    sieve.prefetch(5)
    sieve.policy.evicted(5)
    sieve.resident.remove(5)
    sieve.room += 10
    # 0 and 1 were used and are spared once, 2 was not used again. Had the hand passed 0 and 1 before, 0 would leave.
    assert pushed_out(sieve, 2, 3) == [2]
