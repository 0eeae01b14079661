from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import BatchPolicy, Limits, Queued, register
from moesim.policy.batch import fill


@register("decode-first")
class DecodeFirst(BatchPolicy):
    """Every ready decode token first, then waiting prompts, each in queue order (Orca; DeepSpeed inference)."""

    source = "Orca (OSDI 2022)"
    cost = "O(queue)"

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        decoding = [q for q in queue if q.decoding]
        prompts = [q for q in queue if not q.decoding]
        return fill([*decoding, *prompts], limits)
