from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Handling, Missing, MissPolicy, register


@register("wait")
class Wait(MissPolicy):
    """Every missing expert is copied, and waited for.

    Source: the null policy, no section.
    """

    cost = "O(1)"

    def decide(self, missing: Sequence[Missing]) -> Sequence[Handling]:
        return [Handling.WAIT] * len(missing)
