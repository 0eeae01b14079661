"""The server on a frozen schedule: the steps of a recording, one after another (docs/model.md)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from moesim.experiment import Experiment
from moesim.sim.compiled import Compiled
from moesim.sim.foresight import persisting
from moesim.sim.schedule import Schedule
from moesim.sim.server import Kind, Server
from moesim.sim.setup import Inputs, Setup
from moesim.sim.workload import Request, Workload


class ReplayServer(Server):
    """Replays a schedule: the same steps in order, each as soon as the one before it and its requests allow."""

    def __init__(
        self,
        config: Experiment,
        inputs: Inputs,
        setup: Setup,
        schedule: Schedule,
        workload: Workload,
        compiled: Compiled | None = None,
    ) -> None:
        super().__init__(config, inputs, setup, workload, compiled)
        self.schedule = schedule
        self.ready: dict[int, int] = {}
        """when a request's prompt or next token is visible"""
        self.ends: list[int] = []
        self.laters: dict[Kind, Sequence[np.ndarray]] = {}

    def run(self) -> None:
        """All recorded steps."""
        now = 0
        for step, frame in enumerate(self.schedule.frames):
            self._arrive(now, max(frame.visible, default=-1))
            start = max([now, *(self._ready(p.request) for p in frame.work.parts)])
            if frame.moves is not None:
                start = max([start, *(self._ready(p.request) for p in frame.moves.preempted)])
                start = self.start_of(start, frame.moves)
            yielding, continuing = self.sampling(frame.work.parts)
            later = partial(self._later, step)
            now = self.run_step(step, frame.work, start, len(yielding), len(continuing), later)
            # As in a free run, the step's tokens come before what arrives when it ends.
            self._arrive(now - 1)
            self.ends.append(now)
            self.deliver(yielding)
            if self.side_router and continuing:
                self._route(continuing, len(continuing), now)
        self._arrive(now)

    def _ready(self, request: int) -> int:
        """When what a request has next is visible."""
        return self.ready.get(request, 0)

    def _route(self, shown: Sequence[tuple[Request, int]], tokens: int, now: int) -> int:
        """What these requests have at these positions, `tokens` in all, goes to the router; when it is visible."""
        routed = self.route_aside(tokens, now)
        self.ready.update((request.number, routed) for request, _ in shown)
        return routed

    def _arrive(self, until: int, last: int = -1) -> None:
        """Requests that come by `until`, and those up to number `last`, go to the router in their order."""
        while self.arrived < self.config.traffic.requests:
            request = self.workload[self.arrived]
            after = self.schedule.after_step.get(request.number)
            if after is not None and after < len(self.ends):
                request.arrival = self.ends[after]
            if request.arrival < 0 or (request.arrival > until and request.number > last):
                return
            request.visible = self._route([(request, 0)], request.prompt, request.arrival)
            self.rows.append(int(self.trace.offsets[request.sequence]))
            self.arrived += 1

    def _later(self, step: int, kind: Kind) -> np.ndarray:
        if kind not in self.laters:
            self.laters[kind] = self._laters(kind)
        return self.laters[kind][step]

    def _laters(self, kind: Kind) -> Sequence[np.ndarray]:
        level, unknown = kind
        engine, schedule = self.setup.engine, self.schedule
        unseen = engine.foresights[0].unseen
        if level == "oracle":
            return schedule.oracle(engine.layers, engine.experts, unseen)
        if level == "queue":
            return schedule.queued(
                self.scheduler.policy, self.limits, self.trace, unknown == "persist", engine.experts, unseen
            )
        shape = (engine.experts,) if self.decoupled else (engine.layers, engine.experts)
        if unknown == "persist":
            return [persisting(f.work, step, shape, unseen) for step, f in enumerate(schedule.frames)]
        return [np.full(shape, unseen, dtype=np.int64)] * len(schedule.frames)
