"""The oracle of a free schedule: it knows every route, output length and arrival, but not how long steps will take.

Its forecast rolls the batcher forward, timing arrivals by the mean of recent steps. The policy changes which batches
form, so this is a strong guess and no bound (docs/model.md); results are labelled so.
"""

from __future__ import annotations

from collections import deque
from functools import partial
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
        self.next = np.zeros((0, 0), dtype=np.int64)
        """step that uses each expert next, [rows, experts]; `missing` of them have none within reach"""
        self.missing = 0
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
            self.next = np.full((len(work.layers), self.server.setup.engine.experts), unseen, dtype=np.int64)
            self.missing = self.next.size
        else:
            self._pass(step, unseen)
        while self.missing and len(self.coming) < REACH and (foreseen := self.roll.step()) is not None:
            self.coming.append(foreseen)
            self._enter(foreseen, step + len(self.coming), unseen)
        return self.next[0] if len(self.next) == 1 else self.next

    def _pass(self, step: int, unseen: int) -> None:
        """Step `step`, which was foreseen, is the present one: its experts are used next by what comes after it."""
        rows, experts = np.nonzero(self.next == step)
        self.next[rows, experts] = unseen
        self.missing += len(rows)
        left = set(zip(rows.tolist(), experts.tolist(), strict=True))
        for ahead, work in enumerate(self.coming, 1):
            if not left:
                return
            for found in [(row, e) for row, of_layer in enumerate(work.layers) for e in of_layer.experts]:
                if found in left:
                    left.remove(found)
                    self.next[found] = step + ahead
                    self.missing -= 1

    def _enter(self, work: Work, at: int, unseen: int) -> None:
        """`work` is foreseen for step `at`, the last so far."""
        for row, of_layer in enumerate(work.layers):
            for expert in of_layer.experts:
                if self.next[row, expert] == unseen:
                    self.next[row, expert] = at
                    self.missing -= 1


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
        if self.in_router:
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
        requests, produced, leaving = self.server.workload.requests, self.produced, 0
        for number, start, tokens, prefill in self.parts:
            request, reached = requests[number], start + tokens
            if prefill and reached < request.goal:
                continue
            produced[number] += 1
            if produced[number] < request.output:
                self._ready(number, reached)
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
        request, trace = self.server.workload.requests[number], self.server.trace
        tokens = 1 if position else request.prompt
        sequence = request.sequence
        routes = partial(routes_of, trace, sequence, position, tokens)
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
