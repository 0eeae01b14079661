"""Parts that policies share."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.policy import Pool, View, catalogue, find, names
from moesim.policy.cache import Ranking, in_units, layer_of, layers_until
from moesim.policy.maps import Maps


def test_layers_until_counts_to_the_next_turn() -> None:
    view = View(4, 8)
    view.layer = 1
    assert [layers_until(view, layer) for layer in range(4)] == [3, 4, 1, 2]
    view.layer = -1
    assert [layers_until(view, layer) for layer in range(4)] == [1, 2, 3, 4]
    assert [layer_of(view, key) for key in (0, 7, 8, 31)] == [0, 0, 1, 3]


def test_units() -> None:
    assert in_units(Pool(range(2, 4), 100, [1, 1, 12, 18], random.Random())) == (16, {2: 2, 3: 3})
    assert in_units(Pool(range(2), 95, [10, 10], random.Random())) == (9, {0: 1, 1: 1})


@settings(derandomize=True, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-1, 5), st.sets(st.integers(0, 9))), max_size=200))
def test_a_ranking_is_a_sorted_table(moves: list[tuple[int, int, set[int]]]) -> None:
    ranking, table = Ranking(), {}
    for key, rank, barred in moves:
        if rank < 0:
            ranking.drop(key)
            table.pop(key, None)
        else:
            ranking.set(key, rank)
            table[key] = rank
        free = [(rank, key) for key, rank in table.items() if key not in barred]
        assert ranking.first(barred) == (min(free)[1] if free else None)
        assert len(ranking) == len(table)


def test_a_ranking_stays_as_large_as_its_keys() -> None:
    ranking = Ranking()
    for number in range(10_000):
        ranking.set(number % 10, number)
    assert len(ranking.heap) < 200


def test_maps_resemblance_is_the_cosine() -> None:
    rng = np.random.default_rng(3)
    maps, kept, steps = Maps(range(10, 22), 50), [], []
    for step in range(40):
        keys = (10 + rng.choice(12, 3, replace=False)).tolist()
        steps.append(keys)
        maps.see(step, keys[:1])
        maps.see(step, keys)  # the first key a second time
        now = np.isin(np.arange(10, 22), keys).astype(float)
        if kept:
            alike = [float(now @ row) / 3 for row in kept]
            best = maps.nearest()
            assert best == (int(np.argmax(alike)) if max(alike) > 0 else None)
        kept.append(now)
    assert maps.counts(0).tolist() == kept[0].tolist()


def test_a_full_collection_replaces_what_is_most_alike() -> None:
    maps = Maps(range(6), 2)
    for step, keys in enumerate([(0, 1), (2, 3), (2, 3, 4), (5,)]):
        maps.see(step, keys)
    assert [maps.counts(number).tolist() for number in range(2)] == [[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0]]


@pytest.mark.parametrize("kind", ["cache", "prefetch", "miss", "batch"])
def test_every_policy_says_what_it_is(kind: str) -> None:
    """One line for `moesim policies`, where the rule comes from, and what a decision costs."""
    for name in names(kind):
        cls = find(kind, name)
        first = (cls.__doc__ or "").splitlines()[0]
        assert 10 < len(first) <= 120 and first.endswith("."), name
        assert catalogue.source(cls) and cls.cost, name
