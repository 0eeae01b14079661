from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from moesim.policy import CachePolicy, Pool, View, register
from moesim.policy.cache import Scores
from moesim.policy.maps import Maps


@register("finemoe")
class FineMoE(CachePolicy):
    """Evict the key of largest 1 / (p * uses), p being its chance by the past step most like the present one (FineMoE).

    The paper's maps hold the gate's full distribution of each token and layer, and are searched by a semantic embedding
    for the first layers and by the distributions for later ones. Layer events show only which keys were used, so a map
    here is the set of keys of one step; it is matched by its layers so far, by cosine, and p is 1 for a key of the
    matched map and 1/experts for others. Uses are counted since a key entered; of equals the one used longest ago
    leaves. When all `maps` places are taken the most similar map is replaced. It needs the scope `global`.

    Source: FineMoE (2502.05370), sections 4.1 to 4.3.
    """

    cost = "O(maps + n)"

    def __init__(self, maps: int = 1000) -> None:
        if isinstance(maps, bool) or not isinstance(maps, int) or maps < 1:
            raise ValueError(f"maps {maps!r} must be a whole number, 1 or more")
        self.most = maps

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.maps = Maps(pool.keys, self.most)
        self.scores = Scores(pool.keys)
        self.uses = np.zeros(len(pool.keys))
        self.ahead: set[int] = set()
        """keys that a prefetch brought and that have not been used since; it counts as the use it was for"""

    def used(self, keys: Sequence[int]) -> None:
        self.maps.see(self.view.step, keys)
        for key in keys:
            self.scores.touch(key)
            place = key - self.scores.first
            if not self.scores.absent[place] and key not in self.ahead:
                self.uses[place] += 1
            self.ahead.discard(key)

    def inserted(self, key: int, prefetched: bool) -> None:
        place = key - self.scores.first
        self.scores.absent[place] = False
        self.uses[place] = 1
        if prefetched:
            self.scores.touch(key)
            self.ahead.add(key)

    def evicted(self, key: int) -> None:
        self.scores.absent[key - self.scores.first] = True
        self.ahead.discard(key)

    def victim(self, barred: Container[int]) -> int | None:
        worth = self.uses / self.view.experts
        number = self.maps.nearest()
        if number is not None:
            worth = np.where(self.maps.counts(number) > 0, self.uses, worth)
        return self.scores.lowest(worth, barred)
