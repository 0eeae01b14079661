from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.drive import Drive, pushed_out
from moesim.policy import FAR, find


def drive(slots: int, **params: Any) -> Drive:
    return Drive(find("cache", "min")(**params), slots)  # type: ignore[arg-type]


def test_the_farthest_leaves() -> None:
    belady = drive(3)
    belady.use(0, 1, 2)
    belady.next_uses(k0=9, k1=30, k2=12, k3=13)
    assert belady.use(3) == [1]
    belady.next_uses(k0=9, k2=12, k3=13, k4=10)
    assert belady.use(4) == [3]


def test_a_key_used_later_than_all_that_may_go_is_kept_out() -> None:
    belady = drive(2)
    belady.use(0)
    assert belady.policy.admit(5, False)  # there is room
    belady.use(1)
    belady.next_uses(k0=9, k1=30, k2=30, k3=29)
    for key, admitted in ((2, False), (3, True), (5, False)):
        belady.policy.used((key,))
        assert belady.policy.admit(key, False) == admitted
    without = drive(2, bypass=False)
    pushed_out(without, 0, 1)
    assert without.policy.admit(5, False)


def test_keys_of_the_event_count_only_if_there_are_no_others() -> None:
    belady = drive(2)
    pushed_out(belady, 0, 1)
    belady.next_uses(k0=9, k1=30, k2=20)
    belady.view.step += 1
    belady.policy.used((1, 2))
    assert not belady.policy.admit(2, False)  # 1 is farther, but 0 would have to go
    belady.next_uses(k0=9, k1=30, k2=8)
    assert belady.policy.admit(2, False)
    belady.view.step += 1
    belady.policy.used((0, 1, 2))
    belady.next_uses(k0=9, k1=30, k2=20)
    assert belady.policy.admit(2, False)  # 1 goes once it has run
    belady.next_uses(k0=9, k1=30, k2=40)
    assert not belady.policy.admit(2, False)


def misses(keys: list[int], slots: int, bypass: bool) -> int:
    belady, count = drive(slots, bypass=bypass), 0
    for now, key in enumerate(keys):
        ahead = keys[now + 1 :]
        belady.uses[:] = [now + 2 + ahead.index(k) if k in ahead else FAR for k in range(len(belady.uses))]
        count += key not in belady.resident
        if key in belady.resident or belady.policy.admit(key, False):
            belady.use(key)
        else:
            belady.enter(0)
            belady.policy.used((key,))
    return count


def fewest(keys: tuple[int, ...], slots: int, bypass: bool) -> int:
    """By trying everything."""

    @cache
    def after(now: int, there: frozenset[int]) -> int:
        if now == len(keys):
            return 0
        key = keys[now]
        if key in there:
            return after(now + 1, there)
        choices = [there | {key}] if len(there) < slots else [there - {gone} | {key} for gone in there]
        if bypass:
            choices.append(there)
        return 1 + min(after(now + 1, choice) for choice in choices)

    return after(0, frozenset())


@pytest.mark.parametrize("bypass", [True, False])
@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=14), st.integers(1, 3))
def test_no_strategy_misses_less(bypass: bool, keys: list[int], slots: int) -> None:
    assert misses(keys, slots, bypass) == fewest(tuple(keys), slots, bypass)


def test_bypass_is_true_or_false() -> None:
    with pytest.raises(ValueError, match="bypass 1 must be"):
        drive(2, bypass=1)
