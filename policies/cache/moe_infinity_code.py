from __future__ import annotations

from collections.abc import Container, Sequence

from moesim.policy import CachePolicy, Pool, View, register
from moesim.policy.cache import Ranking, layer_of


@register("moe-infinity-code")
class MoEInfinityCode(CachePolicy):
    """Evict the key with the fewest visits, the lowest expert then layer of equals (MoE-Infinity as it is shipped).

    The code (`expert_dispatcher.cpp`) looks through experts and their layers for the least `incache_visit_count`, which
    is an LFU and not the paper's rule. Despite its name the count outlives eviction. Scripts set all counts to 0 when a
    request's decoding starts; here they run on, or are set to 0 every `clear` steps, as in a batch there is no such
    instant. A visit is a key of a layer event, however many tokens use it, as in the code. A prefetch is
    none.

    Source: MoE-Infinity at d617801, core/parallel/expert_dispatcher.cpp (code, no section; not the rule of the paper,
    2401.14361 v3, Algorithm 1).
    """

    cost = "O(log n)"

    def __init__(self, clear: int | None = None) -> None:
        if clear is not None and (isinstance(clear, bool) or not isinstance(clear, int) or clear < 1):
            raise ValueError(f"clear {clear!r} must be null or a whole number of steps, 1 or more")
        self.clear = clear

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.visits: dict[int, int] = {}
        self.ranking = Ranking()
        self.since = 0

    def used(self, keys: Sequence[int]) -> None:
        if self.clear is not None and self.view.step - self.since >= self.clear:
            self.since = self.view.step
            self.visits.clear()
            for key in list(self.ranking.rank):
                self._rank(key)
        for key in keys:
            self.visits[key] = self.visits.get(key, 0) + 1
            if key in self.ranking:
                self._rank(key)

    def inserted(self, key: int, prefetched: bool) -> None:
        self._rank(key)

    def evicted(self, key: int) -> None:
        self.ranking.drop(key)

    def victim(self, barred: Container[int]) -> int | None:
        return self.ranking.first(barred)

    def _rank(self, key: int) -> None:
        layer = layer_of(self.view, key)
        self.ranking.set(key, (self.visits.get(key, 0), self.view.keys[layer].index(key), layer))
