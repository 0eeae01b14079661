from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import BatchPolicy, Limits, Queued, register
from moesim.policy.batch import check_filing, longest_expert_first


@register("expert-aware")
class ExpertAware(BatchPolicy):
    """Tokens of the longest expert queue first (Read-ME, Algorithm 1, its index slips and missing stop mended).

    `filing`: `span` or `majority`, see `longest_expert_first`. It has no age: a request of a rare expert can starve.

    Source: Read-ME (2410.19123), section 4.2, Algorithm 1.
    """

    cost = "O(queued tokens)"
    level = "queue"

    def __init__(self, filing: str = "majority") -> None:
        self.filing = check_filing(filing)

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        return longest_expert_first(queue, limits, self.filing)
