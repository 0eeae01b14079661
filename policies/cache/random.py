from __future__ import annotations

from collections.abc import Container

from moesim.policy import CachePolicy, Pool, View, register

TRIES = 8


@register("random")
class Random(CachePolicy):
    """Evict a key drawn uniformly from those that may go: the control that no policy should lose to.

    Source: textbook, no section.
    """

    cost = "O(1)"

    def start(self, pool: Pool, view: View) -> None:
        self.rng = pool.rng
        self._draw()
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
        self._draw()

    def victim(self, barred: Container[int]) -> int | None:
        # A draw that is barred is drawn again; few are barred, so the list is seldom built.
        for draw in self.draws:
            key = self.resident[int(draw * len(self.resident))] if self.resident else -1
            if key >= 0 and key not in barred:
                return key
        free = [key for key in self.resident if key not in barred]
        return free[int(self.last_draw * len(free))] if free else None

    def _draw(self) -> None:
        """For the next victim; drawn ahead, so that asking for one changes nothing."""
        self.draws = [self.rng.random() for _ in range(TRIES)]
        self.last_draw = self.rng.random()
