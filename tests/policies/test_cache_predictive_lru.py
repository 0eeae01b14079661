from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.drive import Drive, pushed_out
from moesim.policy import FAR, find


def drive(slots: int, name: str = "predictive-lru", **params: Any) -> Drive:
    return Drive(find("cache", name)(**params), slots)  # type: ignore[arg-type]


def test_predictions_are_followed_at_first() -> None:
    look = drive(2)
    pushed_out(look, 0, 1)
    look.next_uses(k0=9, k1=30, k2=12)
    assert look.use(2) == [1]  # LRU would push out 0
    look.next_uses(k0=9, k2=8, k3=12)
    assert look.use(3) == [0]


def test_it_turns_to_lru_when_they_err_and_back() -> None:
    """2 slots, trust 5/4: it turns when the misses of the one exceed 5/4 of the other's by more than 2."""
    look = drive(2, trust=1.25)
    pushed_out(look, 2, 3)
    look.next_uses(k2=1, k3=1)  # what is dead seems needed at once, what is alive never
    # 0 pushes out 2, of two that seem alike the older. From then on 0 and 1 push out each other.
    assert pushed_out(look, 0, 1, 0, 1, 0) == [2, 0, 1, 0, 1]
    # The next miss is the eighth of the predictions. LRU has missed four times, and 8 > 5/4 * 4 + 2. LRU has 0 and 1,
    # so 3 leaves.
    assert pushed_out(look, 1) == [3]
    assert pushed_out(look, *[0, 1] * 3) == []
    # Now LRU errs, in a loop of three keys of which the predictions keep 0. They have missed 14 times, and miss twice
    # in three: the n-th round turns it when 4 + 3n > 5/4 * (14 + 2n) + 2, that is n > 31 (a little later, as 0 has to
    # be there first).
    look.next_uses(k0=1)
    out = pushed_out(look, *[2, 1, 0] * 60)
    assert 31 <= out.count(0) <= 35
    assert 0 not in out[-50:]


MODES = st.lists(st.permutations(list(range(6))), min_size=1, max_size=8)


@pytest.mark.parametrize("trust", [2.0])
@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=300), MODES, st.integers(1, 4))
def test_it_is_never_far_from_the_better_of_the_two(
    trust: float, keys: list[int], modes: list[list[int]], slots: int
) -> None:
    """Predictions are arbitrary and change all the time."""
    three = [drive(slots, trust=trust), drive(slots, "lru"), drive(slots, "lookahead", unknown="persist")]
    counts = [0, 0, 0]
    for now, key in enumerate(keys):
        for number, one in enumerate(three):
            one.uses[:6] = modes[now * len(modes) // len(keys)]
            counts[number] += key not in one.resident
            one.use(key)
    ours, *others = counts
    assert all(ours <= 4 * other + 3 * slots for other in others), counts


def blocks(name: str) -> int:
    """Misses where two keys alternate and then two others do, and predictions always favour the dead ones."""
    one, count = drive(2, name), 0
    for block in range(20):
        alive = (0, 1) if block % 2 else (2, 3)
        for key in alive * 50:
            one.uses[:4] = [FAR if k in alive else 1 for k in range(4)]
            count += key not in one.resident
            one.use(key)
    return count


def test_predictions_alone_have_no_such_bound() -> None:
    assert blocks("lru") == 40
    assert blocks("lookahead") > 4 * 40 + 3 * 2
    assert blocks("predictive-lru") <= 4 * 40 + 3 * 2


@settings(derandomize=True, deadline=None)
@given(st.lists(st.lists(st.integers(0, 7), min_size=1, max_size=3, unique=True), max_size=60))
def test_where_predictions_are_right_it_is_min(events: list[list[int]]) -> None:
    one, other = drive(4, level="oracle"), drive(4, "lookahead", level="oracle")
    for now, event in enumerate(events):
        for each in (one, other):
            uses = [next((n for n, e in enumerate(events[now + 1 :], now + 2) if k in e), FAR) for k in range(8)]
            each.uses[:8] = uses
        assert sorted(one.use(*event)) == sorted(other.use(*event))


@pytest.mark.parametrize("params", [{"trust": 1}, {"trust": "much"}, {"level": "history"}, {"unknown": "soon"}])
def test_parameters(params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        drive(2, **params)
