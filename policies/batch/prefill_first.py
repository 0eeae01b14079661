from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Limits, Queued, register
from moesim.policy.batch import Aged, fill


@register("prefill-first")
class PrefillFirst(Aged):
    """Waiting prompts alone as long as there are any, else decode tokens (vLLM before chunked prefill; TGI).

    What is under way and was passed over `patience` steps in a row goes first; null: decode tokens wait for as long as
    prompts come.

    Source: the prefill-prioritized baseline of Read-ME (2410.19123), section 5.3; vLLM before chunked prefill and TGI
    (code, no section).
    """

    cost = "O(queue)"
    in_order = True

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        prompts = [q for q in queue if q.prompt_left]
        return fill(self.aged(queue, prompts or queue), limits)
