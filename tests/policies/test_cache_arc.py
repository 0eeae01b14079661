from __future__ import annotations

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int) -> Drive:
    return Drive(find("cache", "arc")(), slots)  # type: ignore[arg-type]


def test_the_two_lists_and_their_ghosts() -> None:
    # T1 = keys used once, T2 = more often, the oldest first; B1 and B2 their ghosts; p = T1's share.
    # 0, 1, 0: T1 = 1, T2 = 0. 2: p = 0 < |T1|, so 1 leaves: T1 = 2, B1 = 1.
    # 1 is in B1: p = 1. |T1| = p, so 0 leaves from T2: T1 = 2, T2 = 1, B2 = 0.
    # 0 is in B2: p = 0. |T1| > p, so 2 leaves: T2 = 1 0, B1 = 2.
    # 3 is new, T1 is empty: 1 leaves.
    assert pushed_out(drive(2), 0, 1, 0, 2, 1, 0, 3) == [1, 0, 2, 1]


def test_an_equal_share_goes_by_the_ghost_list_of_the_coming_key() -> None:
    # As above up to T1 = 2, T2 = 1, B2 = 0, p = 1. A new key 3 finds |T1| = p, so 1 leaves from T2: T1 = 2 3, B2 = 0 1.
    assert pushed_out(drive(2), 0, 1, 0, 2, 1, 3) == [1, 0, 1]


def test_a_prefetch_adapts_nothing_and_its_first_use_is_a_first_use() -> None:
    arc = drive(2)
    arc.prefetch(5)
    pushed_out(arc, 5, 0)
    assert list(arc.policy.once) == [5, 0]  # type: ignore[attr-defined]
    arc.use(5)
    assert list(arc.policy.often) == [5]  # type: ignore[attr-defined]


def test_a_prefetch_that_is_called_off_is_no_ghost() -> None:
    arc = drive(2)
    arc.prefetch(5)
    arc.policy.evicted(5)
    assert not arc.policy.left_once  # type: ignore[attr-defined]
    arc.resident.remove(5)
    arc.room += 10
    arc.use(5)
    assert list(arc.policy.once) == [5]  # type: ignore[attr-defined]
