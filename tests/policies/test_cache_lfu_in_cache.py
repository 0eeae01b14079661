from __future__ import annotations

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int) -> Drive:
    return Drive(find("cache", "lfu-in-cache")(), slots)  # type: ignore[arg-type]


def test_counts_are_forgotten_at_eviction() -> None:
    # 1 (one use) leaves for 2, comes back with one use and pushes out 2, and leaves for 2 again. Had 1 kept its old
    # use, as in `lfu`, 0 would have left at last.
    assert pushed_out(drive(2), 0, 0, 1, 2, 1, 2) == [1, 2, 1]


def test_of_equals_the_first_to_reach_the_count_leaves() -> None:
    # One use each but for 1: 0 leaves, then 2, which came before 3.
    assert pushed_out(drive(3), 0, 1, 2, 1, 3, 4, 5) == [0, 2, 3]


def test_a_hit_of_an_event_ranks_with_its_misses() -> None:
    # The event uses 3 before 0; both have one use more than before, 3 one and 0 two.
    assert pushed_out(drive(3), 0, 1, 2, [3, 0], 4, 5) == [1, 2, 3]


def test_a_prefetch_counts_as_the_use_it_was_for() -> None:
    lfu = drive(2)
    lfu.prefetch(5)
    assert pushed_out(lfu, 0, 1) == [5]  # one use each
    lfu = drive(2)
    lfu.prefetch(5)
    assert pushed_out(lfu, 0, 5, 1) == [0]  # one use each still, 5 the more recent
