from __future__ import annotations

import pytest

from moesim.policy import find
from tests.policies.drive import Drive, pushed_out


def drive(slots: int, seed: int = 0) -> Drive:
    return Drive(find("cache", "random")(), slots, seed=seed)  # type: ignore[arg-type]


def test_equal_seeds_push_out_the_same_keys_and_others_do_not() -> None:
    uses = [n * 5 % 8 for n in range(60)]
    assert pushed_out(drive(3, 1), *uses) == pushed_out(drive(3, 1), *uses)
    assert pushed_out(drive(3, 1), *uses) != pushed_out(drive(3, 2), *uses)


@pytest.mark.parametrize("barred", [{0, 1}, {0, 1, 2, 3, 4, 5}])
def test_the_draw_is_uniform_over_what_may_go(barred: set[int]) -> None:
    """8 keys there; with two barred the draw is repeated, with six it falls back on the list of the rest."""
    random = drive(8)
    random.use(*range(8))
    counts = dict.fromkeys(range(8), 0)
    for _ in range(6000):
        counts[random.policy.victim(barred)] += 1  # type: ignore[index]
    free = 8 - len(barred)
    mean, deviation = 6000 / free, (6000 / free * (1 - 1 / free)) ** 0.5
    assert all(counts[key] == 0 for key in barred)
    assert all(abs(counts[key] - mean) < 4 * deviation for key in set(range(8)) - barred)


def test_every_key_may_go_after_others_left() -> None:
    """Places of keys are kept right when one leaves from the middle."""
    random = drive(4)
    pushed_out(random, *(n * 3 % 8 for n in range(40)))
    assert {random.policy.victim(()) for _ in range(200)} == random.resident
