from __future__ import annotations

from typing import Any

import pytest

from moesim.check.drive import Drive, pushed_out
from moesim.errors import InputError
from moesim.policy import find


def drive(slots: int, **params: Any) -> Drive:
    return Drive(find("cache", "static-popular")(**params), slots)  # type: ignore[arg-type]


def test_what_was_popular_first_stays() -> None:
    static = drive(2, learn=4)
    # While it learns it is LFU: 1 (one use) leaves for 2.
    assert pushed_out(static, 0, 0, 1, 2) == [1]
    # Then 0 (two uses) and 2 (one, later than 1) are chosen. 3 pushes out 2 and is the next victim, as is 1.
    assert pushed_out(static, 3, 2, 1, 3) == [2, 3, 2, 1]
    assert [static.policy.admit(key, False) for key in (0, 1, 2, 3)] == [True, False, True, False]


def test_uses_after_learning_do_not_count() -> None:
    assert pushed_out(drive(2, learn=3), 0, 0, 1, 2, 2, 2, 1) == [1, 2]


def test_a_profile_is_popularity_at_once() -> None:
    static = drive(2, counts=[1, 5, 3, 4, 0, 0, 0, 0])
    assert [key for key in range(8) if static.policy.admit(key, False)] == [1, 3]
    assert pushed_out(static, 1, 0, 2, 3) == [0, 2]


def test_keys_are_chosen_as_long_as_they_fit() -> None:
    made = find("cache", "static-popular")(counts=[9, 8, 7, 6, 0, 0, 0, 0])  # type: ignore[call-arg]
    static = Drive(made, 4, sizes=(10, 35, 20, 10, *[10] * 12))  # type: ignore[arg-type]
    assert [key for key in range(8) if static.policy.admit(key, False)] == [0, 2, 3]


def test_parameters() -> None:
    with pytest.raises(ValueError, match="learn -1 must be"):
        drive(2, learn=-1)
    with pytest.raises(ValueError, match="counts must be numbers"):
        drive(2, counts=[1, -2])
    with pytest.raises(InputError, match="counts has 2 entries, but there are 8 keys"):
        drive(2, counts=[1, 2])
