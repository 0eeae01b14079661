from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

from moesim.policy import CachePolicy, Pool, View, find, register
from moesim.policy.cache import Ranking


class Unless:
    """All keys but the `free` ones that are not in `barred`."""

    __slots__ = ("barred", "free")

    def __init__(self, free: Container[int], barred: Container[int]) -> None:
        self.free, self.barred = free, barred

    def __contains__(self, key: object) -> bool:
        return key not in self.free or key in self.barred


class Shadow:
    """A cache of keys alone under a policy of its own, as large as the real one and given the same layer events."""

    def __init__(self, made: CachePolicy, pool: Pool, view: View) -> None:
        self.made, self.sizes, self.room = made, pool.sizes, pool.capacity
        made.start(pool, view)
        self.resident: set[int] = set()
        self.missed = 0
        """bytes"""
        self.strays = Ranking()
        """keys of the real cache that are not in this one, by last use"""

    def use(self, keys: Sequence[int]) -> Iterator[int]:
        """A layer event; gives the keys that it pushes out."""
        self.made.used(keys)
        absent = [key for key in keys if key not in self.resident]
        for number, key in enumerate(absent):
            self.missed += self.sizes[key]
            yield from self.bring(key, (set(keys), set(absent[number:]), ()))

    def bring(self, key: int, tiers: Sequence[Container[int]], prefetched: bool = False) -> Iterator[int]:
        while self.room < self.sizes[key]:
            victims = (self.made.victim(Unless(self.resident, barred)) for barred in tiers)
            victim = next((v for v in victims if v is not None), None)
            if victim is None:
                return
            self.made.evicted(victim)
            self.resident.remove(victim)
            self.room += self.sizes[victim]
            yield victim
        self.made.inserted(key, prefetched)
        self.resident.add(key)
        self.room -= self.sizes[key]


@register("predictive-lru")
class PredictiveLRU(CachePolicy):
    """Evict by predicted next uses as long as they serve and by LRU where they err; never far from LRU.

    Both rules run beside the cache on keys alone. The cache follows one of them: it evicts a key that this one has not,
    the least recently used of several. It follows predictions until their bytes missed exceed `trust` times those of
    LRU by more than the capacity, then LRU until that holds the other way round, and so on. In events that fit the
    pool, with keys of one size, demand loading and `trust` 2, it never misses more than 4 times what LRU does plus 3
    times the capacity, whatever the predictions are, and the same holds against the predictions alone (tests).
    Predictions are the next uses that `level` (`step`, `queue` or `oracle`) shows; what it does not show is assumed to
    be `unknown`: `persist` or `farthest`.

    Source: Wei, APPROX 2020 (2005.13716), BlindOracle combined with LRU (section not known); Lykouris and
    Vassilvitskii, ICML 2018 (section not known); Fiat et al., Competitive Paging Algorithms, 1991 (section not known).
    """

    cost = "O(n)"

    def __init__(self, level: str = "queue", unknown: str = "persist", trust: float = 2.0) -> None:
        if isinstance(trust, bool) or not isinstance(trust, int | float) or trust <= 1:
            raise ValueError(f"trust {trust!r} must be a number above 1")
        self.predicted: CachePolicy = find("cache", "lookahead")(level=level, unknown=unknown)  # type: ignore[assignment]
        self.level, self.unknown, self.trust = level, unknown, trust

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        recent: CachePolicy = find("cache", "lru")()  # type: ignore[assignment]
        self.followed, self.other = Shadow(self.predicted, pool, view), Shadow(recent, pool, view)
        self.recent = Ranking()
        """keys of the real cache by last use"""
        self.last: dict[int, int] = {}
        self.clock = 0
        self.event: Sequence[int] = ()

    def used(self, keys: Sequence[int]) -> None:
        self.event = keys
        for key in keys:
            self._touch(key)
        for shadow in (self.followed, self.other):
            for gone in shadow.use(keys):
                if gone in self.recent:
                    shadow.strays.set(gone, self.last[gone])
            for key in keys:
                if key in shadow.resident:
                    shadow.strays.drop(key)
        if self.followed.missed > self.trust * self.other.missed + self.pool.capacity:
            self.followed, self.other = self.other, self.followed

    def inserted(self, key: int, prefetched: bool) -> None:
        self.recent.set(key, 0)
        if prefetched:
            self._prefetched(key)
        self._touch(key) if prefetched or key not in self.last else self._rank(key)

    def evicted(self, key: int) -> None:
        self.recent.drop(key)
        for shadow in (self.followed, self.other):
            shadow.strays.drop(key)

    def victim(self, barred: Container[int]) -> int | None:
        stray = self.followed.strays.first(barred)
        return stray if stray is not None else self.recent.first(barred)

    def _prefetched(self, key: int) -> None:
        for shadow in (self.followed, self.other):
            if key not in shadow.resident:
                for gone in shadow.bring(key, (self.event, ()), prefetched=True):
                    if gone in self.recent:
                        shadow.strays.set(gone, self.last[gone])

    def _touch(self, key: int) -> None:
        self.clock += 1
        self.last[key] = self.clock
        self._rank(key)

    def _rank(self, key: int) -> None:
        if key in self.recent:
            self.recent.set(key, self.last[key])
            for shadow in (self.followed, self.other):
                if key not in shadow.resident:
                    shadow.strays.set(key, self.last[key])
