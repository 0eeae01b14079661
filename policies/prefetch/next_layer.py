from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import PrefetchPolicy, StepView, register


@register("next-layer")
class NextLayer(PrefetchPolicy):
    """While layer i computes, copy the experts of layer i + 1 (Read-ME 4.1; Pre-gated MoE with an exact pre-gate)."""

    source = "Read-ME (2410.19123) 4.1; Pre-gated MoE (2308.12066)"
    cost = "O(k)"
    level = "step"
    view: StepView

    def plan(self) -> Sequence[int]:
        following = self.view.layer + 1
        return self.view.needed(following) if following < self.view.layers else ()
