from __future__ import annotations

from collections.abc import Container, Sequence
from heapq import heappop, heappush

from moesim.policy import CachePolicy, Pool, View, register


@register("lfu")
class LFU(CachePolicy):
    """Evict the key with the fewest uses so far, the least recently used of equals; counts outlive eviction."""

    def start(self, pool: Pool, view: View) -> None:
        self.uses: dict[int, int] = {}
        self.stamp: dict[int, int] = {}
        self.clock = 0
        self.resident: set[int] = set()
        # Entries (uses, stamp, key) go stale when the key is used again; victim() drops stale ones as it meets them.
        self.heap: list[tuple[int, int, int]] = []

    def used(self, keys: Sequence[int]) -> None:
        for key in keys:
            self.uses[key] = self.uses.get(key, 0) + 1
            self._touch(key)

    def inserted(self, key: int, prefetched: bool) -> None:
        self.resident.add(key)
        if prefetched:
            self.uses.setdefault(key, 0)
            self._touch(key)

    def evicted(self, key: int) -> None:
        self.resident.remove(key)

    def victim(self, barred: Container[int]) -> int | None:
        heap, passed, found = self.heap, [], None
        while heap and found is None:
            entry = heap[0]
            key = entry[2]
            if entry[1] == self.stamp[key]:
                if key in self.resident and key not in barred:
                    found = key
                    break
                passed.append(entry)
            heappop(heap)
        for entry in passed:
            heappush(heap, entry)
        return found

    def _touch(self, key: int) -> None:
        self.clock += 1
        self.stamp[key] = self.clock
        heappush(self.heap, (self.uses[key], self.clock, key))
