"""Batchers beside each other: with one cache policy they are what is compared, by their names."""

from __future__ import annotations

import pandas as pd

from moesim.analysis import table
from moesim.analysis.configurations import baseline, grouped, read
from tests.analysis import factory

ROWS = [
    # batch, what it knows, ns of three replications
    ("decode-first", "history", [100e6, 101e6, 99e6]),
    ("expert-aware", "queue", [90e6, 91e6, 88e6]),
]


def frame(*caches: str) -> pd.DataFrame:
    parts = [
        factory.plain([(cache, "history", "", "layer", [1.0, 1.0, 1.0], times)], batch=batch, knows=knows)
        for batch, knows, times in ROWS
        for cache in caches
    ]
    found = pd.concat(parts, ignore_index=True)
    found["run"] = range(len(found))
    return found


def test_batchers_compare_where_there_is_one_cache_policy() -> None:
    (group,) = grouped(read(frame("lru"))).values()
    assert [(c.policy, c.level) for c in group] == [("decode-first", "history"), ("expert-aware", "queue")]
    assert baseline(group, "ns_per_output_token") is group[0]
    row = next(line for line in table.render(frame("lru")).splitlines() if "expert-aware" in line)
    assert "-10.3 ±" in row


def test_with_several_cache_policies_those_compare_and_each_batcher_is_a_group() -> None:
    groups = list(grouped(read(frame("lru", "lfu"))).values())
    assert [[c.policy for c in group] for group in groups] == [["lru", "lfu"], ["lru", "lfu"]]
