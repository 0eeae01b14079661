from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import PrefetchPolicy, register


@register("guess")
class Guess(PrefetchPolicy):
    """Keys by number and instant, needed or not: wastes a lot, and knows of no next use that it should spare."""

    def __init__(self, most: int = 2) -> None:
        self.most = most

    def plan(self) -> Sequence[int]:
        keys = self.view.layers * self.view.experts
        return list(dict.fromkeys((7 * self.view.event + 3 * n + 11) % keys for n in range(self.most)))
