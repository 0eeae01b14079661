"""Maps of which keys a step used, and the one among those of the past that the present step resembles most."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np


class Maps:
    """Up to `most` maps, each of `window` steps, and the map of the present step as far as it has come.

    A map counts in how many of its steps a key was used, for keys in the range `keys`. Resemblance is the cosine
    between the present step's map and a kept one, kept up as the step goes on. Once all places are taken, a new map
    takes that of the kept one which resembles it most, so that the maps stay different.
    """

    __slots__ = ("dots", "filled", "first", "gathered", "kept", "norms", "now", "step", "steps", "version", "window")

    def __init__(self, keys: range, most: int, window: int = 1) -> None:
        self.first = keys.start
        self.window = window
        # [keys, maps], as a key's row is read when it is used
        self.kept = np.zeros((len(keys), most), dtype=np.float32)
        self.norms = np.ones(most, dtype=np.float32)
        self.dots = np.zeros(most, dtype=np.float32)
        self.now = np.zeros(len(keys), dtype=np.float32)
        self.gathered = np.zeros(len(keys), dtype=np.float32)
        self.filled = self.steps = self.version = 0
        self.step = -1

    def see(self, step: int, keys: Iterable[int]) -> None:
        """`keys` are used in `step`; what a step names twice counts once."""
        if step != self.step:
            self._turn(step)
        fresh = [key - self.first for key in keys if not self.now[key - self.first]]
        if fresh:
            self.now[fresh] = 1
            self.gathered[fresh] += 1
            self.dots += self.kept[fresh].sum(axis=0)

    def nearest(self) -> int | None:
        """The number of the kept map that the present step resembles most, the first of equals; None if none does."""
        if not self.filled:
            return None
        alike = self.dots[: self.filled] / self.norms[: self.filled]
        best = int(alike.argmax())
        return best if alike[best] > 0 else None

    def counts(self, number: int) -> np.ndarray:
        """Kept map `number`, float32 [keys]."""
        return self.kept[:, number]

    def _turn(self, step: int) -> None:
        self.step = step
        self.steps += 1
        if self.steps > self.window:
            self._keep()
            self.steps = 1
        self.now[:] = 0
        self.dots[:] = 0

    def _keep(self) -> None:
        norm = float(np.sqrt((self.gathered**2).sum()))
        if norm > 0:
            place = self.filled
            if place == len(self.norms):
                place = int((self.gathered @ self.kept / self.norms).argmax())
            self.kept[:, place], self.norms[place] = self.gathered, norm
            self.filled = max(self.filled, place + 1)
            self.version += 1
        self.gathered[:] = 0
