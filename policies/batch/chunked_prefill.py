from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Limits, Queued, register
from moesim.policy.batch import Aged, pack


@register("chunked-prefill")
class ChunkedPrefill(Aged):
    """Decode tokens first, then chunks of prompts fill the token budget (Sarathi-Serve, OSDI'24; today's vLLM).

    The budget is `max_tokens`. Prompts that are under way go on before new ones start. Where more requests decode than
    a step takes, new prompts wait until one is through; a prompt that is under way and passed over `patience` steps in
    a row goes first (null: it waits as well).

    Source: Sarathi-Serve (OSDI 2024), sections 4.1 (chunked prefills) and 4.2 (stall-free batching); vLLM's default
    since 2024 (code, no section).
    """

    cost = "O(queue)"
    starts_last = True
    in_order = True

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        decoding, begun, fresh = [], [], []
        for q in queue:
            (begun if q.position else fresh).append(q) if q.prompt_left else decoding.append(q)
        return pack(self.aged(queue, [*decoding, *begun, *fresh]), limits)
