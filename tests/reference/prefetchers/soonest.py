from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.policy import FAR, PrefetchPolicy, StepView, register


@register("soonest")
class Soonest(PrefetchPolicy):
    """The `most` keys of which the next use is nearest, whatever the step: reaches over its end and wastes nothing.

    `fickle`: it gives up what is under way for what is needed sooner.
    """

    view: StepView

    def __init__(self, level: str = "oracle", most: int = 3, fickle: bool = False) -> None:
        self.level, self.most, self.fickle = level, most, fickle

    def plan(self) -> Sequence[int]:
        uses = self.view.next_uses
        nearest = np.argsort(uses, kind="stable").tolist()
        return [key for key in nearest if self.view.event < uses[key] < FAR][: self.most]

    def cancel(self, moving: Sequence[int]) -> Sequence[int]:
        return [key for key in moving if key not in self.plan()] if self.fickle else ()
