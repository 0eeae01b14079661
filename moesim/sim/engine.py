"""One step on the machine, layer by layer: compute stream, host, link and expert cache (docs/model.md).

The engine keeps two clocks, `stream` (when the compute stream is free) and `host` (when the host is), and brings the
link up to date whenever it reaches an instant at which something could have changed. Every nanosecond of a step goes
to one part: a compute part, or what an idle stream waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moesim.policy import LayerView, PrefetchPolicy, StepView, View
from moesim.sim.cache import ABSENT, FRESH, LOADING, RESIDENT, ExpertCache
from moesim.sim.foresight import Foresight
from moesim.sim.link import NEVER, Link
from moesim.sim.pattern import Keys, Pattern, keys_of, loads_of
from moesim.sim.work import LayerWork, Work

PARTS = ("attention", "rest", "gate", "router", "experts", "host", "miss_stall", "late_stall")
ATTENTION, REST, GATE, ROUTER, EXPERTS, HOST, MISS_STALL, LATE_STALL = range(len(PARTS))
CLASSES = ("reuse", "prefetch", "late", "miss")
REUSE, PREFETCH, LATE, MISS = range(len(CLASSES))
CLASS_OF = {RESIDENT: REUSE, FRESH: PREFETCH, LOADING: LATE, ABSENT: MISS}


class ExpertCost(Protocol):
    """The part of a cost table that the engine asks for itself, in ns (see `moesim.hardware.costs.CostTable`)."""

    @property
    def launch(self) -> int: ...
    @property
    def sync(self) -> int: ...
    @property
    def copy_submit(self) -> int: ...
    @property
    def decision(self) -> int: ...

    def experts(self, tokens: int, active: int, largest: int) -> int: ...


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Kernel times of one step in ns: per layer `attention`, `rest`, `gate`; once `sample` and, after it, `router`."""

    attention: int
    rest: int
    gate: int
    sample: int
    router: int


class Sooner:
    """Keys that are needed no later than a given one, as far as the prefetcher's level shows.

    It answers for keys and holds nothing else that the policy which chooses the victim could read.
    """

    __slots__ = ("_holds",)

    def __init__(self, uses: np.ndarray, key: int) -> None:
        limit = uses[key]
        self._holds: Callable[[int], bool] = lambda other: bool(uses[other] <= limit)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and self._holds(key)


