from __future__ import annotations

from collections.abc import Container

from moesim.policy import CachePolicy, Pool, View, register
from moesim.policy.rule import Rule


@register("fifo")
class FIFO(CachePolicy):
    """Evict the key whose copy started first.

    Source: textbook, no section.
    """

    cost = "O(1)"
    rule = Rule(stamp="insertion")

    def start(self, pool: Pool, view: View) -> None:
        self.order: dict[int, None] = {}

    def inserted(self, key: int, prefetched: bool) -> None:
        self.order[key] = None

    def evicted(self, key: int) -> None:
        del self.order[key]

    def victim(self, barred: Container[int]) -> int | None:
        for key in self.order:
            if key not in barred:
                return key
        return None
