from __future__ import annotations

from collections.abc import Container, Sequence
from heapq import heapify, heappop, heappush

from moesim.policy import CachePolicy, Pool, View, register
from moesim.policy.rule import Rule


@register("lfu")
class LFU(CachePolicy):
    """Evict the key with the fewest uses so far, the least recently used of equals; counts outlive eviction.

    Source: textbook (perfect LFU), no section.
    """

    cost = "O(log n)"
    rule = Rule("uses")

    def start(self, pool: Pool, view: View) -> None:
        self.uses: dict[int, int] = {}
        self.stamp: dict[int, int] = {}
        self.clock = 0
        self.resident: set[int] = set()
        # (uses, stamp, key) of resident keys. An entry goes stale when its key is used again or leaves; victim() drops
        # stale ones as it meets them.
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
        else:
            self._enter(key)

    def evicted(self, key: int) -> None:
        self.resident.remove(key)

    def victim(self, barred: Container[int]) -> int | None:
        heap, passed, found = self.heap, [], None
        while heap and found is None:
            _, stamp, key = heap[0]
            if key in self.resident and stamp == self.stamp[key]:
                if key not in barred:
                    found = key
                    break
                passed.append(heap[0])
            heappop(heap)
        for entry in passed:
            heappush(heap, entry)
        return found

    def _touch(self, key: int) -> None:
        self.clock += 1
        self.stamp[key] = self.clock
        if key in self.resident:
            self._enter(key)

    def _enter(self, key: int) -> None:
        if len(self.heap) > 4 * len(self.resident) + 64:
            self.heap = [e for e in self.heap if e[2] in self.resident and e[1] == self.stamp[e[2]]]
            heapify(self.heap)
        heappush(self.heap, (self.uses[key], self.stamp[key], key))
