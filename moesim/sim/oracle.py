"""The oracle of a free schedule: it knows every route, output length and arrival, but not how long steps will take.

Its forecast rolls the batcher forward, timing arrivals by the mean of recent steps. The policy changes which batches
form, so this is a strong guess and no bound (DESIGN 5); results are labelled so.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from moesim.policy import Queued
from moesim.sim.schedule import routes_of
from moesim.sim.work import Part, Work, make_work

if TYPE_CHECKING:
    from moesim.sim.server import FreeServer

REACH = 96
"""steps that a roll foresees"""
LEAST = 32
"""steps left of the last roll below which it is made again"""


class FreeOracle:
    """Foresees the coming steps and keeps the forecast for as long as it comes true."""

    def __init__(self, server: FreeServer) -> None:
        self.server = server
        self.coming: deque[Work] = deque()
        self.recent: deque[int] = deque(maxlen=32)
        self.last_start = 0

    def later(self, step: int, work: Work, unseen: int) -> np.ndarray:
        """The number of the step that uses each expert next after `step` ([experts], or [layers, experts])."""
        now = self.server.now
        if step:
            self.recent.append(now - self.last_start)
        self.last_start = now
        if not self.coming or self.coming.popleft().parts != work.parts or len(self.coming) < LEAST:
            self.coming = self._roll(work)
        return self._next_steps(step, len(work.layers), unseen)

    def _next_steps(self, step: int, rows: int, unseen: int) -> np.ndarray:
        later = np.full((rows, self.server.setup.engine.experts), unseen, dtype=np.int64)
        for ahead in range(len(self.coming), 0, -1):
            for row, of_layer in enumerate(self.coming[ahead - 1].layers):
                later[row, list(of_layer.experts)] = step + ahead
        return later[0] if rows == 1 else later

    def _roll(self, work: Work) -> deque[Work]:
        server, workload = self.server, self.server.workload
        queue = {q.request: q.copy() for q in server.scheduler.queue.values()}
        produced = {r: workload[r].produced for r in {*queue, *(p.request for p in work.parts)}}
        length = sum(self.recent) // len(self.recent) if self.recent else 0
        arrived = server.arrived
        now = server.now
        parts: tuple[Part, ...] = work.parts
        found: deque[Work] = deque()
        while len(found) < REACH:
            now += length
            arrived = self._deliver(parts, queue, produced, arrived, now)
            chosen = server.scheduler.policy.form(list(queue.values()), server.limits) if queue else []
            if not chosen:
                break
            parts = tuple(Part(q.request, q.position, n, not q.decoding) for q, n in chosen)
            self._take(queue, chosen)
            found.append(make_work(parts, server.trace, workload.sequences))
        return found

    def _deliver(
        self, parts: tuple[Part, ...], queue: dict[int, Queued], produced: dict[int, int], arrived: int, now: int
    ) -> int:
        """The step is over: its requests go on or leave, others arrive; return how many have arrived by then."""
        server, workload = self.server, self.server.workload
        traffic = server.config.traffic
        leaving = 0
        for part in parts:
            request = workload[part.request]
            if part.prefill and part.start + part.tokens < request.prompt:
                continue
            produced[part.request] += 1
            if produced[part.request] < request.output:
                routes = routes_of(server.trace, request.sequence)
                queue[part.request] = Queued(part.request, part.start + part.tokens, 0, 1, routes)
            else:
                leaving += 1
        while arrived < traffic.requests:
            request = workload[arrived]
            if request.arrival > now or (request.arrival < 0 and not leaving):
                break
            leaving -= request.arrival < 0
            queue[arrived] = Queued(
                arrived, 0, request.prompt, request.prompt, routes_of(server.trace, request.sequence)
            )
            produced[arrived] = 0
            arrived += 1
        return arrived

    @staticmethod
    def _take(queue: dict[int, Queued], chosen: list[tuple[Queued, int]]) -> None:
        for queued, tokens in chosen:
            queued.advance(tokens)
            if not queued.known:
                del queue[queued.request]
        ran = {queued.request for queued, _ in chosen}
        for request, queued in queue.items():
            if request not in ran:
                queued.skipped += 1
