"""LRU as a user would write it: plain Python, no rule declared, so that steps are not compiled."""

from __future__ import annotations

from collections.abc import Container, Sequence

from moesim.policy import CachePolicy, Pool, View, register


@register("plain-lru")
class PlainLRU(CachePolicy):
    """Evict the key used longest ago."""

    def start(self, pool: Pool, view: View) -> None:
        self.order: dict[int, None] = {}

    def used(self, keys: Sequence[int]) -> None:
        for key in keys:
            self.order.pop(key, None)
            self.order[key] = None

    def evicted(self, key: int) -> None:
        self.order.pop(key, None)

    def victim(self, barred: Container[int]) -> int | None:
        return next((key for key in self.order if key not in barred), None)
