from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import PrefetchPolicy, register


@register("guess")
class Guess(PrefetchPolicy):
    """Keys by number and instant, needed or not: wastes a lot, and knows of no next use that it should spare.

    `fickle`: it gives up what is under way as soon as it would not plan it any more.
    """

    def __init__(self, keys: int, most: int = 2, fickle: bool = False) -> None:
        self.keys, self.most, self.fickle = keys, most, fickle

    def plan(self) -> Sequence[int]:
        return list(dict.fromkeys((7 * self.view.event + 3 * n + 11) % self.keys for n in range(self.most)))

    def cancel(self, moving: Sequence[int]) -> Sequence[int]:
        return [key for key in moving if key not in self.plan()] if self.fickle else ()
