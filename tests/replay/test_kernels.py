"""The loops of `moesim.replay.kernels` against a slow replay, against the policy objects, and against trying all."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.policy import find, names
from moesim.replay import compiled, kernels
from moesim.replay.drive import drive
from moesim.replay.players import KERNELS
from moesim.replay.sight import sight_for
from tests.replay import slow
from tests.replay.streams import KEYS, event_lists, stream

LOOPS = {
    "lru": kernels.lru,
    "lfu": kernels.lfu,
    "lfu-in-cache": kernels.lfu_in_cache,
    "min": kernels.belady,
    "min-bypass": kernels.belady_bypass,
}
UNEQUAL = [3, 5, 2, 4, 3, 5, 2]
CHECK = settings(derandomize=True, max_examples=150, deadline=None)


def flat(found: list[list[bool]]) -> list[bool]:
    return [hit for event in found for hit in event]


@pytest.mark.parametrize("rule", ["lru", "lfu", "lfu-in-cache"])
@CHECK
@given(event_lists(), st.integers(1, 20), st.booleans(), st.booleans())
def test_hits_are_those_of_the_slow_replay(rule, events, capacity, strict, equal) -> None:
    sizes = [1] * KEYS if equal else UNEQUAL
    outcome = LOOPS[rule](stream(events), sizes, capacity, strict)
    expected = slow.replay(rule, [(0, e) for e in events], sizes, capacity, strict)
    assert [bool(hit) for hit in outcome.hits] == flat(expected)
    if strict:
        assert outcome.peak <= capacity


@pytest.mark.parametrize("rule", sorted(KERNELS.keys() & set(names("cache"))))
@CHECK
@given(event_lists(), st.integers(1, 20), st.booleans(), st.booleans())
def test_hits_are_those_of_the_policy_object(rule, events, capacity, strict, equal) -> None:
    sizes = [1] * KEYS if equal else UNEQUAL
    whole, policy = stream(events), find("cache", rule)()
    sight = sight_for(policy, whole, KEYS, KEYS)
    driven = drive(policy, whole, sizes, capacity, strict, range(KEYS), sight, 0)
    assert driven == LOOPS[rule](whole, sizes, capacity, strict)


@pytest.mark.parametrize("rule", ["min", "min-bypass"])
@CHECK
@given(event_lists(), st.integers(1, 8), st.booleans())
def test_min_misses_as_often_as_the_slow_replay(rule, events, capacity, strict) -> None:
    """Keys used at the same time may be swapped for each other, so that misses are equal and hits need not be."""
    outcome = LOOPS[rule](stream(events), [1] * KEYS, capacity, strict)
    expected = slow.replay(rule, [(0, e) for e in events], [1] * KEYS, capacity, strict)
    assert len(outcome.hits) - sum(outcome.hits) == slow.misses_of(expected)


@pytest.mark.parametrize("bypass", [False, True])
@settings(derandomize=True, max_examples=60, deadline=None)
@given(event_lists(most=9, widest=3), st.integers(1, 4))
def test_nothing_misses_less_than_min(bypass, events, capacity) -> None:
    outcome = kernels.belady(stream(events), [1] * KEYS, capacity, True, bypass)
    fewest = slow.fewest_misses([(0, e) for e in events], capacity, bypass)
    assert len(outcome.hits) - sum(outcome.hits) == fewest


@CHECK
@given(event_lists(widest=3), st.integers(3, 8))
def test_min_is_the_lookahead_of_an_oracle(events, capacity) -> None:
    whole, policy = stream(events), find("cache", "lookahead")(level="oracle")
    sight = sight_for(policy, whole, KEYS, KEYS)
    driven = drive(policy, whole, [1] * KEYS, capacity, True, range(KEYS), sight, 0)
    assert sum(driven.hits) == sum(kernels.belady(whole, [1] * KEYS, capacity, True).hits)


def test_by_hand() -> None:
    """Capacity 2, key by key: A B C A B. LRU and LFU miss all; MIN keeps A, without bypass C goes for B."""
    whole = stream([[0], [1], [2], [0], [1]])
    hits = {rule: list(loop(whole, [1] * 3, 2, True).hits) for rule, loop in LOOPS.items()}
    assert hits["lru"] == [0, 0, 0, 0, 0]
    assert hits["lfu"] == [0, 0, 0, 0, 0]
    assert sum(hits["min"]) == 1
    assert sum(hits["min-bypass"]) == 2


def test_counts_of_lfu_outlive_eviction() -> None:
    """A twice, then B, C (C pushes out B), B again: B has two uses now, so that C (one) goes for D and B stays."""
    events = [[0], [0], [1], [2], [1], [3], [1]]
    assert list(kernels.lfu(stream(events), [1] * 4, 2, True).hits) == [0, 1, 0, 0, 0, 0, 1]


def test_an_event_is_spared_its_own_keys() -> None:
    """Capacity 2 of one byte: {0, 1}, then {1, 2}: 0 goes although 1 is as old. Key by key 1 goes for 2 and is lost."""
    assert list(kernels.lru(stream([[0, 1], [2, 1], [1]]), [1] * 3, 2, True).hits) == [0, 0, 0, 1, 1]
    one_by_one = stream([[0], [1], [2], [1], [1]])
    assert list(kernels.lru(one_by_one, [1] * 3, 1, True).hits) == [0, 0, 0, 0, 1]


def test_room_for_the_event() -> None:
    """Capacity 1: with `strict` only the last of an event's keys stays; else all stay until the next event."""
    whole = stream([[0, 1, 2], [0], [1]])
    assert list(kernels.lru(whole, [1] * 3, 1, True).hits) == [0, 0, 0, 0, 0]
    roomy = kernels.lru(whole, [1] * 3, 1, False)
    assert (list(roomy.hits), roomy.peak) == ([0, 0, 0, 1, 0], 3)


@pytest.mark.skipif(not compiled.there(), reason="numba is not installed: pip install -e '.[fast]'")
@pytest.mark.parametrize("rule", LOOPS)
def test_compiled_or_not_is_the_same(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(7)
    plain, fast = [], []
    for _ in range(60):
        events = [rng.sample(range(KEYS), rng.randint(1, 4)) for _ in range(rng.randint(1, 40))]
        case = (stream(events), UNEQUAL if rng.random() < 0.5 else [1] * KEYS, rng.randint(1, 18), rng.random() < 0.5)
        monkeypatch.setattr(compiled, "LEAST", 10**9)
        plain.append(LOOPS[rule](*case))
        monkeypatch.setattr(compiled, "LEAST", 0)
        fast.append(LOOPS[rule](*case))
    assert fast == plain


def test_long_streams_stay_equal() -> None:
    rng = random.Random(5)
    events = [rng.sample(range(40), rng.randint(1, 6)) for _ in range(3000)]
    sizes = [rng.randint(1, 9) for _ in range(40)]
    for rule in ("lru", "lfu"):
        policy, whole = find("cache", rule)(), stream(events)
        driven = drive(policy, whole, sizes, 90, True, range(40), sight_for(policy, whole, 40, 40), 0)
        assert driven == LOOPS[rule](whole, sizes, 90, True)
        assert 0 < sum(driven.hits) < len(driven.hits)
