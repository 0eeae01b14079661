from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import PrefetchPolicy, register


@register("none")
class NoPrefetch(PrefetchPolicy):
    """Demand loading only.

    Source: the null policy, no section.
    """

    cost = "O(1)"

    def plan(self) -> Sequence[int]:
        return ()
