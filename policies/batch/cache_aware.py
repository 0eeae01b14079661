from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Limits, Queued, register
from moesim.policy.batch import Aged, check_filing, fill, longest_expert_first
from moesim.policy.residency import Residency


@register("cache-aware")
class CacheAware(Aged):
    """Aged Algorithm 1 that also looks at what is on the GPU: an absent expert's queue counts `load` tokens less.

    An expert that is there in a part of the layers loses that part less. `load` is what loading one expert in all
    layers costs, in tokens' worth of service: 0 is expert-aware-aged, a large one runs what is there first. It needs a
    cache to look at: in a frozen schedule, which is recorded with every expert there, it is refused.

    Source: moesim's own, no section: Read-ME (2410.19123), section 4.2, Algorithm 1, with a look at what is resident.
    """

    cost = "O(queue * tokens)"

    level = "queue"
    ages_unstarted = True

    def __init__(self, filing: str = "majority", patience: int = 8, load: float = 16) -> None:
        super().__init__(patience)
        if isinstance(load, bool) or not isinstance(load, int | float) or not load >= 0:
            raise ValueError(f"load {load!r} must be a number of tokens, 0 or more")
        self.filing, self.load = check_filing(filing), load
        self.residency: Residency | None = None

    def watch(self, residency: Residency) -> None:
        """Called once before a run: what is on the GPU, at whatever instant it is asked."""
        self.residency = residency

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        there = self.residency.shares() if self.residency else None

        def worth(expert: int, tokens: int) -> float:
            return tokens - (self.load * (1 - there[expert]) if there else 0)

        return longest_expert_first(queue, limits, self.filing, fill(self.waited(queue), limits), worth)
