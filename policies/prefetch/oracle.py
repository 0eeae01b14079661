from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import OracleView, PrefetchPolicy, register
from moesim.policy.prefetch import soonest


@register("oracle")
class OraclePrefetch(PrefetchPolicy):
    """Copy the keys that will be needed within `reach` layer events, the soonest first, knowing the whole future.

    `reach` null is one step's layers. What a perfect predictor could do on the real link; nothing in it knows what the
    copies cost, so it is no bound on time.

    Source: textbook (perfect prediction on a real link), no section.
    """

    cost = "O(n)"
    level = "oracle"
    view: OracleView

    def __init__(self, reach: int | None = None) -> None:
        if reach is not None and (isinstance(reach, bool) or not isinstance(reach, int) or reach < 1):
            raise ValueError(f"reach {reach!r} must be null (one step) or a whole number of layer events, 1 or more")
        self.reach = reach

    def plan(self) -> Sequence[int]:
        return soonest(self.view, self.view.event + (self.reach or self.view.layers))
