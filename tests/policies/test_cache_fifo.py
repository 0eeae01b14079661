from __future__ import annotations

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int) -> Drive:
    return Drive(find("cache", "fifo")(), slots)  # type: ignore[arg-type]


def test_the_oldest_copy_leaves_however_much_it_is_used() -> None:
    # 0 and 1 enter; 0 is used again, which does not help it: 2 pushes out 0, 0 pushes out 1, 3 pushes out 2.
    assert pushed_out(drive(2), 0, 1, 0, 2, 0, 3) == [0, 1, 2]


def test_a_prefetch_enters_in_its_turn() -> None:
    fifo = drive(2)
    fifo.prefetch(5)
    assert pushed_out(fifo, 0, 5, 1, 2) == [5, 0]


def test_an_event_keeps_its_own_keys() -> None:
    # 0 is the oldest, but the event needs it: 1 leaves, then 2.
    assert pushed_out(drive(3), 0, 1, 2, [0, 3], [0, 4]) == [1, 2]
