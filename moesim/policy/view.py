"""Views: the only door through which a policy sees the server (docs/model.md).

Each level's class shows what the level below shows and one thing more. The engine moves the view along; a policy
only reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

FAR = 1 << 60
"""a next use that the level does not show, in layer events"""


class View:
    """Level `history`: where the server is. A policy keeps its own account of past accesses."""

    level = "history"

    def __init__(self, layers: int, experts: int, keys: Sequence[Sequence[int]] = ()) -> None:
        self.layers = layers
        self.experts = experts
        self.keys = keys or [range(layer * experts, (layer + 1) * experts) for layer in range(layers)]
        """`keys[layer][expert]` is a key; layers may share some"""
        self.step = 0
        self.layer = -1
        """the present layer; -1 before the first layer of a step"""

    @cached_property
    def layer_of(self) -> Mapping[int, int]:
        """The layer of each key; of a shared one, the first that uses it."""
        found: dict[int, int] = {}
        for layer, keys in enumerate(self.keys):
            for key in keys:
                found.setdefault(key, layer)
        return found

    @property
    def event(self) -> int:
        """Number of the present layer event, `step * layers + layer`."""
        return self.step * self.layers + self.layer


class LayerView(View):
    """Level `layer`: also the keys of the present layer event, once its gate ran."""

    level = "layer"

    def __init__(self, layers: int, experts: int, keys: Sequence[Sequence[int]] = ()) -> None:
        super().__init__(layers, experts, keys)
        self.current: Sequence[int] = ()


class PredictedView(LayerView):
    """Level `predicted`: also what was predicted of later layers, for this step's tokens, when the present gate ran.

    Only the predictions made at the present layer, right and wrong ones; who wants earlier ones keeps them. Only a
    layer-wise router has any, so that `step` and what is above it need not show them.
    """

    level = "predicted"

    def __init__(self, layers: int, experts: int, k: int, keys: Sequence[Sequence[int]] = ()) -> None:
        super().__init__(layers, experts, keys)
        self.k = k
        """experts that the router chooses for a token"""
        self.named: Mapping[int, np.ndarray] = {}
        """distance -> int16 [tokens, p]: the experts of the layer so far ahead that each token of the step is predicted
        to choose, likeliest first; -1: none. Without the distances that lead beyond the last layer."""

    def predicted(self, distance: int, places: int | None = None) -> list[tuple[int, int]]:
        """(key, votes) of the layer `distance` ahead, most votes first; then by best place in a prediction, then key.

        A vote is a token that has the key among its first `places` predictions, or among all it has. Empty beyond the
        last layer, at a distance that the trace does not have, and before the first gate of a step.
        """
        named = self.named.get(distance)
        if named is None:
            return []
        ids = named[:, :places].astype(np.int64)
        votes = np.bincount(ids[ids >= 0], minlength=self.experts)
        best = np.zeros(self.experts + 1, dtype=np.int64)  # what -1 writes goes to the last entry, no expert's
        for place in range(ids.shape[1] - 1, -1, -1):
            best[ids[:, place]] = place
        experts = votes.nonzero()[0]
        keys = np.array(self.keys[self.layer + distance])[experts]
        order = np.lexsort((keys, best[experts], -votes[experts]))
        return list(zip(keys[order].tolist(), votes[experts[order]].tolist(), strict=True))


class StepView(LayerView):
    """Level `step` and, with the same face, `queue` and `oracle`: next uses as far as the level shows them."""

    level = "step"

    def __init__(
        self, layers: int, experts: int, next_uses: np.ndarray, keys: Sequence[Sequence[int]] = ()
    ) -> None:
        super().__init__(layers, experts, keys)
        self.next_uses = next_uses[:]
        """int64 [keys]: number of the layer event that uses the key next, after the present one; >= FAR if not shown"""
        self.next_uses.flags.writeable = False
        self.upcoming: Sequence[Sequence[int]] = ((),) * layers
        """keys of each layer of this step, ranked"""

    def needed(self, layer: int) -> Sequence[int]:
        """Keys of a layer of this step, ranked."""
        return self.upcoming[layer]


class QueueView(StepView):
    """Level `queue`: next uses reach into the steps that the batcher would form from the present queue."""

    level = "queue"


class OracleView(StepView):
    """Level `oracle`: everything, marked in every table."""

    level = "oracle"


NEAR_VIEWS: dict[str, type[View]] = {v.level: v for v in (View, LayerView)}
FAR_VIEWS: dict[str, type[StepView]] = {v.level: v for v in (StepView, QueueView, OracleView)}
"""those that show next uses"""
