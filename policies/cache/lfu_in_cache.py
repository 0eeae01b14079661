from __future__ import annotations

from moesim.policy import Pool, View, register
from moesim.policy.cache import Counted


@register("lfu-in-cache")
class LFUInCache(Counted):
    """Evict the key with the fewest uses since it entered, the least recently used of equals; eviction forgets them.

    The textbook LFU of cache simulators (libCacheSim's `LFU`: of the lowest count, the key that reached it first).
    `lfu` keeps its counts, `lfu-per-sequence` forgets those of a request that has left.

    Source: textbook, no section; libCacheSim LFU (code, no section).
    """

    cost = "O(log n)"

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.uses: dict[int, int] = {}

    def refer(self, key: int, stamp: int, first: bool) -> tuple[int, int]:
        self.uses[key] = 1 if first else self.uses[key] + 1
        return self.uses[key], stamp

    def forget(self, key: int) -> None:
        del self.uses[key]
