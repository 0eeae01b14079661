from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Limits, Queued, register
from moesim.policy.batch import Aged, fill


@register("first-come")
class FirstCome(Aged):
    """Queue order, whatever the tokens are: prompts behind what came before them, decode tokens in turn.

    The control for anything that chooses: what a batcher is worth beyond it, it owes to its choice.

    Source: Orca (OSDI 2022), section 3.1 (iteration-level scheduling) and section 4.2 (first come, first served).
    """

    cost = "O(queue)"
    in_order = True

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        return fill(self.aged(queue, queue), limits)
