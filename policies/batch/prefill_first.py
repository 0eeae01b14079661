from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import BatchPolicy, Limits, Queued, register
from moesim.policy.batch import fill


@register("prefill-first")
class PrefillFirst(BatchPolicy):
    """Waiting prompts alone as long as there are any, else decode tokens (vLLM before chunked prefill; TGI)."""

    source = "vLLM before chunked prefill; TGI"
    cost = "O(queue)"

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        prompts = [q for q in queue if not q.decoding]
        return fill(prompts or list(queue), limits)
