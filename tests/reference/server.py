"""The server of the reference: arrivals, the router, the queue, steps on the machine, tokens out (docs/model.md)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np
import simpy

from moesim import policy
from moesim.experiment import Experiment
from moesim.policy import BatchPolicy, Limits, Queued
from moesim.sim.work import Part
from moesim.sim.workload import Request, Workload
from tests.reference.clock import ARRIVAL, FORM, Doing, Signal
from tests.reference.cpu import Gate
from tests.reference.foresee import foresee
from tests.reference.kv import KvMemory, Moved
from tests.reference.model import Machine, Needs, Outcome, StepCosts, StepWork
from tests.reference.sight import Named, Use
from tests.reference.swaps import Swaps

Parts = tuple[Part, ...]


@dataclass
class Frame:
    """A step as it was recorded: its parts, what waited beside it, the requests that its end brought (closed loop)."""

    parts: Parts
    queue: list[Queued]
    goals: dict[int, int]
    """tokens of each of its requests, and of those preempted for it, that were there and routed when it was formed"""
    moved: Moved
    brought: list[int] = field(default_factory=list)


@dataclass
class Run:
    """What a run did: its steps, its requests, and what occurred over all of it."""

    steps: list[tuple[Parts, Outcome]]
    requests: dict[int, tuple[int, int, int, int, int]]
    """arrival, visible, first token, finished; preemptions"""
    counts: Counter[str]
    memory: KvMemory | None


class Server:
    """What a free server and a replay have in common. `known[r]`: tokens of request r that are there and routed.

    `goal[r]`: those that it processes before it decodes: its prompt, more of them if they are computed once more.
    """

    def __init__(self, config: Experiment, inputs: Any, *, resident: bool = False, replication: int = 0) -> None:
        self.config, self.inputs = config, inputs
        self.machine = Machine(config, inputs, resident=resident, replication=replication)
        self.clock, self.keys = self.machine.clock, self.machine.keys
        self.memory = KvMemory.of(config, self.keys, inputs.shape)
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
        self.swaps = Swaps(self.clock, self.machine.link, inputs.link)
        self.known: dict[int, int] = {}
        self.goal: dict[int, int] = {}
        self.preemptions: Counter[int] = Counter()
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
        requests = {
            r.number: (r.arrival, r.visible, r.first_token, r.finished, self.preemptions[r.number]) for r in came
        }
        return Run(self.steps, requests, self.machine.count, self.memory)

    def _run(self) -> Doing:
        for number in count():
            formed = self.clock.process(self._form_when_ready(number))
            yield from self.machine.wait(formed)
            if formed.value is None:
                return
            frame, work, start = formed.value
            stall = 0
            if moves := self._moves(frame.moved):
                seen = self.machine.count
                seen["copies wait for the host"] += self.clock.time > start
                asked = seen["asked between steps"]
                copied = self.clock.process(moves)
                yield from self.machine.wait(copied)
                seen["asked beside a swap"] += seen["asked between steps"] - asked
                start, stall = copied.value, copied.value - start
            outcome = yield from self.machine.step(work, start)
            outcome.counts["kv_stall_ns"], outcome.counts["kv_blocks_used"] = stall, frame.moved.used
            self.steps.append((self.now_running, outcome))
            self._deliver(number, outcome)

    def _form_when_ready(self, number: int) -> Doing:
        yield self.clock.after(0, FORM)
        while not (self._ready(number) and (frame := self._form(number))):
            if self._over(number) or number == self.config.steps:
                return None
            yield self.came.wait()
            yield self.clock.after(0, FORM)
        self._count(frame.moved)
        self.now_running = frame.parts
        if not (frame.moved.out or frame.moved.back):
            self.machine.begin(self.clock.time)
        return frame, self._work(number, frame.parts), self.clock.time

    def _count(self, moved: Moved) -> None:
        """What was given up for a step, and what it copies."""
        self.preemptions.update(request for request, _ in moved.preempted)
        if self.memory:
            count = self.machine.count
            count[f"preemptions_{self.memory.preempt}"] += len(moved.preempted)
            count["recomputed_tokens"] += sum(tokens for _, tokens in moved.preempted)
            count["swap_out_bytes"] += sum(moved.out) * self.memory.block_bytes
            count["swap_in_bytes"] += sum(moved.back) * self.memory.block_bytes

    def _moves(self, moved: Moved) -> Doing | None:
        """The copies of a step, submitted now; gives the instant at which the step starts. None if it has none."""
        if self.memory is None or not (moved.out or moved.back):
            return None
        block = self.memory.block_bytes
        self.swaps.out([number * block for number in moved.out])
        self.swaps.back([number * block for number in moved.back])
        return self._until_copied()

    def _until_copied(self) -> Doing:
        yield from self.swaps.over()
        self.machine.begin(self.clock.time)
        return self.clock.time

    def _over(self, number: int) -> bool:
        raise NotImplementedError

    def _ready(self, number: int) -> bool:
        raise NotImplementedError

    def _form(self, number: int) -> Frame | None:
        """The next step, formed at this instant; None if nobody may run."""
        raise NotImplementedError

    def _beyond(self, kind: tuple[str, str], number: int, parts: Parts) -> list[Use]:
        raise NotImplementedError

    def _follow(self, number: int, finished: int) -> None:
        """Requests that follow those that have `finished` at the end of step `number` (closed loop)."""
        raise NotImplementedError

    def _leave(self, request: int) -> None:
        """Its last token is there."""

    def _show(self, request: int, position: int) -> None:
        """The prompt (position 0) or next token of a request is there and routed."""
        self.known[request] = position + 1 if position else self.workload[request].prompt
        if not position:
            self.goal[request] = self.known[request]

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
                self._leave(part.request)
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
        return [p for p in parts if not p.prefill or p.start + p.tokens == self.goal[p.request]]

    # What a step asks for

    def _tokens(self, request: int, start: int, tokens: int, layer: int = 0) -> list[list[int]]:
        """Experts of a request's tokens in a layer, strongest first."""
        chosen = self.trace.experts[self._rows(request, start, tokens), 0 if self.decoupled else layer].tolist()
        return [[expert for expert in token if expert >= 0] for token in chosen]

    def _strongest(self, request: int, start: int, tokens: int) -> np.ndarray | None:
        return self.trace.experts[self._rows(request, start, tokens), 0, 0] if self.decoupled else None

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
        experts = tuple(self.keys.table[layer].index(key) for key in ranked)
        gates = self._gates(parts, layer) if self.machine.misses else []
        return Needs(tuple(ranked), prefill, decode, users, self._named(parts, layer), experts, gates)

    def _gates(self, parts: Parts, layer: int) -> list[Gate]:
        rows = [row for part in parts for row in self._rows(part.request, part.start, part.tokens)]
        decision = 0 if self.decoupled else layer
        chosen, weights = self.trace.experts[rows, decision].tolist(), self.trace.weights[rows, decision].tolist()
        return list(zip(chosen, weights, strict=True))

    def _named(self, parts: Parts, layer: int) -> Named:
        """What the gate of a layer predicts of later ones for the step's tokens (layer-wise router)."""
        rows = [row for part in parts for row in self._rows(part.request, part.start, part.tokens)]
        predicted = self.trace.predicted.items()
        return {ahead: ids[rows, layer] for ahead, ids in predicted if layer + ahead < self.keys.layers}

    def _rows(self, request: int, start: int, tokens: int) -> range:
        """Where tokens of a request are in the trace."""
        first = int(self.trace.offsets[self.workload[request].sequence]) + start
        return range(first, first + tokens)

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
