"""What the views of the reference show: next uses of keys, worked out anew at every event from a list of uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from moesim.hardware.keys import Keys
from moesim.policy import FAR, FAR_VIEWS, NEAR_VIEWS, PredictedView, View

Use = tuple[int, int]
"""a key, and the number of a layer event that uses it"""
Named = Mapping[int, np.ndarray]
"""by distance, experts that tokens are predicted to choose, int16 [tokens, places]"""


class Sight:
    """The view of one level and one assumption about what it does not show. `k`: experts of a token."""

    def __init__(self, level: str, unknown: str, keys: Keys, k: int) -> None:
        self.level, self.unknown, self.layers = level, unknown, keys.layers
        self.far = level in FAR_VIEWS
        self.next_uses = np.full(keys.count, FAR, dtype=np.int64)
        self.uses: list[Use] = []
        self.view: View
        if self.far:
            self.view = FAR_VIEWS[level](keys.layers, keys.experts, self.next_uses, keys.table)
        elif level == PredictedView.level:
            self.view = PredictedView(keys.layers, keys.experts, k, keys.table)
        else:
            self.view = NEAR_VIEWS[level](keys.layers, keys.experts, keys.table)

    def begin(self, step: int, needed: Sequence[Sequence[int]], beyond: Iterable[Use]) -> None:
        """A step starts that needs the keys `needed` of each layer; `beyond` it, what the level shows or assumes."""
        self.view.step, self.view.layer = step, -1
        if self.level != "history":
            self.view.current = ()  # type: ignore[attr-defined]
        if isinstance(self.view, PredictedView):
            self.view.named = {}
        if self.far:
            self.view.upcoming = [tuple(keys) for keys in needed]  # type: ignore[attr-defined]
            first = step * self.layers
            self.uses = [(key, first + layer) for layer, keys in enumerate(needed) for key in keys]
            self.uses += beyond
            self._look()

    def enter(self, layer: int, keys: Sequence[int], named: Named) -> None:
        """The gate of `layer`, which predicts `named`."""
        self.view.layer = layer
        if isinstance(self.view, PredictedView):
            self.view.named = named
        if self.level != "history":
            self.view.current = tuple(keys)  # type: ignore[attr-defined]
        if self.far:
            self._look()

    def _look(self) -> None:
        self.next_uses[:] = FAR
        for key, event in self.uses:
            if event > self.view.event:
                self.next_uses[key] = min(self.next_uses[key], event)

    def sooner(self, key: int) -> list[int]:
        """Keys that are shown to be needed no later than `key`."""
        limit = int(self.next_uses[key])
        return [other for other, use in enumerate(self.next_uses.tolist()) if use < FAR and use <= limit]
