from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Handling, Missing, MissPolicy, register


@register("wait")
class Wait(MissPolicy):
    """Every missing expert is copied, and waited for."""

    source = "the null policy"
    cost = "O(1)"

    def decide(self, missing: Sequence[Missing]) -> Sequence[Handling]:
        return [Handling.WAIT] * len(missing)
