from __future__ import annotations

from itertools import pairwise

import pytest

from moesim.check.drive import Drive, pushed_out
from moesim.policy import find


def drive(slots: int, seed: int = 0) -> Drive:
    return Drive(find("cache", "random")(), slots, seed=seed)  # type: ignore[arg-type]


def test_equal_seeds_push_out_the_same_keys_and_others_do_not() -> None:
    uses = [n * 5 % 8 for n in range(60)]
    assert pushed_out(drive(3, 1), *uses) == pushed_out(drive(3, 1), *uses)
    assert pushed_out(drive(3, 1), *uses) != pushed_out(drive(3, 2), *uses)


@pytest.mark.parametrize("barred", [{0, 1}, {0, 1, 2, 3, 4, 5}])
def test_the_draw_is_uniform_over_what_may_go(barred: set[int]) -> None:
    """8 keys are there; of two barred ones the draw is repeated, of six it falls back on what is left."""
    drawn = draws(full(8), barred, 20_000)
    free = 8 - len(barred)
    mean, deviation = 20_000 / free, (20_000 / free * (1 - 1 / free)) ** 0.5
    assert all(abs(drawn.count(key) - mean) < 4 * deviation for key in set(range(8)) - barred)


def test_draws_do_not_follow_each_other() -> None:
    """Each ordered pair of victims in a row is as likely as any other."""
    drawn = draws(full(4), {3}, 20_000)
    pairs = list(pairwise(drawn))
    mean, deviation = len(pairs) / 9, (len(pairs) / 9 * 8 / 9) ** 0.5
    assert all(abs(pairs.count((a, b)) - mean) < 4 * deviation for a in range(3) for b in range(3))


def full(slots: int) -> Drive:
    made = drive(slots)
    made.use(*range(slots))
    return made


def draws(random: Drive, barred: set[int], count: int) -> list[int]:
    """Victims of a pool in which each comes back at once: only the next draw is another."""
    drawn = []
    for _ in range(count):
        victim = random.policy.victim(barred)
        assert victim is not None
        drawn.append(victim)
        random.policy.evicted(drawn[-1])
        random.policy.inserted(drawn[-1], False)
    return drawn


def test_every_key_may_go_after_others_left() -> None:
    """Places of keys are kept right when one leaves from the middle."""
    random = drive(4)
    pushed_out(random, *(n * 3 % 8 for n in range(40)))
    found = set()
    for _ in range(200):
        found.update(draws(random, set(), 1))
    assert found == random.resident
