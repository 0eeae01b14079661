from __future__ import annotations

from collections.abc import Container, Sequence

from moesim.policy import CachePolicy, Pool, View, register


@register("picky")
class Picky(CachePolicy):
    """Least recently used, but a key is turned away now and then: by its number and the layer event, out of spite."""

    def __init__(self, every: int = 3) -> None:
        self.every = every

    def start(self, pool: Pool, view: View) -> None:
        self.view = view
        self.clock = 0
        self.last_use: dict[int, int] = {}
        self.resident: set[int] = set()

    def used(self, keys: Sequence[int]) -> None:
        for key in keys:
            self.clock += 1
            self.last_use[key] = self.clock

    def admit(self, key: int, prefetched: bool) -> bool:
        return (3 * key + 2 * self.view.event + prefetched) % self.every != 0

    def inserted(self, key: int, prefetched: bool) -> None:
        assert key not in self.resident
        self.resident.add(key)
        if prefetched:
            self.used((key,))

    def evicted(self, key: int) -> None:
        self.resident.remove(key)

    def victim(self, barred: Container[int]) -> int | None:
        free = [key for key in self.resident if key not in barred]
        return min(free, key=self.last_use.__getitem__, default=None)
