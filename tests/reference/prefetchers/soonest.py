from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.policy import FAR, PrefetchPolicy, StepView, register


@register("soonest")
class Soonest(PrefetchPolicy):
    """The `most` keys of which the next use is nearest, whatever the step: reaches over its end and wastes nothing."""

    level = "oracle"
    view: StepView

    def __init__(self, most: int = 3) -> None:
        self.most = most

    def plan(self) -> Sequence[int]:
        uses = self.view.next_uses
        nearest = np.argsort(uses, kind="stable").tolist()
        return [key for key in nearest if uses[key] < FAR and uses[key] > self.view.event][: self.most]
