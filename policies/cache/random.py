from __future__ import annotations

from collections.abc import Container

from moesim.policy import CachePolicy, Pool, View, register


@register("random")
class Random(CachePolicy):
    """Evict a key drawn uniformly from those that may go: the control that no policy should lose to."""

    def start(self, pool: Pool, view: View) -> None:
        self.rng = pool.rng
        self.resident: list[int] = []
        self.place: dict[int, int] = {}

    def inserted(self, key: int, prefetched: bool) -> None:
        self.place[key] = len(self.resident)
        self.resident.append(key)

    def evicted(self, key: int) -> None:
        place, last = self.place.pop(key), self.resident.pop()
        if last != key:
            self.resident[place] = last
            self.place[last] = place

    def victim(self, barred: Container[int]) -> int | None:
        # A draw that is barred is drawn again; few are barred, so the list is seldom built.
        for _ in range(8 if self.resident else 0):
            key = self.resident[int(self.rng.random() * len(self.resident))]
            if key not in barred:
                return key
        free = [key for key in self.resident if key not in barred]
        return self.rng.choice(free) if free else None
