from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence

from moesim.policy import CachePolicy, Pool, View, register
from moesim.policy.cache import in_units


class Queue(OrderedDict[int, int]):
    """Keys and their sizes, the oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self.held = 0

    def push(self, key: int, size: int) -> None:
        self[key] = size
        self.held += size

    def take(self, key: int) -> None:
        self.held -= self.pop(key)

    def shrink(self, most: int) -> None:
        while self and self.held > most:
            self.take(next(iter(self)))


@register("arc")
class ARC(CachePolicy):
    """Evict from the keys used once or from those used more often, as what left each of the two comes back (ARC).

    T1 and T2 hold what is there, B1 and B2 remember what left; a use of a key in B1 grows T1's share, in B2 T2's. A
    layer event adapts for all of its keys before any of them is loaded. A prefetch enters T1, adapts nothing, and its
    first use is the one it was fetched for; if a ghost list knew the key, that use moves it to T2.

    Source: Megiddo and Modha, FAST 2003, figure 4; libCacheSim ARC (code, no section).
    """

    cost = "O(1)"

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.capacity, self.sizes = in_units(pool)
        self.once, self.often = Queue(), Queue()
        self.left_once, self.left_often = Queue(), Queue()
        self.share = 0.0
        """of T1, in units"""
        self.event = -1
        self.coming: dict[int, Queue | None] = {}
        """absent keys of the layer event, and the ghost list that knew them"""
        self.ahead: dict[int, bool] = {}
        """keys that a prefetch brought and that have not been used since; True: a ghost list knew them"""
        self.named: set[int] = set()
        """victims named since anything entered: only these are remembered, not a prefetch that is called off"""

    def used(self, keys: Sequence[int]) -> None:
        self.named.clear()
        if self.event != self.view.event:
            self.event = self.view.event
            self.coming.clear()
        for key in keys:
            if key in self.once or key in self.often:
                self._hit(key)
            else:
                self._adapt(key)

    def inserted(self, key: int, prefetched: bool) -> None:
        self.named.clear()
        known = self.coming.pop(key, None)
        if prefetched:
            known = None
            self.ahead[key] = self._forget(key)
        (self.once if known is None else self.often).push(key, self.sizes[key])
        self.left_once.shrink(self.capacity - self.once.held)
        self.left_often.shrink(2 * self.capacity - self.once.held - self.often.held - self.left_once.held)

    def evicted(self, key: int) -> None:
        part, ghosts = (self.once, self.left_once) if key in self.once else (self.often, self.left_often)
        part.take(key)
        self.ahead.pop(key, None)
        if key in self.named:
            ghosts.push(key, self.sizes[key])

    def victim(self, barred: Container[int]) -> int | None:
        once, often = self.once, self.often
        known = next(iter(self.coming.values()), None)
        over = once.held > self.share or (once.held == self.share and known is self.left_often)
        for part in (once, often) if over or not often else (often, once):
            for key in part:
                if key not in barred:
                    self.named.add(key)
                    return key
        return None

    def _hit(self, key: int) -> None:
        part = self.once if key in self.once else self.often
        part.take(key)
        first = not self.ahead.pop(key, True)
        (self.once if first else self.often).push(key, self.sizes[key])

    def _adapt(self, key: int) -> None:
        """Case II and III of the paper, in units of the key's size."""
        once, often, size = self.left_once, self.left_often, self.sizes[key]
        if key in once:
            self.share = min(self.share + max(often.held / once.held, 1) * size, self.capacity)
            self.coming[key] = once
        elif key in often:
            self.share = max(self.share - max(once.held / often.held, 1) * size, 0)
            self.coming[key] = often
        else:
            self.coming.setdefault(key, None)
        self._forget(key)

    def _forget(self, key: int) -> bool:
        """Drop `key` from the ghost list that knows it, if one does."""
        for ghosts in (self.left_once, self.left_often):
            if key in ghosts:
                ghosts.take(key)
                return True
        return False
