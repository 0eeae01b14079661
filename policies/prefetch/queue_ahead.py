from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import FAR, PrefetchPolicy, QueueView, register
from moesim.policy.prefetch import soonest


@register("queue-ahead")
class QueueAhead(PrefetchPolicy):
    """Copy the keys of the rest of this step and of the next `steps` steps that the queue foresees, the soonest first.

    A decoupled router has routed the queued tokens; the coming steps are those that the batcher would form from them.
    `steps` null takes all that is shown, 0 is `step-ahead`. `unknown`: what is assumed of tokens not routed yet,
    `farthest` (nothing) or `persist` (a decoding request keeps its expert).

    Source: Read-ME (2410.19123), section 4.1, reaching beyond the step.
    """

    cost = "O(n)"
    level = "queue"
    view: QueueView

    def __init__(self, steps: int | None = 1, unknown: str = "farthest") -> None:
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 0):
            raise ValueError(f"steps {steps!r} must be null (all that is shown) or a whole number, 0 or more")
        if unknown not in ("farthest", "persist"):
            raise ValueError(f"unknown {unknown!r} must be farthest or persist")
        self.steps, self.unknown = steps, unknown

    def plan(self) -> Sequence[int]:
        view = self.view
        return soonest(view, FAR - 1 if self.steps is None else (view.step + self.steps + 1) * view.layers - 1)
