from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import PrefetchPolicy, register


@register("stream-everything")
class StreamEverything(PrefetchPolicy):
    """Copy all experts of the next `ring` layers, whichever the gate will choose (DeepSpeed; SE-MoE's ring).

    `ring` 1 is dense prefetch as in ZeRO-Inference. SE-MoE keeps K sections on the GPU and overwrites one when its
    layer is over: `ring` K - 1 with a cache `fifo` of K layers' keys, and `wrap`, which goes on with the first layers
    of the next step.

    Source: DeepSpeed-MoE and ZeRO-Inference, from memory (section not known); SE-MoE (2205.10034), its ring, from
    memory (section not known).
    """

    cost = "O(ring * experts)"

    def __init__(self, ring: int = 1, wrap: bool = False) -> None:
        if isinstance(ring, bool) or not isinstance(ring, int) or ring < 1:
            raise ValueError(f"ring {ring!r} must be a whole number of layers, 1 or more")
        if not isinstance(wrap, bool):
            raise ValueError(f"wrap {wrap!r} must be true or false")
        self.ring, self.wrap = ring, wrap

    def plan(self) -> Sequence[int]:
        view = self.view
        first = view.layer + 1
        ahead = range(first, min(first + self.ring, view.layer + view.layers))
        layers = [layer % view.layers for layer in ahead if self.wrap or layer < view.layers]
        return [key for layer in layers for key in view.keys[layer]]
