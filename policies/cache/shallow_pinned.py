from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Sequence

from moesim.policy import CachePolicy, Pool, View, find, register
from moesim.policy.cache import layer_of


@register("shallow-pinned")
class ShallowPinned(CachePolicy):
    """Keep all keys of the first `layers` layers, share the rest among the deeper ones, each under ARC (Fate).

    For a cache of scope `global`. The victim comes from the deep layer that holds most beyond its share, the present
    layer taken to hold one key more; only if no deep key may go, it is the shallow one used longest ago. Shallow keys
    are not loaded before they are needed, as Fate does at its start. With the scope `layer`, shallow pools are LRU and
    deep ones ARC.

    Source: Fate (2502.12224), from notes (section not known); ARC: Megiddo and Modha, FAST 2003, figure 4.
    """

    cost = "O(layers)"

    def __init__(self, layers: int = 4) -> None:
        if isinstance(layers, bool) or not isinstance(layers, int) or layers < 0:
            raise ValueError(f"layers {layers!r} must be a whole number of layers, 0 or more")
        self.shallow = layers

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        arc = find("cache", "arc")
        by_layer: dict[int, list[int]] = {}
        for key in pool.keys:
            by_layer.setdefault(layer_of(view, key), []).append(key)
        pinned = sum(pool.sizes[key] for layer, keys in by_layer.items() if layer < self.shallow for key in keys)
        deep = {layer: keys for layer, keys in by_layer.items() if layer >= self.shallow}
        self.share = max(pool.capacity - pinned, 0) // max(len(deep), 1)
        self.deep: dict[int, CachePolicy] = {}
        self.held = dict.fromkeys(deep, 0)
        for layer, keys in deep.items():
            self.deep[layer] = arc()  # type: ignore[assignment]
            self.deep[layer].start(Pool(range(keys[0], keys[-1] + 1), self.share, pool.sizes, pool.rng), view)
        self.pinned: OrderedDict[int, bool] = OrderedDict()
        """shallow keys that are there (True) or needed by the present layer event, the one used longest ago first"""

    def used(self, keys: Sequence[int]) -> None:
        for key in [key for key in keys if layer_of(self.view, key) < self.shallow]:
            self.pinned.setdefault(key, False)
            self.pinned.move_to_end(key)
        for layer, arc in self.deep.items():
            own = [key for key in keys if layer_of(self.view, key) == layer]
            if own:
                arc.used(own)

    def inserted(self, key: int, prefetched: bool) -> None:
        layer = layer_of(self.view, key)
        if layer < self.shallow:
            self.pinned[key] = True
            if prefetched:
                self.pinned.move_to_end(key)
        else:
            self.held[layer] += self.pool.sizes[key]
            self.deep[layer].inserted(key, prefetched)

    def evicted(self, key: int) -> None:
        layer = layer_of(self.view, key)
        if layer < self.shallow:
            del self.pinned[key]
        else:
            self.held[layer] -= self.pool.sizes[key]
            self.deep[layer].evicted(key)

    def victim(self, barred: Container[int]) -> int | None:
        for layer in sorted(self.deep, key=self._room):
            victim = self.deep[layer].victim(barred)
            if victim is not None:
                return victim
        return next((key for key, there in self.pinned.items() if there and key not in barred), None)

    def _room(self, layer: int) -> int:
        """Bytes that a deep layer holds less than its share."""
        coming = self.pool.sizes[self.pool.keys.start] if layer == self.view.layer else 0
        return self.share - self.held[layer] - coming
