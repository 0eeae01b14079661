from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import PrefetchPolicy, register


@register("none")
class NoPrefetch(PrefetchPolicy):
    """Demand loading only."""

    source = "the null policy"
    cost = "O(1)"

    def plan(self) -> Sequence[int]:
        return ()
