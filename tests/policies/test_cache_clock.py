from __future__ import annotations

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int) -> Drive:
    return Drive(find("cache", "clock")(), slots)  # type: ignore[arg-type]


def test_used_keys_are_spared_once() -> None:
    # When 3 comes, the hand is at 0, which was used: it goes to the back, its bit cleared, and 1 leaves (2, 0, 3). 2 is
    # used; when 4 comes, it goes to the back and 0 leaves (3, 2, 4). When 5 comes, 3 leaves.
    assert pushed_out(drive(3), 0, 1, 2, 0, 3, 2, 4, 5) == [1, 0, 3]


def test_if_all_were_used_the_hand_comes_round() -> None:
    # 0 and 1 lose their bits, and 0 is met again; then 1, whose bit is cleared, before 2.
    assert pushed_out(drive(2), 0, 1, 0, 1, 2, 3) == [0, 1]


def test_the_hand_passes_over_keys_of_the_event() -> None:
    # 0 was not used again, but the event needs it: 1 leaves. The hand has passed 0, whose new use is spent: 2, 0, 3.
    # Then 2 leaves, then 0.
    assert pushed_out(drive(3), 0, 1, 2, [0, 3], 4, 5) == [1, 2, 0]


def test_a_prefetch_that_is_called_off_does_not_move_the_hand() -> None:
    clock = drive(3)
    pushed_out(clock, 0, 1, 0, 1)
    clock.prefetch(5)
    clock.policy.evicted(5)
    clock.resident.remove(5)
    clock.room += 10
    # 0 and 1 were used and are spared once, 2 was not used again. Had the hand passed 0 and 1 before, 0 would leave.
    assert pushed_out(clock, 2, 3) == [2]
