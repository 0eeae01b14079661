from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import BatchPolicy, Limits, Queued, register
from moesim.policy.batch import fill, longest_expert_first


@register("expert-aware-aged")
class ExpertAwareAged(BatchPolicy):
    """Algorithm 1, but requests passed over `patience` steps in a row go first, in queue order: none starves.

    No request is passed over more than `patience` + sum of ceil(known tokens / max_tokens) steps in a row, the sum
    being over the requests ahead of it when it joined the queue.
    """

    source = "Read-ME (2410.19123), Algorithm 1, with ages of our own"
    cost = "O(queued tokens)"
    level = "queue"

    def __init__(self, filing: str = "majority", patience: int = 8) -> None:
        if filing not in ("span", "majority"):
            raise ValueError(f"filing {filing!r} must be span or majority")
        if patience < 0:
            raise ValueError(f"patience {patience!r} must be a number of steps, 0 or more")
        self.filing = filing
        self.patience = patience

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        waited = [q for q in queue if q.skipped >= self.patience]
        return longest_expert_first(queue, limits, self.filing, fill(waited, limits))
