"""Which experts the coming steps will use, as far as a level can know: rolling the batcher forward (docs/model.md).

Only for decoupled routers: a layer-wise router knows nothing of tokens that have not run.
"""

from __future__ import annotations

from collections.abc import Iterator

from moesim.policy import BatchPolicy, Limits, Queued
from moesim.sim.work import Part
from moesim.trace.routing import RoutingTrace


class Forecaster:
    """Rolls the batcher over copies of the queue: no further arrivals, one known token per decoding request."""

    def __init__(self, policy: BatchPolicy, limits: Limits, trace: RoutingTrace, sequences: list[int]) -> None:
        self.policy = policy
        self.limits = limits
        self.trace = trace
        self.sequences = sequences

    def steps(self, queue: list[Queued], running: tuple[Part, ...], persist: bool) -> Iterator[set[int]]:
        """Experts of each step after the present one, whose parts `running` have left `queue`.

        With `persist` each request that runs dry of known tokens is given one more of its last expert; a request of
        the present step is one of those, unless its prompt goes on. What the batcher then does with that token is
        what it would do with a known one.
        """
        last: dict[int, set[int]] = {}
        waiting = {q.request: q.copy() for q in queue}
        assumed: set[int] = set()
        if persist:
            for part in running:
                if part.request not in waiting:
                    last[part.request] = self._experts(part.request, part.start + part.tokens - 1, 1)
                    self._assume(waiting, assumed, part.request, part.start + part.tokens)
        while waiting:
            chosen = self.policy.form(list(waiting.values()), self.limits)
            used: set[int] = set()
            ran = set()
            for queued, tokens in chosen:
                request = queued.request
                ran.add(request)
                if request in assumed:
                    used |= last[request]
                    del waiting[request]
                    continue
                used |= self._experts(request, queued.position, tokens)
                queued.advance(tokens)
                if not queued.known:
                    del waiting[request]
                    if persist:
                        last[request] = self._experts(request, queued.position - 1, 1)
                        self._assume(waiting, assumed, request, queued.position)
            for request, queued in waiting.items():
                if request not in ran:
                    queued.skipped += 1
            yield used

    def _experts(self, request: int, position: int, tokens: int) -> set[int]:
        row = self.trace.offsets[self.sequences[request]] + position
        chosen = self.trace.experts[row : row + tokens, 0] if tokens > 1 else self.trace.experts[row, 0]
        found = set(chosen.ravel().tolist())
        found.discard(-1)
        return found

    def _assume(self, waiting: dict[int, Queued], assumed: set[int], request: int, position: int) -> None:
        """Queue one token whose route repeats the one before it."""
        row = self.trace.offsets[self.sequences[request]]
        routes = self.trace.experts[row + position - 1 : row + position, 0, 0].copy()
        stand_in = Queued(request, 0, 0, 1, routes)
        waiting[request] = stand_in
        assumed.add(request)
