"""The oracle of a free schedule: it knows every route, output length and arrival, but not how long steps will take.

Its forecast rolls the batcher forward, timing arrivals by the mean of recent steps. The policy changes which batches
form, so this is a strong guess and no bound (docs/model.md); results are labelled so.
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
"""steps that are foreseen at most"""


class FreeOracle:
    """Foresees the coming steps, as many as it takes, and keeps the forecast for as long as it comes true."""

    def __init__(self, server: FreeServer) -> None:
        self.server = server
        self.coming: deque[Work] = deque()
        self.roll: Roll | None = None
        self.recent: deque[int] = deque(maxlen=32)
        self.last_start = 0

    def later(self, step: int, work: Work, unseen: int) -> np.ndarray:
        """The number of the step that uses each expert next after `step` ([experts], or [layers, experts])."""
        now = self.server.now
        if step:
            self.recent.append(now - self.last_start)
        self.last_start = now
        if not self.coming or self.coming.popleft().parts != work.parts or self.roll is None:
            self.coming.clear()
            length = sum(self.recent) // len(self.recent) if self.recent else 0
            self.roll = Roll(self.server, work, length)
        return self._next_steps(step, len(work.layers), unseen)

    def _next_steps(self, step: int, rows: int, unseen: int) -> np.ndarray:
        later = np.full((rows, self.server.setup.engine.experts), unseen, dtype=np.int64)
        missing = later.size
        for ahead in range(1, REACH + 1):
            work = self._foreseen(ahead)
            if work is None or not missing:
                break
            for row, of_layer in enumerate(work.layers):
                for expert in of_layer.experts:
                    if later[row, expert] == unseen:
                        later[row, expert] = step + ahead
                        missing -= 1
        return later[0] if rows == 1 else later

    def _foreseen(self, ahead: int) -> Work | None:
        assert self.roll is not None
        while len(self.coming) < ahead:
            work = self.roll.step()
            if work is None:
                return None
            self.coming.append(work)
        return self.coming[ahead - 1]


class Roll:
    """A copy of the server's queue that runs ahead of it, each step taking `length` ns."""

    def __init__(self, server: FreeServer, work: Work, length: int) -> None:
        self.server, self.length = server, length
        self.now = server.now
        self.queue = {q.request: q.copy() for q in server.scheduler.queue.values()}
        self.router_free = server.router_free
        self.in_router = [(self.router_free, number, position) for number, position in server.in_router.items()]
        running = {part.request for part in work.parts}
        known = {*self.queue, *running, *server.in_router}
        self.produced = {r: server.workload[r].produced for r in known}
        self.arrived = server.arrived
        self.parts = work.parts

    def step(self) -> Work | None:
        """The next step; None if nothing is ready for it."""
        server = self.server
        self.now += self.length
        self._arrive(self._deliver())
        for _, number, position in [routed for routed in self.in_router if routed[0] <= self.now]:
            self._ready(number, position)
        self.in_router = [routed for routed in self.in_router if routed[0] > self.now]
        queue = self.queue
        chosen = server.scheduler.policy.form(list(queue.values()), server.limits) if queue else []
        if not chosen:
            return None
        self.parts = tuple(Part(q.request, q.position, n, not q.decoding) for q, n in chosen)
        self._take(chosen)
        return make_work(self.parts, server.trace, server.workload.sequences)

    def _deliver(self) -> int:
        """The step is over: its requests go on or leave; say how many left."""
        server, leaving = self.server, 0
        for part in self.parts:
            request = server.workload[part.request]
            if part.prefill and part.start + part.tokens < request.prompt:
                continue
            self.produced[part.request] += 1
            if self.produced[part.request] < request.output:
                self._ready(part.request, part.start + part.tokens)
            else:
                leaving += 1
        return leaving

    def _arrive(self, left: int) -> None:
        """Requests whose time has come and, in a closed loop, one for each that left."""
        server = self.server
        while self.arrived < server.config.traffic.requests:
            request = server.workload[self.arrived]
            if request.arrival > self.now or (request.arrival < 0 and not left):
                return
            left -= request.arrival < 0
            self._route(self.arrived, request.prompt, self.now if request.arrival < 0 else request.arrival)
            self.produced[self.arrived] = 0
            self.arrived += 1

    def _route(self, number: int, tokens: int, arrival: int) -> None:
        router = self.server.inputs.costs.router(tokens) if self.server.decoupled else 0
        self.router_free = max(self.router_free, arrival) + router
        self.in_router.append((self.router_free, number, 0))

    def _ready(self, number: int, position: int) -> None:
        """The request's prompt (position 0) or its token at `position` joins the end of the queue."""
        request = self.server.workload[number]
        tokens = request.prompt if position == 0 else 1
        routes = routes_of(self.server.trace, request.sequence, position, tokens)
        self.queue[number] = Queued(number, position, 0 if position else tokens, tokens, routes)

    def _take(self, chosen: list[tuple[Queued, int]]) -> None:
        for queued, tokens in chosen:
            queued.advance(tokens)
            if not queued.known:
                del self.queue[queued.request]
        ran = {queued.request for queued, _ in chosen}
        for request, queued in self.queue.items():
            if request not in ran:
                queued.skipped += 1
