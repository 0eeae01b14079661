from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import PrefetchPolicy, StepView, register


@register("next-layer")
class NextLayer(PrefetchPolicy):
    """While layer i computes, copy the experts of layer i + 1 (Read-ME 4.1; Pre-gated MoE with an exact pre-gate).

    Source: Read-ME (2410.19123), section 4.1; Pre-gated MoE (2308.12066), from notes (section not known).
    """

    cost = "O(k)"
    level = "step"
    view: StepView

    def plan(self) -> Sequence[int]:
        following = self.view.layer + 1
        return self.view.needed(following) if following < self.view.layers else ()
