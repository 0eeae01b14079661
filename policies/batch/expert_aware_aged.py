from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Limits, Queued, register
from moesim.policy.batch import Aged, check_filing, fill, longest_expert_first


@register("expert-aware-aged")
class ExpertAwareAged(Aged):
    """Algorithm 1, but requests passed over `patience` steps in a row go first, in queue order: none starves.

    No request is passed over more than `patience` + sum of ceil(known tokens / max_tokens) steps in a row, the sum
    being over the requests ahead of it when it joined the queue (`Aged.bound`).

    Source: Read-ME (2410.19123), section 4.2, Algorithm 1; the ages are moesim's own (no section).
    """

    cost = "O(queued tokens)"
    level = "queue"
    ages_unstarted = True

    def __init__(self, filing: str = "majority", patience: int = 8) -> None:
        super().__init__(patience)
        self.filing = check_filing(filing)

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        return longest_expert_first(queue, limits, self.filing, fill(self.waited(queue), limits))