class Engine:
    """Runs steps. `layerwise`: the gate's result has to come back to the host before anything can be demanded.

    `direct` works every layer event out instead of repeating known patterns; the two agree to the nanosecond.
    """

    def __init__(
        self,
        layers: int,
        experts: int,
        costs: ExpertCost,
        cache: ExpertCache,
        *,
        layerwise: bool,
        expert_start: str,
        views: Sequence[View],
        foresights: Sequence[Foresight],
        prefetcher: PrefetchPolicy | None,
        check: bool = False,
        direct: bool = False,
    ) -> None:
        self.layers, self.experts = layers, experts
        self.costs, self.cache = costs, cache
        self.layerwise, self.expert_start = layerwise, expert_start
        self.views, self.foresights = views, foresights
        self.prefetcher = prefetcher
        self.check = check
        self.link: Link
        self.stream = self.host = 0
        self.parts = [0] * len(PARTS)
        self.running: tuple[int, frozenset[int]] | None = None
        """end and keys of the expert kernel that is pinned"""
        self.sampled_at = 0
        self.waves = 0
        self.unique_keys = 0
        self.counts = [0] * (6 * len(CLASSES))
        """per class: keys, tokens and bytes, each of prefill and decode"""
        self.accesses: dict[tuple[LayerWork, tuple[int, ...]], int] = {}
        """layer events of the present step by work and states of its keys: what `counted` adds up"""
        self._same: list[Keys] | None = None
        """keys of every layer of the present step, where they have the same experts"""
        self._patterns: dict[tuple[tuple[int, ...], tuple[int, ...], int], Pattern] = {}
        self._near_views = [view for view in views if isinstance(view, LayerView)]
        self._used = [cache.policies[cache.pool_of[layer * experts]].used for layer in range(layers)]
        self._repeats = prefetcher is None and expert_start != "index" and len(set(cache.sizes)) == 1 and not direct
        if prefetcher is not None and isinstance(prefetcher.view, StepView):
            uses = prefetcher.view.next_uses
            cache.needed_sooner = lambda key: Sooner(uses, key)

    # -- a step ------------------------------------------------------------------------------------------------

    def run(self, step: int, work: Work, costs: StepCosts, start: int, laters: Sequence[np.ndarray]) -> int:
        """Run one step from `start` and return its end; `laters` is what each foresight knows beyond the step.

        Afterwards `parts` holds where the time went and `sampled_at` when the step's tokens were there.
        """
        self.parts = parts = [0] * len(PARTS)
        self._advance(start)
        self.stream = start
        self.host = max(self.host, start) + self.costs.decision
        for view in self.views:
            view.step, view.layer = step, -1
        self._work = work
        self._same = keys_of(self.layers, self.experts, work.layers[0].experts) if len(work.layers) == 1 else None
        for foresight, later in zip(self.foresights, laters, strict=True):
            foresight.begin(step, work, later)
        for layer in range(self.layers):
            self._layer(layer, work.layers[0] if self._same else work.layers[layer], costs)
        end = self._finish(costs)
        self._count_accesses()
        if sum(parts) != end - start:
            raise AssertionError(f"step {step}: parts {dict(zip(PARTS, parts, strict=True))} != {end - start} ns")
        self.cache.balance()
        if self.check:
            self.cache.verify()
        return end

    def needed(self, layer: int) -> tuple[int, ...]:
        """Keys of a layer of the present step, ranked (what a view of level `step` shows)."""
        return keys_of(self.layers, self.experts, self._work.layer(layer).experts)[layer][0]

    def _finish(self, costs: StepCosts) -> int:
        self._kernel(REST, costs.sample)
        self._synchronise()
        self.sampled_at = self.stream
        if costs.router:
            self._kernel(ROUTER, costs.router)
            self._synchronise()
        return self.stream

    def _count_accesses(self) -> None:
        """Add the step's layer events to the counters: keys, tokens and bytes by class and phase."""
        counts, size = self.counts, self.cache.sizes
        for (work, states), events in self.accesses.items():
            for state, prefill, decode, expert in zip(states, work.prefill, work.decode, work.experts, strict=True):
                at = 6 * CLASS_OF[state]
                phase = 0 if prefill else 1
                counts[at + phase] += events
                counts[at + 2] += prefill * events
                counts[at + 3] += decode * events
                counts[at + 4 + phase] += size[expert] * events
        self.accesses.clear()

    def _kernel(self, part: int, cost: int) -> None:
        """The host launches a kernel; it starts when the stream is free and the launch is done."""
        self.host += self.costs.launch
        if self.host > self.stream:
            self.parts[HOST] += self.host - self.stream
            self.stream = self.host
        self.parts[part] += cost
        self.stream += cost

    def _synchronise(self) -> None:
        """The host waits for the stream and reads a result back; meanwhile the stream has nothing to do."""
        self.host = max(self.host, self.stream) + self.costs.sync
        self.parts[HOST] += self.host - self.stream
        self.stream = self.host

    # -- a layer -----------------------------------------------------------------------------------------------

    def _layer(self, layer: int, work: LayerWork, costs: StepCosts) -> None:
        self._kernel(ATTENTION, costs.attention)
        self.parts[REST] += costs.rest
        self.stream += costs.rest
        if layer == 0 and self.prefetcher is not None:
            self._ask_prefetcher()
        if self.layerwise:
            self._kernel(GATE, costs.gate)
            self._synchronise()
        now = max(self.stream, self.host)
        if self.running is not None or self.link.active:
            self._advance(now)
        keys, states_of, as_set = (self._same or keys_of(self.layers, self.experts, work.experts))[layer]
        for view in self.views:
            view.layer = layer
        for near in self._near_views:
            near.current = keys
        for foresight in self.foresights:
            foresight.enter(layer)
        if not keys:
            return
        self.unique_keys += len(keys)
        states = states_of(self.cache.state)
        self.accesses[work, states] = self.accesses.get((work, states), 0) + 1
        self._used[layer](keys)
        if min(states) >= FRESH and self.expert_start != "index":
            if self.prefetcher is not None:
                self._absent(keys, states)
            self._run_resident(keys, work)
        elif self._repeats:
            self._repeat(keys, work, states, as_set, now)
        else:
            self._load_and_run(keys, work, self._absent(keys, states), max(now, self.host))

    def _absent(self, keys: tuple[int, ...], states: tuple[int, ...]) -> dict[int, int]:
        """Access classes of the keys that are not there; prefetched ones have been used from now on."""
        absent: dict[int, int] = {}
        for key, state in zip(keys, states, strict=True):
            if state == FRESH:
                self.cache.state[key] = RESIDENT
            elif state != RESIDENT:
                absent[key] = CLASS_OF[state]
        return absent

    def _run_resident(self, keys: tuple[int, ...], work: LayerWork) -> None:
        """Every key is there: one group, launched without the host having to look."""
        asked_at = max(self.stream, self.host)
        self._kernel(EXPERTS, self.costs.experts(work.total, len(keys), work.largest))
        if self.prefetcher is not None:
            group = frozenset(keys)
            self.cache.event, self.cache.unrun = group, ()
            self.cache.pinned |= group
            self.running = self.stream, group
            self.host = max(self.host, asked_at)
            self._ask_prefetcher()

    def _repeat(
        self, keys: tuple[int, ...], work: LayerWork, states: tuple[int, ...], as_set: frozenset[int], now: int
    ) -> None:
        """Do what was done in the same situation before; work it out and remember it if there was none."""
        situation = (work.tokens, states, now - self.stream)
        pattern = self._patterns.get(situation)
        if pattern is None:
            self._patterns[situation] = self._learn(keys, work, states, now)
            if len(self._patterns) > 50_000:
                self._patterns.clear()
            return
        parts = self.parts
        for part, cost in enumerate(pattern.parts):
            parts[part] += cost
        self.stream, self.host = now + pattern.stream, now + pattern.host
        self.link.busy_ns += pattern.link_busy_ns
        self.waves += pattern.waves
        for rank, released in pattern.loads:
            barred = as_set.difference(keys[r] for r in released) if released else as_set
            self.cache.swap_in(keys[rank], barred)

    def _learn(self, keys: tuple[int, ...], work: LayerWork, states: tuple[int, ...], now: int) -> Pattern:
        parts, busy, waves = list(self.parts), self.link.busy_ns, self.waves
        script: list[tuple[str, tuple[int, ...]]] = []
        self.cache.script = script
        self._load_and_run(keys, work, self._absent(keys, states), now)
        self._advance(self.stream)
        self.cache.script = None
        return Pattern(
            loads_of(script, keys),
            self.stream - now,
            self.host - now,
            tuple(after - before for before, after in zip(parts, self.parts, strict=True)),
            self.link.busy_ns - busy,
            self.waves - waves,
        )

    def _load_and_run(self, keys: tuple[int, ...], work: LayerWork, absent: dict[int, int], now: int) -> None:
        """Demand what is missing and run the experts as `expert_start` says, in waves where they do not all fit."""
        cache = self.cache
        tokens = dict(zip(keys, work.tokens, strict=True))
        unrun = set(keys)
        cache.event, cache.unrun = frozenset(keys), unrun
        cache.pinned.update(absent if self.expert_start == "index" else keys)
        self.waves += sum(cache.sizes[key] for key in keys) > cache.capacity[cache.pool_of[keys[0]]]
        self.host = max(self.host, now)
        for key in sorted(absent) if self.expert_start == "index" else absent:
            self._demand(key)
        asked = self.prefetcher is None
        while unrun:
            self._advance(max(self.stream, self.host))
            group = self._ready(unrun)
            if group:
                self._run_group(group, tokens, unrun)
            if not asked:
                self._ask_prefetcher()
                asked = True
            elif not group:
                self._demand_again(min(unrun))
                self._wait(unrun, absent, tokens)

    def _demand(self, key: int) -> None:
        self.host += self.costs.copy_submit
        self._advance(self.host)
        if self.cache.state[key] >= FRESH:
            # Its prefetch landed while the host was at it.
            self.cache.state[key] = RESIDENT
        else:
            self.link.demand(key, self.cache.sizes[key], self.host)

    def _demand_again(self, key: int) -> None:
        """With `index`, a key that was there may have made room for one that comes before it."""
        if self.cache.state[key] == ABSENT and key not in self.cache.pinned:
            self.cache.pinned.add(key)
            self.cache.policies[self.cache.pool_of[key]].used((key,))
            self.host = max(self.host, self.stream)
            self._demand(key)

    def _ready(self, unrun: set[int]) -> list[int]:
        """Keys that may start now."""
        state = self.cache.state
        if self.expert_start == "index":
            first = min(unrun)
            return [first] if state[first] >= FRESH else []
        ready = [key for key in unrun if state[key] >= FRESH]
        return ready if self.expert_start == "eager" or len(ready) == len(unrun) else []

    def _run_group(self, group: list[int], tokens: dict[int, int], unrun: set[int]) -> None:
        self.host = max(self.host, self.stream)
        counts = [tokens[key] for key in group]
        self._kernel(EXPERTS, self.costs.experts(sum(counts), len(group), max(counts)))
        unrun.difference_update(group)
        self.cache.pinned.update(group)
        self.running = self.stream, frozenset(group)

    def _wait(self, unrun: set[int], absent: dict[int, int], tokens: dict[int, int]) -> None:
        """The stream is free and nothing is ready: go to the next landing of a needed key and book the wait to it."""
        if self.running is not None:
            raise AssertionError("waiting for a copy while a kernel holds its pins")
        free = max(self.stream, self.host)
        before = {key for key in unrun if self.cache.state[key] >= FRESH}
        while True:
            now = self.link.next_event()
            if now == NEVER:
                self._run_wave(before, tokens, unrun)
                return
            self.link.step()
            landed = [key for key in unrun if self.cache.state[key] >= FRESH and key not in before]
            if landed:
                break
        self.parts[HOST] += max(0, free - self.stream)
        self.stream = max(self.stream, free)
        if now > self.stream:
            self.parts[LATE_STALL if absent.get(landed[0]) == LATE else MISS_STALL] += now - self.stream
            self.stream = now
        self.host = max(self.host, now)

    def _run_wave(self, ready: set[int], tokens: dict[int, int], unrun: set[int]) -> None:
        """A barrier cannot be met because the set does not fit: what is there runs and makes room."""
        if not ready:
            raise AssertionError("nothing is ready and nothing is on its way")
        self._run_group(sorted(ready), tokens, unrun)

    # -- between -----------------------------------------------------------------------------------------------

    def _advance(self, now: int) -> None:
        """Bring the link to `now`; a kernel that ends on the way releases its pins, before copies that end then."""
        if self.running is not None and self.running[0] <= now:
            end, group = self.running
            self.link.advance(end, landings=False)
            self.running = None
            self.cache.pinned -= group
            self.cache.note("release", group)
            if not self.cache.unrun:
                self.cache.event = ()
            self.link.release(end)
        self.link.advance(now)

    def _ask_prefetcher(self) -> None:
        """After a gate or at step start: a decision, then a submission for each new key, on the host."""
        assert self.prefetcher is not None
        self.host += self.costs.decision
        self._advance(self.host)
        at = self.host
        self.host += self.costs.copy_submit * self._plan(at)
        self.link.pump(at)

    def link_idle(self, now: int) -> None:
        """The link fell idle at `now`: ask the prefetcher as soon as the host can."""
        at = self.host = max(self.host, now) + self.costs.decision
        self.host += self.costs.copy_submit * self._plan(at)

    def _plan(self, at: int) -> int:
        assert self.prefetcher is not None
        state, pinned = self.cache.state, self.cache.pinned
        keys = [key for key in self.prefetcher.plan() if state[key] == ABSENT and key not in pinned]
        return self.link.plan(keys, self.cache.sizes, at)
