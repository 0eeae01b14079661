"""What the gates of a step predict of later layers, as the trace has it: level `predicted` (docs/model.md)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from moesim.sim.rows import StepRows


class Predictions:
    """The recorded predictions of the tokens of the step that runs, layer by layer."""

    def __init__(self, step: StepRows) -> None:
        self._step = step
        self._layers = step.trace.meta.layers

    def made_at(self, layer: int) -> Mapping[int, np.ndarray]:
        """Distance -> int16 [tokens, p], made at a layer's gate; empty before the first one (-1).

        Copies, so that whoever holds them cannot reach what comes after.
        """
        if layer < 0:
            return {}
        predicted, rows = self._step.trace.predicted.items(), self._step.rows
        return {distance: ids[rows, layer] for distance, ids in predicted if layer + distance < self._layers}
