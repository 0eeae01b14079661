from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence

from moesim.policy import CachePolicy, Pool, View, register
from moesim.policy.cache import Ranking


@register("lfu-per-sequence")
class LFUPerSequence(CachePolicy):
    """Evict the key that the requests in service have used least, the least recently used of equals.

    LFU whose counts are a sequence's own: what a request used is forgotten when it leaves, and nothing else is. Served
    one at a time, each sequence starts to count anew, as HOBBIT (2411.01433, 3.4) does it: there this LFU hits 4.5 %
    more than one that counts on. In a batch the counts of the requests in service add up; of a layer event each request
    that uses a key counts one. Recency outlives a request. A prefetch is no use, but sets recency.

    Source: HOBBIT (2411.01433), section 3.4.
    """

    cost = "O(log n); O(log n) for each key of a request that ends"

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.uses: Counter[int] = Counter()
        self.of: dict[int, Counter[int]] = {}
        """by request in service: its uses of each key"""
        self.stamp: dict[int, int] = {}
        self.clock = 0
        self.resident: set[int] = set()
        self.ranking = Ranking()

    def used_by(self, requests: Mapping[int, Sequence[int]]) -> None:
        for key, users in requests.items():
            self.uses[key] += len(users)
            for request in users:
                self.of.setdefault(request, Counter())[key] += 1

    def ended(self, requests: Sequence[int]) -> None:
        for request in requests:
            for key, uses in self.of.pop(request, Counter()).items():
                self.uses[key] -= uses
                if not self.uses[key]:
                    del self.uses[key]
                self._rank(key)

    def used(self, keys: Sequence[int]) -> None:
        for key in keys:
            self._touch(key)

    def inserted(self, key: int, prefetched: bool) -> None:
        self.resident.add(key)
        if prefetched:
            self._touch(key)
        self._rank(key)

    def evicted(self, key: int) -> None:
        self.resident.remove(key)
        self.ranking.drop(key)

    def victim(self, barred: Container[int]) -> int | None:
        return self.ranking.first(barred)

    def _touch(self, key: int) -> None:
        self.clock += 1
        self.stamp[key] = self.clock
        self._rank(key)

    def _rank(self, key: int) -> None:
        if key in self.resident:
            self.ranking.set(key, (self.uses[key], self.stamp[key]))
