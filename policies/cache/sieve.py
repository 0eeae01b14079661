from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence

from moesim.policy import CachePolicy, Pool, View, register


@register("sieve")
class Sieve(CachePolicy):
    """Evict the first key from the hand on that was not used since the hand passed it; new keys enter at the young end.

    Unlike Clock's, keys that the hand spares stay where they are. The hand moves when its victim leaves, and passes
    over barred keys as over used ones.

    Source: Zhang et al., NSDI 2024, Algorithm 1; libCacheSim Sieve (code, no section).
    """

    cost = "O(1) amortized"

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        # The queue from its old to its young end is `behind`, then the hand, then `ahead`. True: used since it passed.
        self.behind: OrderedDict[int, bool] = OrderedDict()
        self.ahead: OrderedDict[int, bool] = OrderedDict()
        self.named: set[int] = set()
        """victims named since anything entered; others that leave (a cancelled prefetch) do not move the hand"""

    def used(self, keys: Sequence[int]) -> None:
        self.named.clear()
        for key in keys:
            for part in (self.behind, self.ahead):
                if key in part:
                    part[key] = True

    def inserted(self, key: int, prefetched: bool) -> None:
        self.named.clear()
        self.ahead[key] = False

    def evicted(self, key: int) -> None:
        if key in self.named:
            self._sweep(key)
        else:
            self.behind.pop(key, None)
            self.ahead.pop(key, None)
        self._wrap()

    def victim(self, barred: Container[int]) -> int | None:
        spared = None
        for part in (self.ahead, self.behind):
            for key, used in part.items():
                if key not in barred:
                    if not used:
                        self.named.add(key)
                        return key
                    if spared is None:
                        spared = key
        if spared is not None:
            self.named.add(spared)
        return spared

    def _sweep(self, key: int) -> None:
        while True:
            passed, spared = self.ahead.popitem(last=False)
            if passed == key and not spared:
                return
            self.behind[passed] = False
            self._wrap()

    def _wrap(self) -> None:
        """Past the young end the hand is at the old end again."""
        if not self.ahead:
            self.ahead, self.behind = self.behind, self.ahead
