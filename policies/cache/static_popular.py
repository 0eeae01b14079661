from __future__ import annotations

from collections.abc import Container, Sequence

from moesim.errors import InputError, Problem
from moesim.policy import CachePolicy, Pool, View, register
from moesim.policy.cache import Ranking


@register("static-popular")
class StaticPopular(CachePolicy):
    """Keep the most popular keys, as they were in the first `learn` layer events, or in a profile, and no others.

    Fiddler's placement: the keys used most, as many as fit, stay for good. `counts` is a profile, uses of each key (not
    in experiment files, whose parameters are single values), and then nothing is learned; without it uses are counted
    in the first `learn` layer events of the pool, in which this is LFU that keeps its counts. After that nothing is
    counted and only the most popular keys are admitted. That takes staging slots; where there are none, a key that is
    not among them is let in, and is the next victim but for less popular ones. Fiddler runs what is not there on the
    CPU, which is a miss policy's business.

    Source: Fiddler (2402.07033), its placement as its code has it (code, no section).
    """

    cost = "O(log n)"

    def __init__(self, learn: int = 1000, counts: Sequence[float] | None = None) -> None:
        if isinstance(learn, bool) or not isinstance(learn, int) or learn < 0:
            raise ValueError(f"learn {learn!r} must be a whole number of layer events, 0 or more")
        if counts is not None and not all(isinstance(c, int | float) and c >= 0 for c in counts):
            raise ValueError("counts must be numbers of uses, 0 or more, one for each key")
        self.left = learn if counts is None else 0
        self.profile = counts

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        if self.profile is not None and len(self.profile) < pool.keys.stop:
            text = f"counts has {len(self.profile)} entries, but there are {pool.keys.stop} keys or more"
            raise InputError(Problem("cache.counts", text))
        self.counts: dict[int, float] = {key: self.profile[key] if self.profile else 0 for key in pool.keys}
        self.clock = 0
        self.last: dict[int, int] = {}
        self.ranking = Ranking()
        self.chosen = self._choose() if not self.left else None

    def used(self, keys: Sequence[int]) -> None:
        if self.chosen is not None:
            return
        if self.left == 0:
            self.chosen = self._choose()
            return
        self.left -= 1
        for key in keys:
            self.counts[key] += 1
            self.clock += 1
            self.last[key] = self.clock
            if key in self.ranking:
                self._rank(key)

    def inserted(self, key: int, prefetched: bool) -> None:
        self._rank(key)

    def evicted(self, key: int) -> None:
        self.ranking.drop(key)

    def victim(self, barred: Container[int]) -> int | None:
        return self.ranking.first(barred)

    def admit(self, key: int, prefetched: bool) -> bool:
        return self.chosen is None or key in self.chosen

    def _rank(self, key: int) -> None:
        self.ranking.set(key, (self.counts[key], self.last.get(key, 0)))

    def _choose(self) -> set[int]:
        """The most popular keys that fit, the later used of equals, then the lower key."""
        room, chosen = self.pool.capacity, set()
        for key in sorted(self.pool.keys, key=lambda key: (-self.counts[key], -self.last.get(key, 0))):
            if self.counts[key] and self.pool.sizes[key] <= room:
                chosen.add(key)
                room -= self.pool.sizes[key]
        return chosen
