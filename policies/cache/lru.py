from __future__ import annotations

from collections.abc import Container, Sequence

from moesim.policy import CachePolicy, Pool, View, register


@register("lru")
class LRU(CachePolicy):
    """Evict the key used longest ago; a prefetch counts as a use when it is inserted."""

    source = "textbook"
    cost = "O(1)"

    def start(self, pool: Pool, view: View) -> None:
        self.order: dict[int, None] = {}
        self.resident: set[int] = set()
        """in `order` are also keys that the present layer event needs, and those that bypassed the cache"""

    def used(self, keys: Sequence[int]) -> None:
        order = self.order
        for key in keys:
            order.pop(key, None)
            order[key] = None

    def inserted(self, key: int, prefetched: bool) -> None:
        self.resident.add(key)
        if prefetched:
            self.used((key,))

    def evicted(self, key: int) -> None:
        self.resident.remove(key)
        del self.order[key]

    def victim(self, barred: Container[int]) -> int | None:
        for key in self.order:
            if key not in barred and key in self.resident:
                return key
        return None
