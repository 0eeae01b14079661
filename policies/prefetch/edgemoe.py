from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.policy import LayerView, PrefetchPolicy, View, register
from moesim.policy.prefetch import outdated

HALVED_AFTER = 30_000
"""events; as a cell grows by one an event at most, it stays below twice that and fits 16 bits"""


@register("edgemoe")
class EdgeMoE(PrefetchPolicy):
    """Copy the experts most likely in the next layer after those of the present layer and the one before (2-gram path).

    Learns P(expert of layer l | experts of l - 1 and l - 2) as it goes; the paper learns it offline. A batch has many
    paths at once and a layer event shows only which experts it uses: here each pair of experts of the two layers counts
    as a context, and the next layer's chances are summed over the pairs. `width`: how many to copy; null, as many as
    the present layer uses. In the second layer the context is the first layer alone; the first is not predicted. A
    guess that proves wrong is cancelled. Memory is layers * experts^3 * 2 bytes at most, 200 MB for 48 layers of 128.

    Source: EdgeMoE (2308.14352), from notes (section not known).
    """

    cost = "O(pairs * experts)"
    level = "layer"
    view: LayerView

    def __init__(self, width: int | None = None) -> None:
        if width is not None and (isinstance(width, bool) or not isinstance(width, int) or width < 1):
            raise ValueError(f"width {width!r} must be null or a whole number of experts, 1 or more")
        self.width = width

    def start(self, view: View) -> None:
        super().start(view)
        self.tables: dict[int, np.ndarray] = {}
        """by layer: how often an expert followed a pair, uint16 [experts + 1 (none), experts, experts]"""
        self.learned: dict[int, int] = {}
        """by layer: events since its table was halved"""
        self.path: list[list[int]] = []
        """experts of this step's layers so far"""
        self.step = self.event = -1

    def plan(self) -> Sequence[int]:
        view = self.view
        if view.layer < 0:
            return ()
        if view.event != self.event:
            self._learn()
        following = view.layer + 1
        if following not in self.tables or len(self.path) != following:
            return ()
        counts = self.tables[following][self._context(following)].astype(np.float64)
        chances = (counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)).sum(axis=(0, 1))
        likely = np.argsort(-chances, kind="stable")[: self.width or len(self.path[-1])]
        return [view.keys[following][expert] for expert in likely.tolist() if chances[expert] > 0]

    def cancel(self, moving: Sequence[int]) -> Sequence[int]:
        return outdated(self.view, moving)

    def _learn(self) -> None:
        view, self.event = self.view, self.view.event
        layer = view.layer
        if view.step != self.step:
            self.path, self.step = [], view.step
        if len(self.path) != layer:
            return  # a layer was missed: this step's path is lost
        self.path.append([view.keys[layer].index(key) for key in view.current])
        if layer == 0:
            return
        if layer not in self.tables:
            self.tables[layer] = np.zeros((view.experts + 1, view.experts, view.experts), dtype=np.uint16)
        if self.learned.get(layer, 0) >= HALVED_AFTER:
            self.tables[layer] //= 2
            self.learned[layer] = 0
        self.learned[layer] = self.learned.get(layer, 0) + 1
        before, last = self._pairs(layer)
        self.tables[layer][np.ix_(before, last, self.path[layer])] += 1

    def _pairs(self, layer: int) -> tuple[list[int], list[int]]:
        """Experts two layers and one layer before `layer`."""
        return self.path[layer - 2] if layer > 1 else [self.view.experts], self.path[layer - 1]

    def _context(self, layer: int) -> tuple[np.ndarray, ...]:
        return np.ix_(*self._pairs(layer))
