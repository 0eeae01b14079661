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
        last: dict[int, int] = {}
        waiting = {q.request: q.copy() for q in queue}
        if persist:
            for request, start, tokens, _ in running:
                if request not in waiting:
                    self._assume(waiting, last, request, start + tokens)
        while waiting:
            chosen = self.policy.form(list(waiting.values()), self.limits)
            used: set[int] = set()
            going_on = set()
            for queued, tokens in chosen:
                request = queued.request
                if request in last:
                    used |= self._experts(request, last[request], 1)
                    del waiting[request]
                    continue
                used |= self._experts(request, queued.position, tokens)
                queued.advance(tokens)
                going_on.add(request)
                if not queued.known:
                    del waiting[request]
                    if persist:
                        self._assume(waiting, last, request, queued.position)
            for request, queued in waiting.items():
                if request not in going_on:
                    queued.skipped += 1
            yield used

    def _experts(self, request: int, position: int, tokens: int) -> set[int]:
        row = self._row(request) + position
        if tokens == 1:
            found = set(self.trace.experts[row, 0].tolist())
        else:
            found = set(self.trace.experts[row : row + tokens, 0].ravel().tolist())
        found.discard(-1)
        return found

    def _assume(self, waiting: dict[int, Queued], last: dict[int, int], request: int, position: int) -> None:
        """Queue one token whose route repeats the one before it, at `last`."""
        last[request] = position - 1
        row = self._row(request) + position - 1
        waiting[request] = Queued(request, 0, 0, 1, lambda: self.trace.experts[row : row + 1, 0, 0].copy())

    def _row(self, request: int) -> int:
        return int(self.trace.offsets[self.sequences[request]])
