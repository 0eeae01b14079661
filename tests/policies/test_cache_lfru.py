from __future__ import annotations

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int) -> Drive:
    return Drive(find("cache", "lfru")(), slots)  # type: ignore[arg-type]


def test_uses_for_age() -> None:
    # Uses / age, when 2 comes: 0 has 3/3, 1 has 1/2 and leaves. 3: 0 has 3/4, 2 has 1/2 and leaves. 4: 3/5 and 1/2, 3
    # leaves. 5: 3/6 and 1/2, and of equals 0 is older. LFU would never push out 0.
    assert pushed_out(drive(2), 0, 0, 0, 1, 2, 3, 4, 5) == [1, 2, 3, 0]


def test_a_prefetch_counts_as_the_use_it_was_for() -> None:
    lfru = drive(2)
    lfru.prefetch(5)
    assert pushed_out(lfru, 0, 5, 1) == [0]
