from __future__ import annotations

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int) -> Drive:
    return Drive(find("cache", "lru")(), slots)  # type: ignore[arg-type]


def test_the_key_used_longest_ago_leaves() -> None:
    # 0, 1, then 0 again: 2 pushes out 1; 0 again: 3 pushes out 2.
    assert pushed_out(drive(2), 0, 1, 0, 2, 0, 3) == [1, 2]


def test_keys_of_one_event_rank_by_their_order() -> None:
    # The event 2, 0, 1 leaves 2 the least recent although all were used at once.
    assert pushed_out(drive(3), [2, 0, 1], 3, 4, 5) == [2, 0, 1]


def test_a_prefetch_counts_as_a_use_when_it_is_inserted() -> None:
    lru = drive(2)
    lru.use(0)
    lru.prefetch(1)
    assert lru.use(2) == [0]
    lru.use(1)
    assert lru.prefetch(3) == [2]


def test_the_use_of_a_prefetched_key_counts_as_well() -> None:
    lru = drive(2)
    lru.prefetch(1)
    assert pushed_out(lru, 0, 1, 2) == [0]
