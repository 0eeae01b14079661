from __future__ import annotations

from collections.abc import Container

from moesim.policy import register
from moesim.policy.cache import ByLayer, layer_of, layers_until


@register("least-stale")
class LeastStale(ByLayer):
    """Evict keys that the present pass has not touched (stale ones) before those that it has, layer by layer.

    A pass is a step. `order`: which layer first, among stale keys and among the others: `first` layers first, or
    `farthest`, the layer that comes again last. In one layer the key touched longest ago. A prefetch is a touch; for a
    layer that the pass has left behind, it is one of the next pass. That stale keys go first, by layer, is known from
    notes; which layer first is not, and neither is the order within one.

    Source: SpecMD (2602.03921), from notes (section not known).
    """

    cost = "O(layers)"

    def __init__(self, order: str = "first") -> None:
        if order not in ("first", "farthest"):
            raise ValueError(f"order {order!r} must be first or farthest")
        self.order = order

    def when(self, key: int, prefetched: bool) -> int:
        """The number of the pass."""
        return self.view.step + (prefetched and layer_of(self.view, key) <= self.view.layer)

    def victim(self, barred: Container[int]) -> int | None:
        farthest = self.order == "farthest"
        best, victim = None, None
        for layer, key, when in self.oldest(barred):
            rank = when >= self.view.step, -layers_until(self.view, layer) if farthest else layer
            if best is None or rank < best:
                best, victim = rank, key
        return victim
