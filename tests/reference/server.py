"""The server of the reference: arrivals, the router, the queue, steps on the machine, tokens out (docs/model.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from types import SimpleNamespace
from typing import Any

import numpy as np
import simpy

from moesim import policy
from moesim.experiment import Experiment
from moesim.policy import BatchPolicy, Limits, Queued
from moesim.sim.oracle import FreeOracle
from moesim.sim.work import Part
from moesim.sim.workload import Request, Workload
from tests.reference.clock import ARRIVAL, FORM, Doing, Signal
from tests.reference.foresee import foresee
from tests.reference.model import Machine, Needs, Outcome, StepCosts, StepWork
from tests.reference.sight import Use

Parts = tuple[Part, ...]


@dataclass
class Frame:
    """A step as it was recorded: its parts, what waited beside it, the requests that its end brought (closed loop)."""

    parts: Parts
    queue: list[Queued]
    brought: list[int] = field(default_factory=list)


@dataclass
class Run:
    """What a run did: its steps, its requests, and what occurred over all of it."""

    steps: list[tuple[Parts, Outcome]]
    requests: dict[int, tuple[int, int, int, int]]
    """arrival, visible, first token, finished"""
    counts: Counter[str]


class Server:
    """What a free server and a replay have in common. `known[r]`: tokens of request r that are there and routed."""

    def __init__(self, config: Experiment, inputs: Any, *, resident: bool = False, replication: int = 0) -> None:
        self.config, self.inputs = config, inputs
        self.machine = Machine(config, inputs, resident=resident, replication=replication)
        self.clock, self.keys = self.machine.clock, self.machine.keys
        self.workload = Workload(
            inputs.trace, config.traffic, config.seed, replication, config.replications, arrivals=inputs.arrivals
        )
        self.trace = self.workload.trace
        self.requests = self.workload.traffic.requests
        """how many there are"""
        self.decoupled = self.trace.meta.router == "decoupled"
        self.side = self.decoupled and config.machine.router == "side"
        self.limits = Limits(config.scheduler.max_tokens, config.scheduler.max_requests)
        made = policy.make("batch", config.scheduler.batch)
        assert isinstance(made, BatchPolicy)
        self.batch = made
        self.known: dict[int, int] = {}
        self.came = Signal(self.clock)
        self.to_route = simpy.Store(self.clock)
        self.in_router: dict[int, int] = {}
        self.router_free = 0
        self.arrived = self.left = 0
        self.now_running: Parts = ()
        self.steps: list[tuple[Parts, Outcome]] = []
        self.clock.process(self._route())
        self.clock.process(self._arrivals())

    def run(self) -> Run:
        """Until every request has left, or the steps are used up."""
        self.clock.run(self.clock.process(self._run()))
        came = [r for r in self.workload.requests if r.visible >= 0]
        requests = {r.number: (r.arrival, r.visible, r.first_token, r.finished) for r in came}
        return Run(self.steps, requests, self.machine.count)

    def _run(self) -> Doing:
        for number in count():
            formed = self.clock.process(self._form_when_ready(number))
            yield from self.machine.wait(formed)
            if formed.value is None:
                return
            work, start = formed.value
            outcome = yield from self.machine.step(work, start)
            self.steps.append((self.now_running, outcome))
            self._deliver(number, outcome)

    def _form_when_ready(self, number: int) -> Doing:
        yield self.clock.after(0, FORM)
        while not self._ready(number):
            if self._over(number) or number == self.config.steps:
                return None
            yield self.came.wait()
            yield self.clock.after(0, FORM)
        start = self.clock.time
        self.machine.begin(start)
        self.now_running = self._form(number)
        for part in self.now_running:
            request = self.workload[part.request]
            if request.started < 0:
                request.started = start
        return self._work(number, self.now_running), start

    def _over(self, number: int) -> bool:
        raise NotImplementedError

    def _ready(self, number: int) -> bool:
        raise NotImplementedError

    def _form(self, number: int) -> Parts:
        raise NotImplementedError

    def _beyond(self, kind: tuple[str, str], number: int, parts: Parts) -> list[Use]:
        raise NotImplementedError

    def _follow(self, number: int, finished: int) -> None:
        """Requests that follow those that have `finished` at the end of step `number` (closed loop)."""
        raise NotImplementedError

    def _show(self, request: int, position: int) -> None:
        """The prompt (position 0) or next token of a request is there and routed."""
        self.known[request] = position + 1 if position else self.workload[request].prompt

    # Requests and tokens

    def _arrivals(self) -> Doing:
        for number in range(self.requests):
            arrival = self.workload[number].arrival
            if arrival < 0:
                return  # closed loop: it comes when another leaves
            yield self.clock.after(arrival - self.clock.time, ARRIVAL)
            self._arrive(self.workload[number])

    def _arrive(self, request: Request) -> None:
        request.arrival = self.clock.time
        self.arrived += 1
        self._to_router([(request.number, 0)], request.prompt)

    def _to_router(self, shown: Sequence[tuple[int, int]], tokens: int) -> None:
        if not self.decoupled:
            self._routed(shown)
            return
        self.in_router.update(shown)
        self.router_free = max(self.router_free, self.clock.time) + self.inputs.costs.router(tokens)
        self.to_route.put((shown, tokens))

    def _route(self) -> Doing:
        while True:
            shown, tokens = yield self.to_route.get()
            yield self.clock.after(self.inputs.costs.router(tokens), ARRIVAL)
            self._routed(shown)

    def _routed(self, shown: Sequence[tuple[int, int]]) -> None:
        for number, position in shown:
            self.in_router.pop(number, None)
            if position == 0:
                self.workload[number].visible = self.clock.time
            self._show(number, position)
        self.came.fire()

    def _deliver(self, number: int, outcome: Outcome) -> None:
        """The step is over: hand out its tokens; they join the queue, or leave."""
        going_on: list[tuple[int, int]] = []
        finished = 0
        for part in self._yielding(self.now_running):
            request = self.workload[part.request]
            request.produced += 1
            if request.produced == 1:
                request.first_token = outcome.sampled_at
            if request.produced == request.output:
                request.finished = outcome.sampled_at
                finished += 1
                self.machine.memory.ended(part.request)
            else:
                going_on.append((part.request, part.start + part.tokens))
        self.left += finished
        if going_on and self.side:
            self._to_router(going_on, len(going_on))
        else:
            self._routed(going_on)
        self._follow(number, finished)

    def _yielding(self, parts: Parts) -> list[Part]:
        """Parts whose last token makes the model sample one."""
        return [p for p in parts if not p.prefill or p.start + p.tokens == self.workload[p.request].prompt]

    # What a step asks for

    def _tokens(self, request: int, start: int, tokens: int, layer: int = 0) -> list[list[int]]:
        """Experts of a request's tokens in a layer, strongest first."""
        row = int(self.trace.offsets[self.workload[request].sequence]) + start
        chosen = self.trace.experts[row : row + tokens, 0 if self.decoupled else layer].tolist()
        return [[expert for expert in token if expert >= 0] for token in chosen]

    def _strongest(self, request: int, start: int, tokens: int) -> np.ndarray | None:
        row = int(self.trace.offsets[self.workload[request].sequence]) + start
        return self.trace.experts[row : row + tokens, 0, 0].copy() if self.decoupled else None

    def _needs(self, parts: Parts, layer: int) -> Needs:
        prefill: Counter[int] = Counter()
        decode: Counter[int] = Counter()
        ranked: dict[int, None] = {}
        users: dict[int, list[int]] = {}
        for part in parts:
            for token in self._tokens(part.request, part.start, part.tokens, layer):
                for expert in token:
                    key = self.keys.table[layer][expert]
                    ranked[key] = None
                    if part.request not in users.setdefault(key, []):
                        users[key].append(part.request)
                    (prefill if part.prefill else decode)[key] += 1
        return Needs(tuple(ranked), prefill, decode, users)

    def _work(self, number: int, parts: Parts) -> StepWork:
        beyond = {kind: self._beyond(kind, number, parts) for kind, sight in self.machine.sights.items() if sight.far}
        beyond |= {kind: [] for kind in self.machine.sights if kind not in beyond}
        layers = [self._needs(parts, layer) for layer in range(self.keys.layers)]
        return StepWork(number, layers, self._costs(parts), beyond)

    def _costs(self, parts: Parts) -> StepCosts:
        costs = self.inputs.costs
        attention = sum(costs.attention_prefill(p.tokens, p.start + p.tokens) for p in parts if p.prefill)
        if decoding := [p for p in parts if not p.prefill]:
            attention += costs.attention_decode(len(decoding), sum(p.start + 1 for p in decoding))
        tokens = sum(p.tokens for p in parts)
        sampled = [self.workload[p.request] for p in self._yielding(parts)]
        going_on = sum(request.produced + 1 < request.output for request in sampled)
        return StepCosts(
            attention,
            costs.layer_rest(tokens),
            0 if self.decoupled else costs.gate(tokens),
            costs.step_rest(len(sampled)) if sampled else 0,
            costs.router(going_on) if going_on and self.decoupled and not self.side else 0,
        )

    # What a level shows beyond the step

    def _uses(self, step: int, parts: Parts) -> list[Use]:
        """Of a whole step."""
        first = step * self.keys.layers
        layers = range(self.keys.layers)
        return [(key, first + layer) for layer in layers for key in self._needs(parts, layer).keys]

    def _keeping(self, step: int, parts: Parts) -> list[Use]:
        """What is assumed of the next step if all that is known is this one: decoding requests keep their experts."""
        return self._uses(step + 1, tuple(part for part in parts if not part.prefill))

    def _foreseen(self, step: int, parts: Parts, queue: Sequence[Queued], unknown: str) -> list[Use]:
        """From the present queue."""
        steps = foresee(
            self.batch, self.limits, queue, parts, self._tokens, persist=unknown == "persist", strongest=self._strongest
        )
        layers = self.keys.layers
        return [
            (self.keys.table[layer][expert], ahead * layers + layer)
            for ahead, used in enumerate(steps, step + 1)
            for layer in range(layers)
            for expert in used
        ]


