from __future__ import annotations

from collections.abc import Container

from moesim.policy import register
from moesim.policy.cache import ByLayer, layers_until


@register("layer-aware-lru")
class LayerAwareLRU(ByLayer):
    """Evict the key of most (1 - distance) * age + distance * layers until its layer comes, both in layer events.

    LRU that knows the order of the layers. `distance` 0 is LRU, 1 the farthest layer first (HOBBIT's FLD term,
    2411.01433, 3.4). At 0.5, age and distance add up to whole passes: it is the key whose layer has come most often
    without it, and of equals the one whose layer comes last. That LLRU (2509.02408) adds the distance of layers to LRU
    is known from notes, its exact formula is not. Of a key that layers share it knows the first of them only.

    Source: LLRU (2509.02408), from notes (section not known); the FLD term of HOBBIT (2411.01433), section 3.4.
    """

    cost = "O(layers)"

    def __init__(self, distance: float = 0.5) -> None:
        if isinstance(distance, bool) or not isinstance(distance, int | float) or not 0 <= distance <= 1:
            raise ValueError(f"distance {distance!r} must be a number from 0 (LRU) to 1 (farthest layer first)")
        self.distance = distance

    def victim(self, barred: Container[int]) -> int | None:
        now = self.view.event
        most, victim = (-1.0, 0), None
        for layer, key, when in self.oldest(barred):
            ahead = layers_until(self.view, layer)
            rank = (1 - self.distance) * (now - when) + self.distance * ahead, ahead
            if rank > most:
                most, victim = rank, key
        return victim
