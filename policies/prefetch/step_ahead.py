from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import PrefetchPolicy, StepView, register


@register("step-ahead")
class StepAhead(PrefetchPolicy):
    """Copy the experts of the next `layers` layers of this step, nearest first (a decoupled router shows them all).

    Source: Read-ME (2410.19123), section 4.1.
    """

    cost = "O(keys of the step)"
    level = "step"
    view: StepView

    def __init__(self, layers: int | None = None) -> None:
        if layers is not None and layers < 1:
            raise ValueError(f"layers {layers!r} must be null (all of the step) or 1 or more")
        self.reach = layers

    def plan(self) -> Sequence[int]:
        first = self.view.layer + 1
        last = self.view.layers if self.reach is None else min(self.view.layers, first + self.reach)
        return [key for layer in range(first, last) for key in self.view.needed(layer)]
