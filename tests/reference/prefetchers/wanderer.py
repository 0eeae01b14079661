from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import FAR, PrefetchPolicy, StepView, register


@register("wanderer")
class Wanderer(PrefetchPolicy):
    """Half of what it plans the step needs, half it does not; and it gives up every other key that is under way."""

    view: StepView

    def __init__(self, level: str = "step") -> None:
        self.level = level

    def plan(self) -> Sequence[int]:
        view = self.view
        unknown = [key for key, use in enumerate(view.next_uses.tolist()) if use >= FAR]
        following = view.layer + 1
        needed = view.needed(following)[:2] if following < view.layers else ()
        return [*needed, *unknown[view.event % 2 :: 2]]

    def cancel(self, moving: Sequence[int]) -> Sequence[int]:
        return [key for key in moving if (key + self.view.event) % 2]
