from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence

from moesim.policy import CachePolicy, Pool, View, register


@register("clock")
class Clock(CachePolicy):
    """Evict the oldest key that was not used since the hand last passed it; the hand spares the others once.

    FIFO with reinsertion and one reference bit. The hand moves when its victim leaves, and passes over barred keys as
    over used ones.

    Source: Corbato, A Paging Experiment with the Multics System, MIT Project MAC, 1968 (section not known); Tanenbaum
    and Bos, Modern Operating Systems, 4th edition, section 3.4.5; libCacheSim Clock (code, no section).
    """

    cost = "O(1) amortized"

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.ring: OrderedDict[int, bool] = OrderedDict()
        """resident keys from the hand on; True: used since the hand passed"""
        self.named: set[int] = set()
        """victims named since anything entered; others that leave (a cancelled prefetch) do not move the hand"""

    def used(self, keys: Sequence[int]) -> None:
        self.named.clear()
        for key in keys:
            if key in self.ring:
                self.ring[key] = True

    def inserted(self, key: int, prefetched: bool) -> None:
        self.named.clear()
        self.ring[key] = False

    def evicted(self, key: int) -> None:
        ring = self.ring
        while key in self.named:
            passed, spared = ring.popitem(last=False)
            if passed == key and not spared:
                return
            ring[passed] = False
        del ring[key]

    def victim(self, barred: Container[int]) -> int | None:
        spared = None
        for key, used in self.ring.items():
            if key not in barred:
                if not used:
                    self.named.add(key)
                    return key
                if spared is None:
                    spared = key
        if spared is not None:
            self.named.add(spared)
        return spared