class FreeServer(Server):
    """The server as it runs. `frames` records what it formed."""

    def __init__(self, config: Experiment, inputs: Any, *, resident: bool = False, replication: int = 0) -> None:
        super().__init__(config, inputs, resident=resident, replication=replication)
        self.queue: list[Queued] = []
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

    def _form(self, number: int) -> Parts:
        chosen = self.batch.form(list(self.queue), self.limits)
        parts = tuple(Part(q.request, q.position, tokens, not q.decoding) for q, tokens in chosen)
        for queued, tokens in chosen:
            queued.advance(tokens)
            if not queued.known:
                self.queue.remove(queued)
        for queued in self.queue:
            queued.skipped += all(queued is not other for other, _ in chosen)
        self.frames.append(Frame(parts, [queued.copy() for queued in self.queue]))
        return parts

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
            return self._foreseen(number, parts, self.queue, unknown)
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


class ReplayServer(Server):
    """Replays recorded steps in their order, each as soon as the one before it and its requests allow."""

    def __init__(self, config: Experiment, inputs: Any, frames: Sequence[Frame], replication: int = 0) -> None:
        super().__init__(config, inputs, replication=replication)
        self.frames = frames

    def _over(self, number: int) -> bool:
        return number == len(self.frames)

    def _ready(self, number: int) -> bool:
        if number == len(self.frames):
            return False
        return all(p.start + p.tokens <= self.known.get(p.request, 0) for p in self.frames[number].parts)

    def _form(self, number: int) -> Parts:
        return self.frames[number].parts

    def _follow(self, number: int, finished: int) -> None:
        for request in self.frames[number].brought:
            self._arrive(self.workload[request])

    def _beyond(self, kind: tuple[str, str], number: int, parts: Parts) -> list[Use]:
        level, unknown = kind
        if level == "oracle":
            coming = enumerate(self.frames[number + 1 :], number + 1)
            return [use for step, frame in coming for use in self._uses(step, frame.parts)]
        if level == "queue":
            return self._foreseen(number, parts, self.frames[number].queue, unknown)
        return self._keeping(number, parts) if unknown == "persist" else []


def serve(config: Experiment, inputs: Any, replication: int = 0) -> Run:
    """Run one replication, free or frozen."""
    if config.schedule == "free":
        return FreeServer(config, inputs, replication=replication).run()
    recording = FreeServer(config, inputs, resident=True, replication=replication)
    recording.run()
    return ReplayServer(config, inputs, recording.frames, replication).run()


