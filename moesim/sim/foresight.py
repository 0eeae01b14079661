"""Next uses of all keys, as far as an information level shows them (docs/model.md).

`next_uses[key]` is the number of the layer event that uses the key next, after the present one; FAR or more where the
level does not show it. It is kept up by rows: one row per layer.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from moesim.hardware.keys import Keys
from moesim.policy import FAR
from moesim.sim.work import Work


class Foresight:
    """Next uses within the step that runs and, through `later`, beyond it.

    `later` (int64 [experts] for a decoupled router, [layers, experts] for a layer-wise one) is the number of the step
    that uses an expert next after the present step, or FAR // layers.
    """

    def __init__(self, keys: Keys) -> None:
        layers, experts = self.layers, self.experts = keys.layers, keys.experts
        self.grid = np.full((layers, experts), FAR, dtype=np.int64)
        """by layer and expert; `next_uses` is the same by key"""
        self.next_uses = self.grid.reshape(-1) if keys.plain else np.full(keys.count, FAR, dtype=np.int64)
        self.unseen = FAR // layers + 1
        self._table = None if keys.plain else np.array(keys.table)
        self._offset = np.arange(layers, dtype=np.int64)
        self._after = self.grid.copy()

    def begin(self, step: int, work: Work, later: np.ndarray) -> None:
        """A step starts: all of its layers are still to come."""
        np.multiply(later, self.layers, out=self._after)
        self._after += self._offset[:, None]
        np.minimum(self._after, FAR, out=self._after)
        self.grid[:] = self._after
        now = step * self.layers
        if len(work.layers) == 1:
            self.grid[:, list(work.layers[0].experts)] = now + self._offset[:, None]
        else:
            for layer, of_layer in enumerate(work.layers):
                self.grid[layer, list(of_layer.experts)] = now + layer
        self._gather()

    def enter(self, layer: int) -> None:
        """Layer `layer` is the present event: its keys' next uses lie beyond this step."""
        self.grid[layer] = self._after[layer]
        self._gather()

    def _gather(self) -> None:
        """A key that several layers share is used next when the first of them uses it."""
        if self._table is not None:
            self.next_uses.fill(np.iinfo(np.int64).max)
            np.minimum.at(self.next_uses, self._table, self.grid)


def persisting(work: Work, step: int, shape: tuple[int, ...], unseen: int) -> np.ndarray:
    """`later` when all that is known is this step, and decoding requests are taken to keep their expert."""
    later = np.full(shape, unseen, dtype=np.int64)
    for layer, of_layer in enumerate(work.layers):
        later[(layer, list(of_layer.lasting)) if len(work.layers) > 1 else list(of_layer.lasting)] = step + 1
    return later


def first_uses(steps: Iterable[set[int]], step: int, experts: int, unseen: int) -> np.ndarray:
    """`later` from the experts of coming steps, the next one being `step + 1`; no more are read than it takes."""
    later = np.full(experts, unseen, dtype=np.int64)
    found: set[int] = set()
    for ahead, used in enumerate(steps, 1):
        for expert in used - found:
            later[expert] = step + ahead
        found |= used
        if len(found) == experts:
            break
    return later


def of_schedule(works: list[Work], layers: int, experts: int, unseen: int) -> list[np.ndarray]:
    """`later` of every step of a frozen schedule: the oracle's, exact."""
    rows = len(works[0].layers) if works else 1
    shape = (experts,) if rows == 1 else (layers, experts)
    later = np.full(shape, unseen, dtype=np.int64)
    found: list[np.ndarray] = []
    for step in range(len(works) - 1, -1, -1):
        found.append(later.copy())
        for layer, of_layer in enumerate(works[step].layers):
            later[list(of_layer.experts) if rows == 1 else (layer, list(of_layer.experts))] = step
    return found[::-1]
