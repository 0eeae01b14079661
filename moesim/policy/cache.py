"""Parts that cache policies share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence
from heapq import heapify, heappop, heappush
from math import gcd
from typing import Any

import numpy as np

from moesim.policy.base import CachePolicy, Pool
from moesim.policy.view import View


def layer_of(view: View, key: int) -> int:
    """The layer of a key; of one that layers share, the first of them."""
    return view.layer_of[key]


def layers_until(view: View, layer: int) -> int:
    """Layer events from the present one to the next of `layer`: 1 for the next layer, all for the present one."""
    return (layer - view.layer - 1) % view.layers + 1


def wants_users(policy: CachePolicy) -> bool:
    """Whether a policy defines `used_by`, and so has to be told which requests use a key."""
    return type(policy).used_by is not CachePolicy.used_by


def in_units(pool: Pool) -> tuple[int, dict[int, int]]:
    """Capacity and sizes in the largest unit that divides all sizes: keys, if these are of one size.

    Policies that split a cache by shares round to this unit, and so do for keys of any one size what they do in keys.
    """
    sizes = {key: pool.sizes[key] for key in pool.keys}
    unit = gcd(*sizes.values()) or 1
    return pool.capacity // unit, {key: size // unit for key, size in sizes.items()}


class Ranking:
    """Keys in the order of a rank that may change at any time: a heap whose stale entries are dropped when met."""

    __slots__ = ("heap", "rank")

    def __init__(self) -> None:
        self.rank: dict[int, Any] = {}
        self.heap: list[tuple[Any, int]] = []

    def __contains__(self, key: int) -> bool:
        return key in self.rank

    def __len__(self) -> int:
        return len(self.rank)

    def set(self, key: int, rank: Any) -> None:
        """Enter `key`, or change its rank. Ranks must compare with one another; of equals the lower key is first."""
        self.rank[key] = rank
        if len(self.heap) > 4 * len(self.rank) + 64:
            self.heap = [(rank, key) for key, rank in self.rank.items()]
            heapify(self.heap)
        else:
            heappush(self.heap, (rank, key))

    def drop(self, key: int) -> None:
        """Take `key` out, if it is there."""
        self.rank.pop(key, None)

    def first(self, barred: Container[int] = ()) -> int | None:
        """The key of lowest rank that is not in `barred`; O(log n) for each stale or barred entry before it."""
        heap, ranks, passed, found = self.heap, self.rank, [], None
        while heap:
            rank, key = heap[0]
            if key in ranks and ranks[key] == rank:
                if key not in barred:
                    found = key
                    break
                passed.append(heap[0])
            heappop(heap)
        for entry in passed:
            heappush(heap, entry)
        return found


class Counted(CachePolicy):
    """Evicts the resident key of lowest rank; a rank changes only when its key is referred to.

    Uses of one layer event rank by their order in it, whether they hit or miss. A prefetch counts as the use for which
    it was fetched: that use, when it comes, is again the key's first.
    """

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.ranking = Ranking()
        self.clock = 0
        self.coming: dict[int, int] = {}
        """when absent keys of the layer event were used"""
        self.ahead: set[int] = set()
        """keys that a prefetch brought and that have not been used since"""

    def refer(self, key: int, stamp: int, first: bool) -> Any:
        """The rank of `key` after a use at `stamp`, the `first` since it entered or not."""
        raise NotImplementedError

    def forget(self, key: int) -> None:
        """`key` has left."""

    def used(self, keys: Sequence[int]) -> None:
        for key in keys:
            self.clock += 1
            if key not in self.ranking:
                self.coming[key] = self.clock
                continue
            first = key in self.ahead
            self.ahead.discard(key)
            self.ranking.set(key, self.refer(key, self.clock, first))

    def inserted(self, key: int, prefetched: bool) -> None:
        if prefetched:
            self.ahead.add(key)
            self.clock += 1
        self.ranking.set(key, self.refer(key, self.coming.pop(key, self.clock), True))

    def evicted(self, key: int) -> None:
        self.ranking.drop(key)
        self.ahead.discard(key)
        self.forget(key)

    def victim(self, barred: Container[int]) -> int | None:
        return self.ranking.first(barred)


class ByLayer(CachePolicy):
    """Keeps the resident keys layer by layer, in each the one used longest ago first."""

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.rows: dict[int, OrderedDict[int, int]] = {}
        """by layer: keys that are there or that the present layer event needs, and when they were touched"""
        self.resident: set[int] = set()
        self.coming: set[int] = set()

    def when(self, key: int, prefetched: bool) -> int:
        """What is kept of a touch of `key` now: the number of the layer event."""
        return self.view.event

    def used(self, keys: Sequence[int]) -> None:
        for key in self.coming:  # they went past the cache
            del self._row(key)[key]
        self.coming = {key for key in keys if key not in self.resident}
        for key in keys:
            self._touch(key, False)

    def inserted(self, key: int, prefetched: bool) -> None:
        self.resident.add(key)
        if prefetched or key not in self.coming:
            self._touch(key, prefetched)
        self.coming.discard(key)

    def evicted(self, key: int) -> None:
        self.resident.remove(key)
        del self._row(key)[key]

    def oldest(self, barred: Container[int]) -> Iterator[tuple[int, int, int]]:
        """(layer, key, when) of the resident key touched longest ago in each layer, leaving out those in `barred`."""
        for layer, row in self.rows.items():
            for key, when in row.items():
                if key in self.resident and key not in barred:
                    yield layer, key, when
                    break

    def _row(self, key: int) -> OrderedDict[int, int]:
        return self.rows.setdefault(layer_of(self.view, key), OrderedDict())

    def _touch(self, key: int, prefetched: bool) -> None:
        row = self._row(key)
        row[key] = self.when(key, prefetched)
        row.move_to_end(key)


class Scores:
    """Resident keys whose worth is an array that changes as a whole, so that it is searched as one."""

    __slots__ = ("absent", "clock", "first", "last_use")

    def __init__(self, keys: range) -> None:
        self.first = keys.start
        self.absent = np.ones(len(keys), dtype=bool)
        self.last_use = np.zeros(len(keys), dtype=np.int64)
        self.clock = 0

    def touch(self, key: int) -> None:
        self.clock += 1
        self.last_use[key - self.first] = self.clock

    def lowest(self, worth: np.ndarray, barred: Container[int]) -> int | None:
        """The resident key of least `worth` (float [keys]) that is not in `barred`; of equals, used longest ago."""
        worth = np.where(self.absent, np.inf, worth)
        while (least := worth.min()) < np.inf:
            equal = (worth == least).nonzero()[0]
            oldest = int(equal[self.last_use[equal].argmin()])
            if oldest + self.first not in barred:
                return oldest + self.first
            worth[oldest] = np.inf
        return None
