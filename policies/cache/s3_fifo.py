from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator, Sequence

from moesim.policy import CachePolicy, Pool, View, register
from moesim.policy.cache import in_units

MOST = 3
"""a key in the main queue is spared at most so often"""


@register("s3-fifo")
class S3FIFO(CachePolicy):
    """Keys enter a small FIFO; those used there move to a main FIFO, others leave and are remembered (S3-FIFO).

    `small`: share of the capacity of the small queue. `moves_at`: uses in the small queue that move a key to the main
    one (2 in libCacheSim). `ghosts`: how much of what left the small queue is remembered, as a share of the capacity; a
    key that comes back from there enters the main queue. As in libCacheSim, a full small queue sends new keys to the
    main one until the first eviction. Queues move when their victim leaves; barred keys of the small queue stay where
    they are, those of the main queue are passed over. Meant for caches of 20 keys and more.

    Source: Yang et al., SOSP 2023, Algorithm 1; libCacheSim S3FIFO (code, no section).
    """

    cost = "O(1) amortized"

    def __init__(self, small: float = 0.1, ghosts: float = 0.9, moves_at: int = 2) -> None:
        if isinstance(small, bool) or not isinstance(small, int | float) or not 0 < small < 1:
            raise ValueError(f"small {small!r} must be a share between 0 and 1")
        if isinstance(ghosts, bool) or not isinstance(ghosts, int | float) or ghosts < 0:
            raise ValueError(f"ghosts {ghosts!r} must be a share, 0 or more")
        if isinstance(moves_at, bool) or not isinstance(moves_at, int) or moves_at < 1:
            raise ValueError(f"moves_at {moves_at!r} must be a whole number of uses, 1 or more")
        self.shares, self.moves_at = (small, ghosts), moves_at

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        capacity, self.sizes = in_units(pool)
        self.most_small = int(capacity * self.shares[0])
        self.most_main = capacity - self.most_small
        self.most_ghosts = int(capacity * self.shares[1])
        self.small: OrderedDict[int, int] = OrderedDict()
        self.main: OrderedDict[int, int] = OrderedDict()
        """keys in the order in which they entered, and uses since"""
        self.ghosts: OrderedDict[int, None] = OrderedDict()
        self.held_small = self.held_main = self.held_ghosts = 0
        self.returning: set[int] = set()
        """keys of the layer event that were ghosts"""
        self.has_evicted = False
        self.named: set[int] = set()
        """victims named since anything entered; others that leave, as a cancelled prefetch does, move no queue"""

    def used(self, keys: Sequence[int]) -> None:
        self.named.clear()
        for key in keys:
            if key in self.small:
                self.small[key] += 1
            elif key in self.main:
                self.main[key] += 1
            elif self._forget(key):
                self.returning.add(key)

    def inserted(self, key: int, prefetched: bool) -> None:
        self.named.clear()
        known = key in self.returning or self._forget(key)
        self.returning.discard(key)
        if known or (not self.has_evicted and self.held_small >= self.most_small):
            self._enter_main(key, 0)
        else:
            self.small[key] = 0
            self.held_small += self.sizes[key]

    def evicted(self, key: int) -> None:
        if key in self.named:
            self.has_evicted = True
            self._sweep(key)
            if key in self.small:
                self._remember(key)
        if key in self.small:
            self._leave_small(key)
        elif key in self.main:
            del self.main[key]
            self.held_main -= self.sizes[key]

    def victim(self, barred: Container[int]) -> int | None:
        for key in self._candidates():
            if key not in barred:
                self.named.add(key)
                return key
        return None

    def _main_first(self) -> bool:
        return self.held_main > self.most_main or not self.small

    def _candidates(self) -> Iterator[int]:
        """Keys in the order in which they would leave if those before them might not."""
        main_first = self._main_first()
        if not main_first:
            yield from (key for key, uses in self.small.items() if uses < self.moves_at)
        for spared in range(MOST + 1):
            yield from (key for key, uses in self.main.items() if min(uses, MOST) == spared)
            if spared == 0 and not main_first:
                yield from (key for key, uses in self.small.items() if uses >= self.moves_at)
        if main_first:
            yield from self.small

    def _sweep(self, victim: int) -> None:
        """Move the queues up to `victim`, which stays where it is found."""
        if not self._main_first():
            for key, uses in list(self._up_to(victim)):
                if uses >= self.moves_at:
                    self._leave_small(key)
                    self._enter_main(key, 0)
        while victim in self.main:
            key, uses = next(iter(self.main.items()))
            if key == victim and uses == 0:
                return
            self.main.move_to_end(key)
            self.main[key] = max(min(uses, MOST) - 1, 0)

    def _up_to(self, victim: int) -> Iterator[tuple[int, int]]:
        """Keys of the small queue that are looked at before `victim`."""
        stays = self.small.get(victim, self.moves_at) < self.moves_at
        for key, uses in self.small.items():
            if stays and key == victim:
                return
            yield key, uses

    def _leave_small(self, key: int) -> None:
        del self.small[key]
        self.held_small -= self.sizes[key]

    def _enter_main(self, key: int, uses: int) -> None:
        self.main[key] = uses
        self.held_main += self.sizes[key]

    def _remember(self, key: int) -> None:
        size = self.sizes[key]
        if size > self.most_ghosts:
            return
        while self.held_ghosts + size > self.most_ghosts:
            self._forget(next(iter(self.ghosts)))
        self.ghosts[key] = None
        self.held_ghosts += size

    def _forget(self, key: int) -> bool:
        if key not in self.ghosts:
            return False
        del self.ghosts[key]
        self.held_ghosts -= self.sizes[key]
        return True
