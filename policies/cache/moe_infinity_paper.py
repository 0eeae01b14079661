from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from moesim.policy import CachePolicy, Pool, View, register
from moesim.policy.cache import Scores, layer_of
from moesim.policy.maps import Maps

EPSILON = 1e-6


@register("moe-infinity-paper")
class MoEInfinityPaper(CachePolicy):
    """Evict the key least likely by the past activation matrix most like the present step, deep layers first.

    (share of the key in its layer's row of the matched matrix + epsilon) * (1 - layer/layers), the least leaves, of
    equals the one used longest ago (MoE-Infinity v3, Algorithm 1). The paper's matrices hold the token counts of one
    request; here a step has one matrix for its whole batch. A kept one counts in how many of `window` steps a key was
    used, `maps` of them are kept, and the present step's keys so far are matched with them by cosine. Prompt and decode
    steps share the collection, which the paper keeps apart. It needs the scope `global`: a pool of one layer
    can only match that layer's own history. When all places are taken the most similar matrix is replaced.

    Source: MoE-Infinity (2401.14361 v3), Algorithm 1.
    """

    cost = "O(maps + n)"

    def __init__(self, maps: int = 120, window: int = 32) -> None:
        for name, value in (("maps", maps), ("window", window)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} {value!r} must be a whole number, 1 or more")
        self.most, self.window = maps, window

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.maps = Maps(pool.keys, self.most, self.window)
        self.scores = Scores(pool.keys)
        self.layer = np.array([layer_of(view, key) for key in pool.keys])
        self.depth = 1 - self.layer / view.layers
        self.matched: tuple[int | None, int] = (None, -1)
        self.worth = EPSILON * self.depth

    def used(self, keys: Sequence[int]) -> None:
        self.maps.see(self.view.step, keys)
        for key in keys:
            self.scores.touch(key)

    def inserted(self, key: int, prefetched: bool) -> None:
        self.scores.absent[key - self.scores.first] = False
        if prefetched:
            self.scores.touch(key)

    def evicted(self, key: int) -> None:
        self.scores.absent[key - self.scores.first] = True

    def victim(self, barred: Container[int]) -> int | None:
        matched = self.maps.nearest(), self.maps.version
        if matched != self.matched:
            self.matched, self.worth = matched, self._worth(matched[0])
        return self.scores.lowest(self.worth, barred)

    def _worth(self, number: int | None) -> np.ndarray:
        if number is None:
            return EPSILON * self.depth
        counts = self.maps.counts(number)
        rows = np.bincount(self.layer, weights=counts)
        return (counts / np.maximum(rows, 1)[self.layer] + EPSILON) * self.depth
