from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Limits, Queued, register
from moesim.policy.batch import Aged, fill


@register("decode-first")
class DecodeFirst(Aged):
    """Every ready decode token first, then waiting prompts, each in queue order (Orca; DeepSpeed inference).

    Where more requests decode than a step takes, new prompts wait until one is through; a prompt that is under way and
    passed over `patience` steps in a row goes first (null: it waits as well).

    Source: the decoding-prioritized baseline of Read-ME (2410.19123), section 5.3 (DeepSpeed inference); Orca (OSDI
    2022), section 3.1, for batches that change with every step.
    """

    cost = "O(queue)"
    starts_last = True
    in_order = True

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        decoding = [q for q in queue if not q.prompt_left]
        prompts = [q for q in queue if q.prompt_left]
        return fill(self.aged(queue, [*decoding, *prompts]), limits)
