from __future__ import annotations

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int) -> Drive:
    return Drive(find("cache", "lfu")(), slots)  # type: ignore[arg-type]


def test_the_key_with_fewest_uses_leaves() -> None:
    # 0 twice, 1 once: 2 pushes out 1. LRU would push out 0.
    assert pushed_out(drive(2), 0, 0, 1, 2) == [1]


def test_counts_outlive_eviction_and_equals_go_by_recency() -> None:
    # Uses when 2 enters: 0 twice, 1 once, so 1 leaves. 1 comes back with two uses and pushes out 2 (one use).
    # 2 comes back with two: 0 and 1 have two each, and 0 was used longer ago. Without its old use, 1 would have gone.
    assert pushed_out(drive(2), 0, 0, 1, 2, 1, 2) == [1, 2, 0]


def test_a_prefetch_is_no_use_but_sets_recency() -> None:
    lfu = drive(2)
    lfu.prefetch(0)
    lfu.use(1)
    assert lfu.use(2) == [0]  # no use against one
    lfu.prefetch(3, barred={2})  # 1 leaves, with one use
    assert lfu.resident == {2, 3}
    lfu = drive(2)
    pushed_out(lfu, 0, 1, [2, 3])  # each of 0..3 was used once; 2 and 3 are there
    lfu.prefetch(0, barred={3})  # 0 is back with its one use, and is more recent than 3
    assert lfu.use(4) == [3]


def test_an_old_entry_of_a_key_that_came_back_does_not_stand_for_it() -> None:
    # 0 enters with one use, leaves, comes back and has three: the entry of its first stay must not make it the victim.
    assert pushed_out(drive(2), 0, 1, 1, 2, 0, 0, 3) == [0, 2, 1]
