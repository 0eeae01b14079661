"""The slow reference: a step on the machine, told by processes, written from docs/model.md alone.

The host, the compute stream, each load and each chunk is a process. Only policies, their views' foresight and cost
tables are shared with the simulator.

Where docs/model.md leaves a choice, this is how it is read here:

* the host asks the prefetcher for an idle link when it next waits (not in a synchronisation), before it forms a group
  of that instant; a link that fell idle because it dropped all that was planned is not asked about until the next gate;
* the gate is an instant of stream and host; if the host is being asked for an idle link then, it goes on afterwards;
* a layer event that finds every key there is launched as early as the host could, prefetcher or not;
* the answer given at step start or at a gate may start at once when the decision has ended, any other prefetch last in
  its instant;
* `index` always runs in its order, every key there or not, except in waves: as under `barrier`, what is ready runs as
  one group when the first demand would find no room and nothing is under way in its pool;
* a promoted key that has started goes on behind a demand that waits for room;
* bytes count as demanded or prefetched by what started the load, and as wasted when a key leaves that was never used.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from moesim import policy
from moesim.experiment import Experiment
from moesim.policy import FAR_VIEWS, NEAR_VIEWS, CachePolicy, Policy, Pool, PrefetchPolicy, View
from moesim.sim.foresight import Foresight
from moesim.sim.work import LayerWork, Work
from tests.reference.clock import HOST, QUIET, Clock, Signal
from tests.reference.clock import Work as Doing
from tests.reference.link import Link
from tests.reference.memory import Event, Memory, State
from tests.reference.stream import PARTS, Stream


@dataclass
class Outcome:
    """What a step did."""

    end: int
    sampled_at: int
    parts: dict[str, int]
    classes: dict[str, int]
    """keys, tokens and bytes by access class and phase"""
    traffic: dict[str, int]
    """bytes demanded, prefetched and wasted; evictions; prefetches dropped"""


class Machine:
    """Host, stream, link and memory of one run; `step` runs one step and comes back with its outcome."""

    def __init__(self, config: Experiment, inputs: Any, pools: Sequence[tuple[range, int]], replication: int) -> None:
        self.shape, self.costs = inputs.shape, inputs.costs
        self.layerwise = inputs.trace.meta.router == "layerwise"
        self.order = config.machine.expert_start
        self.clock = Clock()
        self.foresights: dict[tuple[str, str], Foresight] = {}
        self.views: dict[tuple[str, str], View] = {}
        self.memory = self._memory(config, pools, replication)
        machine = config.machine
        self.link = Link(self.clock, self.memory, inputs.link.copy, machine.chunk_bytes, machine.copies_in_flight)
        self.stream = Stream(self.clock, self.memory, self.link)
        self.prefetcher = self._prefetcher(config)
        self.idle = False
        """the link has fallen idle and the prefetcher was not asked since"""
        self.host_wakes = Signal(self.clock)
        self.work: Work | None = None
        self.sampled_at = -1
        self.contested = self.link.contested
        if self.prefetcher:
            self.clock.process(self._watch_link())

    # Policies and what they see

    def _memory(self, config: Experiment, pools: Sequence[tuple[range, int]], replication: int) -> Memory:
        sizes = [self.shape.key_bytes] * self.shape.keys
        policies: list[CachePolicy] = []
        for number, (keys, capacity) in enumerate(pools):
            made = policy.make("cache", config.cache)
            assert isinstance(made, CachePolicy)
            rng = random.Random(f"{config.seed}/{replication}/cache/{number}")
            made.start(Pool(keys, capacity, sizes, rng), self._view(made))
            policies.append(made)
        return Memory(sizes, pools, policies)

    def _prefetcher(self, config: Experiment) -> PrefetchPolicy | None:
        if config.prefetch.name == "none":
            return None
        made = policy.make("prefetch", config.prefetch)
        assert isinstance(made, PrefetchPolicy)
        made.view = self._view(made)
        made.start(made.view)
        if seen := self.foresights.get((made.level, made.unknown)):
            self.memory.sooner = lambda key: np.flatnonzero(seen.next_uses <= seen.next_uses[key]).tolist()
        return made

    def _view(self, made: Policy) -> View:
        kind, shape = (made.level, made.unknown), self.shape
        if kind not in self.views:
            if made.level in NEAR_VIEWS:
                self.views[kind] = NEAR_VIEWS[made.level](shape.layers, shape.experts)
            else:
                seen = self.foresights.setdefault(kind, Foresight(shape.layers, shape.experts))
                self.views[kind] = FAR_VIEWS[made.level](shape.layers, shape.experts, seen.next_uses, self._needed)
        return self.views[kind]

    def _needed(self, layer: int) -> list[int]:
        assert self.work is not None
        return [self.shape.experts * layer + expert for expert in self.work.layer(layer).experts]

    # The host

    def _watch_link(self) -> Doing:
        while True:
            yield self.link.fallen_idle.wait()
            self.idle = True
            self.host_wakes.fire()

    def _spend(self, ns: int) -> Doing:
        yield self.clock.after(ns, HOST)

    def _wait(self, event: simpy.Event) -> Doing:
        """Until `event`; meanwhile the prefetcher is asked when the link has fallen idle."""
        while True:
            if self.idle:
                yield from self._ask(at_once=False)
            elif event.processed:
                break
            else:
                yield event | self.host_wakes.wait()
        yield self.clock.after(0, HOST)

    def _drained(self) -> simpy.Event:
        """The stream is free."""
        return self.stream.last or self.clock.after(0, HOST)

    def _launch(self, part: str, ns: int, keys: tuple[int, ...] = (), left: int | None = None) -> Doing:
        yield from self._spend(self.costs.launch if left is None else left)
        self.stream.launch(part, ns, keys)

    def _synchronise(self) -> Doing:
        yield self._drained()
        yield self.clock.after(0, HOST)
        yield from self._spend(self.costs.sync)

    def _ask(self, at_once: bool = True) -> Doing:
        assert self.prefetcher is not None
        if self.idle and at_once:
            self.contested.add("link idle while the prefetcher decides")
        self.idle = False
        answer = dict.fromkeys(self.prefetcher.plan())
        yield from self._spend(self.costs.decision)
        if self.idle:
            self.contested.add("link idle while the prefetcher decides")
        wanted = [key for key in answer if not self.memory.there(key) and not self.link.coming(key)]
        new = len(set(wanted) - set(self.link.planned))
        self.link.plan(wanted, at_once)
        yield from self._spend(self.costs.copy_submit * new)
        self.free_since = int(self.clock.now)

    # A step

    def step(self, step: int, work: Work, costs: Any, start: int, laters: dict[tuple[str, str], np.ndarray]) -> Outcome:
        before = self._traffic()
        self.classes = {
            f"{state.value}_{unit}_{phase}": 0
            for state in State
            for unit in ("keys", "tokens", "bytes")
            for phase in ("prefill", "decode")
        }
        self.clock.run(self.clock.process(self._step(step, work, costs, start, laters)))
        end, parts = int(self.clock.now), self.stream.parts
        assert sum(parts.values()) == end - start, (parts, start, end)
        traffic = {name: after - before[name] for name, after in self._traffic().items()}
        return Outcome(end, self.sampled_at, parts, self.classes, traffic)

    def _traffic(self) -> dict[str, int]:
        memory, link = self.memory, self.link
        return {
            "demand_bytes": memory.demand_bytes,
            "prefetch_bytes": memory.prefetch_bytes,
            "wasted_bytes": memory.wasted_bytes,
            "evictions": memory.evictions,
            "prefetch_dropped": link.dropped,
        }

    def _step(self, step: int, work: Work, costs: Any, start: int, laters: dict[tuple[str, str], np.ndarray]) -> Doing:
        # The step starts when it is due, even if the host is still being asked for an idle link.
        yield from self._wait(self.clock.process(self._begin(step, work, start, laters)))
        yield from self._spend(self.costs.decision)
        for layer in range(self.shape.layers):
            yield from self._launch("attention", costs.attention)
            self.stream.launch("rest", costs.rest)
            if layer == 0 and self.prefetcher:
                yield from self._ask()
            if self.layerwise:
                yield from self._launch("gate", costs.gate)
                yield from self._synchronise()
            yield from self._layer(layer, work.layer(layer))
        yield from self._finish(costs)

    def _begin(self, step: int, work: Work, start: int, laters: dict[tuple[str, str], np.ndarray]) -> Doing:
        yield self.clock.after(start - int(self.clock.now), HOST)
        self.work = work
        self.stream.parts = dict.fromkeys(PARTS, 0)
        self.stream.idle_since, self.stream.stalled = start, 0
        for view in self.views.values():
            view.step, view.layer = step, -1
            if view.level != "history":
                view.current = ()  # type: ignore[attr-defined]
        for kind, foresight in self.foresights.items():
            foresight.begin(step, work, laters[kind])

    def _finish(self, costs: Any) -> Doing:
        yield from self._launch("rest", costs.sample)
        yield from self._synchronise()
        self.sampled_at = int(self.clock.now)
        if costs.router:
            yield from self._launch("router", costs.router)
            yield from self._synchronise()
        self.stream.rest_until(int(self.clock.now))

    # A layer event

    def _layer(self, layer: int, work: LayerWork) -> Doing:
        keys = self._needed(layer)
        runs_ahead = not self.layerwise and not self.prefetcher and self.order != "index"
        self.free_since = int(self.clock.now)
        if runs_ahead and all(map(self.memory.there, keys)):
            found = self._gate(layer, work, keys)
        else:
            # The gate is an instant of the stream; the host may be asking the prefetcher then.
            gate = self.clock.process(self._gate_when_free(layer, work, keys))
            yield from self._wait(gate)
            found = gate.value or {}
        missing = [key for key in keys if not self.memory.there(key)]
        if not missing and self.order != "index":
            # The launch may have been made while the stream was busy.
            left = max(0, self.costs.launch - (int(self.clock.now) - self.free_since))
            yield from self._launch_experts(work, keys, keys, left)
            if self.prefetcher:
                yield from self._ask()
            return
        for key in sorted(missing) if self.order == "index" else missing:
            yield from self._spend(self.costs.copy_submit)
            if self.idle:
                self.contested.add("link idle while demands are submitted")
            self.link.demand(key)
        yield from self._run_as_they_come(work, keys, found)

    def _gate_when_free(self, layer: int, work: LayerWork, keys: list[int]) -> Doing:
        yield self._drained()
        yield self.clock.after(0, HOST)
        return self._gate(layer, work, keys)

    def _gate(self, layer: int, work: LayerWork, keys: list[int]) -> dict[int, State]:
        found = self.memory.enter(Event(keys, self.order))
        for key, prefill, decode in zip(keys, work.prefill, work.decode, strict=True):
            name, phase = found[key].value, "prefill" if prefill else "decode"
            self.classes[f"{name}_keys_{phase}"] += 1
            self.classes[f"{name}_bytes_{phase}"] += self.memory.sizes[key]
            self.classes[f"{name}_tokens_prefill"] += prefill
            self.classes[f"{name}_tokens_decode"] += decode
        for foresight in self.foresights.values():
            foresight.enter(layer)
        for view in self.views.values():
            view.layer = layer
            if view.level != "history":
                view.current = keys  # type: ignore[attr-defined]
        return found

    def _launch_experts(self, work: LayerWork, keys: list[int], group: list[int], left: int | None = None) -> Doing:
        self.memory.running |= set(group)
        tokens = [work.tokens[keys.index(key)] for key in group]
        ns = self.costs.experts(sum(tokens), len(tokens), max(tokens))
        yield from self._launch("experts", ns, tuple(group), left)

    def _run_as_they_come(self, work: LayerWork, keys: list[int], found: dict[int, State]) -> Doing:
        left = list(keys)
        asked = not self.prefetcher
        wave = False
        while left:
            yield from self._wait(self._drained())
            group = self._group(left, wave)
            wave = False
            if group:
                left = [key for key in left if key not in group]
                yield from self._launch_experts(work, keys, group)
            if not asked:
                asked = True
                yield from self._ask()
            elif not group:
                wave = yield from self._stall(left, found)

    def _group(self, left: list[int], wave: bool) -> list[int]:
        ready = [key for key in left if self.memory.there(key)]
        if self.order == "eager" or wave:
            return ready
        if self.order == "barrier":
            return ready if len(ready) == len(left) else []
        return [key for key in ready if key == min(left)]

    def _stall(self, left: list[int], found: dict[int, State]) -> Doing:
        """Until a key in `left` lands; True if none can, so that what is ready must run (barrier)."""
        since = int(self.clock.now)
        if self.order == "index" and not self.memory.there(min(left)) and not self.link.coming(min(left)):
            yield from self._spend(self.costs.copy_submit)
            self.memory.need_again(min(left))
            self.link.demand(min(left))
            return False
        landed, can_wave = self.clock.process(self._next_landing(left)), self.clock.event()
        if self.order != "eager" and any(map(self.memory.there, left)):
            yield self.clock.after(0, QUIET)
            if self.link.stuck:
                return True
            can_wave = self.link.blocked.wait()
        yield from self._wait(landed | can_wave)
        if not landed.processed:
            return True
        key, until = landed.value  # type: ignore[misc]
        self.stream.stall("late_stall" if found[key] is State.LOADING else "miss_stall", until - since)
        return False

    def _next_landing(self, left: list[int]) -> Doing:
        while True:
            yield self.link.landed.wait()
            if self.link.last_landed in left:
                return self.link.last_landed, int(self.clock.now)
