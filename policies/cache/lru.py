from __future__ import annotations

from collections.abc import Container, Sequence

from moesim.policy import CachePolicy, Pool, View, register
from moesim.policy.rule import Rule


@register("lru")
class LRU(CachePolicy):
    """Evict the key used longest ago; a prefetch counts as a use when it is inserted.

    Source: textbook, no section.
    """

    cost = "O(1)"
    rule = Rule()

    def start(self, pool: Pool, view: View) -> None:
        self.order: dict[int, None] = {}

    def used(self, keys: Sequence[int]) -> None:
        order = self.order
        for key in keys:
            order.pop(key, None)
            order[key] = None

    def inserted(self, key: int, prefetched: bool) -> None:
        if prefetched:
            self.used((key,))

    def evicted(self, key: int) -> None:
        self.order.pop(key, None)

    def victim(self, barred: Container[int]) -> int | None:
        for key in self.order:
            if key not in barred:
                return key
        return None
