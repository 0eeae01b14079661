"""The slow reference: a step on the machine, told by processes, written from docs/model.md alone.

The host, the compute stream, each load and each chunk is a process. Only policies and views, cost tables, the numbering
of keys, the trace format and the configuration are shared with the simulator.

Where docs/model.md leaves a choice, this is how it is read here:

* of several host actions of one instant each happens when those before it have; where a decision takes no time, a
  cancellation comes after the demands that the host made before it;
* victims of unequal size add up: those that go at first all leave before one of those that go at last does;
* a demand waits for room from the moment at which it has asked for some and found none to the next end of a kernel or a
  copy, or cancellation; whether it finds room then shows when its first chunk could be submitted again;
* a use that the level does not show does not spare a key;
* what happened up to the end of a step counts as the step's, prefetches that start at that instant as the next step's.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import simpy

from moesim import policy
from moesim.experiment import Experiment
from moesim.hardware.keys import Keys
from moesim.policy import CachePolicy, Handling, MissPolicy, Policy, Pool, PrefetchPolicy, View
from moesim.policy.residency import Residency
from tests.reference.clock import CANCEL, HOST, IDLE, Clock, Doing
from tests.reference.cpu import Gate, Misses
from tests.reference.link import Link
from tests.reference.memory import Event, Memory, State
from tests.reference.sight import Named, Sight, Use
from tests.reference.stream import Stream


@dataclass
class Needs:
    """Keys of a layer event, ranked, and the prefill and decode tokens of each."""

    keys: tuple[int, ...]
    prefill: dict[int, int]
    decode: dict[int, int]
    users: dict[int, list[int]]
    """requests that use each key, in the order of the step"""
    named: Named
    """what its gate predicts of the layers after it"""
    experts: tuple[int, ...]
    """of `keys`"""
    gates: list[Gate]
    """of each token, if a miss policy wants to know"""

    def tokens(self, key: int) -> int:
        return self.prefill.get(key, 0) + self.decode.get(key, 0)


@dataclass
class StepCosts:
    """Of the kernels of a step, ns; attention, rest and gate are those of one layer."""

    attention: int
    rest: int
    gate: int
    last: int
    router: int


@dataclass
class StepWork:
    """A step: what it needs of each layer, what its kernels cost, and what each sight shows beyond it."""

    number: int
    layers: list[Needs]
    costs: StepCosts
    beyond: dict[tuple[str, str], list[Use]]


@dataclass
class Outcome:
    """What a step did."""

    start: int
    end: int
    sampled_at: int
    parts: dict[str, int]
    counts: Counter[str] = field(default_factory=Counter)
    """keys, tokens and bytes by access class and phase; bytes demanded, prefetched and wasted; evictions; ..."""


def pools(memory: Any, keys: Keys) -> list[tuple[range, int]]:
    """Keys and bytes of each pool (docs/model.md; the configuration's page)."""
    by_layer = [[keys.sizes[key] for key in row] for row in keys.table]
    staging = memory.staging * max(keys.sizes)
    if memory.slots is not None:
        capacities = [memory.slots * max(sizes) for sizes in by_layer]
        total = sum(capacities)
    else:
        given = memory.bytes if memory.bytes is not None else round(memory.share * sum(keys.sizes))
        total = given - staging
        capacities = [total // len(by_layer)] * len(by_layer)
    if memory.scope == "global":
        return [(range(len(keys.sizes)), total)]
    return [(range(min(row), max(row) + 1), room) for row, room in zip(keys.table, capacities, strict=True)]


class Machine:
    """Host, stream, link and memory of one run. `resident`: every expert is there, and nobody prefetches."""

    def __init__(self, config: Experiment, inputs: Any, *, resident: bool = False, replication: int = 0) -> None:
        self.config, self.resident, self.replication = config, resident, replication
        self.costs = inputs.costs
        self.layerwise = inputs.trace.meta.router == "layerwise"
        self.order = "eager" if resident else config.machine.expert_start
        self.keys = Keys.of(inputs.shape, inputs.trace.meta.key_map)
        self.k = inputs.trace.meta.k
        self.clock = Clock()
        self.sights: dict[tuple[str, str], Sight] = {}
        self.memory = self._memory()
        machine = config.machine
        self.link = Link(self.clock, self.memory, inputs.link.copy, machine.chunk_bytes, machine.copies_in_flight)
        self.stream = Stream(self.clock, self.memory, self.link)
        self.prefetcher = self._prefetcher()
        self.misses = self._misses(2 * inputs.shape.d_model)
        self.free = 0
        """the instant from which the host is free; it may lie back, where the host could have done something earlier"""
        self.count = self.memory.count
        self.steps_formed = 0
        self.counted: Counter[str] = Counter()
        """up to the end of the last step"""

    # Policies and what they see

    def _memory(self) -> Memory:
        if self.resident:
            everything = [(range(self.keys.count), sum(self.keys.sizes))]
            memory = Memory(self.keys.sizes, everything, [CachePolicy()], 0)
            memory.fill()
            return memory
        parts = pools(self.config.memory, self.keys)
        policies: list[CachePolicy] = []
        for number, (keys, capacity) in enumerate(parts):
            made = policy.make("cache", self.config.cache)
            assert isinstance(made, CachePolicy)
            rng = random.Random(f"{self.config.seed}/{self.replication}/cache/{number}")
            made.start(Pool(keys, capacity, self.keys.sizes, rng), self._view(made))
            policies.append(made)
        return Memory(self.keys.sizes, parts, policies, self.config.memory.staging)

    def _prefetcher(self) -> PrefetchPolicy | None:
        if self.resident or self.config.prefetch.name == "none":
            return None
        made = policy.make("prefetch", self.config.prefetch)
        assert isinstance(made, PrefetchPolicy)
        made.view = self._view(made)
        made.start(made.view)
        sight = self.sights[made.level, made.unknown]
        if sight.far:
            self.memory.sooner = sight.sooner
        return made

    def _misses(self, activations: int) -> Misses | None:
        if self.resident or self.config.miss.name == "wait":
            return None
        made = policy.make("miss", self.config.miss)
        assert isinstance(made, MissPolicy)
        made.start(self._view(made))
        return Misses(made, self.memory, self.link, self.costs, activations)

    def _view(self, made: Policy) -> View:
        kind = (made.level, made.unknown)
        if kind not in self.sights:
            self.sights[kind] = Sight(*kind, self.keys, self.k)
        return self.sights[kind].view

    def residency(self) -> Residency:
        """What a batch policy sees: a key counts as absent or not."""
        state = self.memory.state

        class Presence(Sequence[int]):
            def __len__(self) -> int:
                return len(state)

            def __getitem__(self, key: Any) -> Any:
                return int(state[key] is not State.ABSENT)

        return Residency(self.keys.table, Presence())

    # The host

    def _spend(self, ns: int) -> Doing:
        self.free += ns
        yield self.clock.after(max(0, self.free - self.clock.time), HOST)

    def _be_free(self) -> None:
        """The host can act at this instant, and no earlier."""
        self.free = max(self.free, self.clock.time)

    def wait(self, event: simpy.Event) -> Doing:
        """Until `event`; meanwhile the prefetcher is asked when the link has fallen idle."""
        while not event.processed:
            if self.prefetcher and self.link.idle_since is not None:
                yield self.clock.after(0, IDLE)
                if not event.processed and self.link.idle_since is not None:
                    self.count["asked for an idle link"] += 1
                    begun = self.steps_formed
                    self.count["asked between steps"] += event is not self.stream.drained
                    yield from self._ask()
                    self.count["asked across a step's start"] += self.steps_formed > begun
            else:
                yield event | self.link.fallen_idle.wait()
        yield self.clock.after(0, HOST)

    def _launch(self, part: str, ns: int, event: Event | None = None, keys: tuple[int, ...] = ()) -> Doing:
        yield from self._spend(self.costs.launch)
        self.stream.launch(part, ns, event, keys)

    def _synchronise(self) -> Doing:
        yield self.stream.drained
        yield self.clock.after(0, HOST)
        self._be_free()
        yield from self._spend(self.costs.sync)

    def _ask(self) -> Doing:
        """The prefetcher, at the instant at which the host is free."""
        assert self.prefetcher is not None
        self._be_free()
        taken = self.costs.decision + self.prefetcher.cost_ns
        self.free += taken
        yield self.clock.after(taken, CANCEL if taken else HOST)
        moving = self.link.cancellable()
        for key in dict.fromkeys(self.prefetcher.cancel(moving)):
            if key in moving:
                self.link.cancel(key)
        yield self.clock.after(0, HOST)
        event = self.memory.event
        wanted = [
            key
            for key in dict.fromkeys(self.prefetcher.plan())
            if not (self.memory.there(key) or self.link.coming(key) or (key in event.keys and key not in event.has_run))
        ]
        for key in self.link.plan(wanted):
            yield from self._spend(self.costs.planning)
            self.link.submit(key)

    # A step

    def begin(self, start: int) -> None:
        """A step is formed; the host may be busy still."""
        self.steps_formed += 1
        self.stream.begin(start)

    def step(self, work: StepWork, start: int) -> Doing:
        """Run a step that was formed at `start`; gives its `Outcome`."""
        self._be_free()
        for kind, sight in self.sights.items():
            sight.begin(work.number, [needs.keys for needs in work.layers], work.beyond[kind])
        yield from self._spend(self.costs.forming)
        for layer, needs in enumerate(work.layers):
            yield from self._launch("attention", work.costs.attention)
            self.stream.launch("rest", work.costs.rest)
            if layer == 0 and self.prefetcher:
                yield from self._ask()
            if self.layerwise:
                yield from self._launch("gate", work.costs.gate)
                yield from self._synchronise()
            yield from self._layer(layer, needs)
        sampled_at = yield from self._finish(work.costs)
        end, parts = self.clock.time, self.stream.parts
        assert sum(parts.values()) == end - start, (parts, start, end)
        counts = Counter(self.count)
        counts.subtract(self.counted)
        self.counted = Counter(self.count)
        return Outcome(start, end, sampled_at, parts, counts)

    def _finish(self, costs: StepCosts) -> Doing:
        yield from self._launch("rest", costs.last)
        yield from self._synchronise()
        sampled_at = self.clock.time
        if costs.router:
            yield from self._launch("router", costs.router)
            yield from self._synchronise()
        self.stream.rest_until(self.clock.time)
        return sampled_at

    # A layer event

    def _layer(self, layer: int, needs: Needs) -> Doing:
        yield from self.wait(self.stream.drained)
        for sight in self.sights.values():
            sight.enter(layer, needs.keys, needs.named)
        answers: dict[int, Handling] = {}
        if self.misses:
            tokens = [needs.tokens(key) for key in needs.keys]
            answers = self.misses.ask(needs.keys, needs.experts, tokens, needs.gates)
        elsewhere = [key for key, answer in answers.items() if answer in (Handling.CPU, Handling.SKIP)]
        event = Event([key for key in needs.keys if key not in elsewhere], self.order)
        event.small = {key for key, answer in answers.items() if answer is Handling.SMALL}
        found = self.memory.enter(event, needs.users) | dict.fromkeys(elsewhere, State.ABSENT)
        self.count["unique_keys"] += len(needs.keys)
        room = self.memory.pools[self.memory.pool(needs.keys[0])][1]
        loads = not all(map(self.memory.there, event.keys))
        self.count["waves"] += loads and sum(self.memory.sizes[key] for key in event.keys) > room
        self._classify(needs, found)
        if answers:
            yield from self._hand_over(needs, answers)
            yield from self._load_and_run(event, needs, found)
            if Handling.CPU in answers.values():
                self.count["cpu beside experts"] += bool(event.keys)
                assert self.misses is not None
                self.stream.wait_for_cpu(self.misses.free)
            return
        missing = [key for key in needs.keys if not self.memory.there(key)]
        if not missing and self.order != "index":
            # The launch may have been made while the stream was busy.
            yield from self._run(event, needs, list(needs.keys))
            if self.prefetcher:
                yield from self._ask()
            return
        yield from self._load_and_run(event, needs, found)

    def _hand_over(self, needs: Needs, answers: dict[int, Handling]) -> Doing:
        """The host has asked what becomes of missing keys, and hands over what the CPU computes."""
        assert self.misses is not None
        self._be_free()
        yield from self._spend(self.costs.decision + self.misses.policy.cost_ns)
        for key in needs.keys:
            if answers.get(key) is Handling.CPU:
                yield from self._spend(self.costs.copy_submit)
                self.misses.hand_over(needs.tokens(key), self.clock.time)

    def _load_and_run(self, event: Event, needs: Needs, found: dict[int, State]) -> Doing:
        missing = [key for key in event.keys if found[key] in (State.ABSENT, State.LOADING)]
        self._be_free()
        for key in sorted(missing) if self.order == "index" else missing:
            yield from self._spend(self.costs.copy_submit)
            if self.memory.there(key):
                self.count["landed before its demand"] += 1
                self.memory.use(key)
            else:
                self.link.demand(key)
        yield from self._run_as_they_come(event, needs, found)

    def _classify(self, needs: Needs, found: dict[int, State]) -> None:
        for key in needs.keys:
            name, prefill = found[key].value, needs.prefill.get(key, 0)
            phase = "prefill" if prefill else "decode"
            self.count[f"{name}_keys_{phase}"] += 1
            self.count[f"{name}_bytes_{phase}"] += self.keys.sizes[key]
            self.count[f"{name}_tokens_prefill"] += prefill
            self.count[f"{name}_tokens_decode"] += needs.decode.get(key, 0)

    def _run(self, event: Event, needs: Needs, group: list[int]) -> Doing:
        self.memory.running |= set(group)
        tokens = [needs.tokens(key) for key in group]
        ns = self.costs.experts(sum(tokens), len(tokens), max(tokens))
        if self.misses:
            ns += self.misses.unpacking(group)
        yield from self._launch("experts", ns, event, tuple(group))

    def _run_as_they_come(self, event: Event, needs: Needs, found: dict[int, State]) -> Doing:
        left = list(event.keys)
        asked, wave = not self.prefetcher, False
        while left:
            yield from self.wait(self.stream.drained)
            self._be_free()
            group = self._group(left, wave)
            wave = False
            if group:
                left = [key for key in left if key not in group]
                yield from self._run(event, needs, group)
            if not asked:
                asked = True
                yield from self._ask()
            elif not group:
                wave = yield from self._next(left, found)
        if not asked:
            yield from self._ask()

    def _group(self, left: Sequence[int], wave: bool) -> list[int]:
        ready = [key for key in left if self.memory.there(key)]
        if self.order == "eager" or wave:
            return ready
        if self.order == "barrier":
            return ready if len(ready) == len(left) else []
        return [key for key in ready if key == min(left)]

    def _next(self, left: list[int], found: dict[int, State]) -> Doing:
        """Nothing can run: load again what was pushed out before its turn, or stall; True if a wave must run then."""
        turn = min(left)
        if self.order == "index" and not self.memory.there(turn) and not self.link.coming(turn):
            yield from self._spend(self.costs.copy_submit)
            if self.misses and turn in self.memory.event.small:
                self.misses.shrink(turn)
            self.memory.need_again(turn)
            self.link.demand(turn)
            return False
        return (yield from self._stall(left, found))

    def _stall(self, left: list[int], found: dict[int, State]) -> Doing:
        """Until a key of `left` lands, or none will by itself: then True."""
        since = self.clock.time
        before = [key for key in left if self.memory.there(key)]
        stuck = False
        while True:
            landed = [key for key in left if self.memory.there(key) and key not in before]
            stuck = not landed and self.order != "eager" and self.link.stuck
            if landed or stuck:
                break
            yield self.link.changed.wait()
            yield self.clock.after(0, HOST)
        blamed = self.link.demands[0].key if stuck else landed[0]
        assert blamed is not None
        part = "late_stall" if found[blamed] is State.LOADING else "miss_stall"
        self.stream.stall(part, self.clock.time - since)
        self.count["waves run"] += stuck
        return stuck
