"""The server of the reference as it runs: steps are formed from what is there and has room (docs/model.md)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from moesim.experiment import Experiment
from moesim.policy import Queued
from moesim.sim.oracle import FreeOracle
from moesim.sim.work import Part
from tests.reference.kv import Blocks, Moved, reach
from tests.reference.server import Frame, Parts, Server
from tests.reference.sight import Use


class FreeServer(Server):
    """The server as it runs. `frames` records what it formed."""

    def __init__(self, config: Experiment, inputs: Any, *, resident: bool = False, replication: int = 0) -> None:
        super().__init__(config, inputs, resident=resident, replication=replication)
        self.queue: list[Queued] = []
        self.going_on: list[Queued] = []
        self.blocks: Blocks | None = None
        if self.memory:
            self.blocks = Blocks(self.memory, self.limits.max_requests, self._again, self.machine.count)
        if watch := getattr(self.batch, "watch", None):
            watch(self.machine.residency())
        self.frames: list[Frame] = []
        self.oracle: FreeOracle | None = None
        if any(level == "oracle" for level, _ in self.machine.sights):
            self.oracle = FreeOracle(self._as_the_oracle_sees_it())

    def _over(self, number: int) -> bool:
        return self.left == self.requests

    def _ready(self, number: int) -> bool:
        return bool(self.queue) and number < self.config.steps

    def _form(self, number: int) -> Frame | None:
        shown = self.blocks.shown(self.queue) if self.blocks else list(self.queue)
        if not shown:
            self.machine.count["nobody to show"] += 1
            return None
        chosen = self.batch.form(shown, self.limits)
        parts = tuple(Part(q.request, q.position, tokens, not q.decoding) for q, tokens in chosen)
        goals = {queued.request: reach(queued) for queued, _ in chosen}
        for place, (queued, tokens) in enumerate(chosen):
            if self.blocks:
                self.blocks.take(number, place, queued)
            queued.advance(tokens)
            if not queued.known:
                self.queue.remove(queued)
        for queued in shown:
            queued.skipped += all(queued is not other for other, _ in chosen)
        moved = self.blocks.formed() if self.blocks else Moved()
        self.going_on = [queued for queued in self.queue if any(queued is one for one in shown)]
        self.frames.append(Frame(parts, [queued.copy() for queued in self.going_on], goals | moved.goals, moved))
        return self.frames[-1]

    def _again(self, request: int, tokens: int) -> Queued:
        """The first `tokens` of a request as one prompt."""
        self.goal[request] = self.workload[request].goal = tokens
        return Queued(request, 0, tokens, tokens, self._strongest(request, 0, tokens))

    def _leave(self, request: int) -> None:
        if self.blocks:
            self.blocks.leave(request)

    def _show(self, request: int, position: int) -> None:
        super()._show(request, position)
        tokens = self.known[request] - position
        left = 0 if position else tokens
        self.queue.append(Queued(request, position, left, tokens, self._strongest(request, position, tokens)))

    def _follow(self, number: int, finished: int) -> None:
        for _ in range(finished):
            if self.config.traffic.kind == "closed" and self.arrived < self.requests:
                self.frames[number].brought.append(self.arrived)
                self._arrive(self.workload[self.arrived])

    def _beyond(self, kind: tuple[str, str], number: int, parts: Parts) -> list[Use]:
        level, unknown = kind
        if level == "oracle":
            return self._forecast(number, parts)
        if level == "queue":
            return self._foreseen(number, parts, self.going_on, unknown)
        return self._keeping(number, parts) if unknown == "persist" else []

    # The oracle of a free schedule guesses; its guess is the simulator's

    def _as_the_oracle_sees_it(self) -> Any:
        server = self

        class Seen:
            config = self.config.model_copy(update={"traffic": self.workload.traffic})
            inputs, trace, workload = self.inputs, self.trace, self.workload
            decoupled, limits, in_router = self.decoupled, self.limits, self.in_router
            setup = SimpleNamespace(engine=SimpleNamespace(experts=self.keys.experts, layers=self.keys.layers))

            now = property(lambda _: server.clock.time)
            router_free = property(lambda _: server.router_free)
            arrived = property(lambda _: server.arrived)

            @property
            def scheduler(self) -> Any:
                return SimpleNamespace(policy=server.batch, queue={q.request: q for q in server.queue})

        return Seen()

    def _forecast(self, number: int, parts: Parts) -> list[Use]:
        assert self.oracle is not None
        unseen = 1 << 50
        rows = range(1 if self.decoupled else self.keys.layers)
        later = self.oracle.later(number, SimpleNamespace(parts=parts, layers=rows), unseen)  # type: ignore[arg-type]
        grid = np.broadcast_to(later, (self.keys.layers, self.keys.experts)).tolist()
        return [
            (self.keys.table[layer][expert], step * self.keys.layers + layer)
            for layer, row in enumerate(grid)
            for expert, step in enumerate(row)
            if step < unseen
        ]


