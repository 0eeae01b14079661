"""Steps that a queue would lead to, as level `queue` sees it: no further arrivals, one known token per request."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from moesim.policy import BatchPolicy, Limits, Queued
from moesim.sim.work import Part

Chosen = Callable[[int, int, int], list[list[int]]]
"""(request, first position, tokens) -> the experts of each token, strongest first (decoupled router)"""


def foresee(
    batch: BatchPolicy,
    limits: Limits,
    queue: Sequence[Queued],
    running: Sequence[Part],
    chosen: Chosen,
    *,
    persist: bool,
    strongest: Callable[[int, int, int], object],
) -> list[set[int]]:
    """Experts of each step after the one that runs `running` now; `queue` is what waits beside it.

    `persist`: a request that runs out of known tokens is given one more, routed like its last one; that goes for those
    that run now, unless their prompt goes on.
    """
    waiting = [queued.copy() for queued in queue]
    assumed: dict[int, set[int]] = {}

    def assume(request: int, position: int) -> None:
        if persist:
            waiting.append(Queued(request, position, 0, 1, strongest(request, position - 1, 1)))  # type: ignore[arg-type]
            assumed[request] = set(chosen(request, position - 1, 1)[0])

    for part in running:
        if all(queued.request != part.request for queued in waiting):
            assume(part.request, part.start + part.tokens)
    steps: list[set[int]] = []
    while waiting:
        picked = batch.form(list(waiting), limits)
        used: set[int] = set()
        for queued, tokens in picked:
            if queued.request in assumed:
                used |= assumed[queued.request]
                waiting.remove(queued)
                continue
            used |= {expert for token in chosen(queued.request, queued.position, tokens) for expert in token}
            queued.advance(tokens)
            if not queued.known:
                waiting.remove(queued)
                assume(queued.request, queued.position)
        ran = {queued.request for queued, _ in picked}
        for queued in waiting:
            queued.skipped += queued.request not in ran
        steps.append(used)
    return steps
