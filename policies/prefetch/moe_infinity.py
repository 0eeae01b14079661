from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.policy import LayerView, PrefetchPolicy, View, register
from moesim.policy.maps import Maps


@register("moe-infinity")
class MoEInfinityPrefetch(PrefetchPolicy):
    """Copy the later layers' keys of the past activation matrix most like the present step, likely and near ones first.

    After each gate the step's keys so far are matched by cosine; a key of layer i has the priority (share in its
    layer's row) * (1 - (i - present layer)/layers), and all keys above 0 are named, or the first `limit`. The paper's
    matrices hold the token counts of one request; the present event shows neither. A kept one counts
    in how many of `window` steps a key was used, and `maps` of them are kept, prompt and decode steps together. The
    shipped code matches what is left of the request instead of what was seen (`find_most_similar`).

    Source: MoE-Infinity (2401.14361 v3), its prefetching (section not known), beside Algorithm 1.
    """

    cost = "O(maps + n log n)"
    level = "layer"
    view: LayerView

    def __init__(self, maps: int = 120, window: int = 32, limit: int | None = None) -> None:
        for name, value in (("maps", maps), ("window", window)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} {value!r} must be a whole number, 1 or more")
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise ValueError(f"limit {limit!r} must be null (all) or a whole number of keys, 1 or more")
        self.most, self.window, self.limit = maps, window, limit

    def start(self, view: View) -> None:
        super().start(view)
        self.table = np.array(view.keys)
        self.maps = Maps(range(int(self.table.max()) + 1), self.most, self.window)

    def plan(self) -> Sequence[int]:
        view = self.view
        if view.layer < 0:
            return ()
        self.maps.see(view.step, view.current)
        number = self.maps.nearest()
        if number is None:
            return ()
        first = view.layer + 1
        counts = self.maps.counts(number)[self.table[first:]]
        rows = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        decay = 1 - np.arange(1, view.layers - view.layer)[:, None] / view.layers
        priority = (counts / rows * decay).reshape(-1)
        order = np.argsort(-priority, kind="stable")[: self.limit]
        keys = self.table[first:].reshape(-1)[order[priority[order] > 0]]
        return list(dict.fromkeys(keys.tolist()))
