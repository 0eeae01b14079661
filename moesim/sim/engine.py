"""One step on the machine, layer by layer: compute stream, host, link and expert cache (DESIGN 2; docs/model.md).

The engine keeps two clocks, `stream` (when the compute stream is free) and `host` (when the host is), and brings the
link up to date whenever it reaches an instant at which something could have changed. Every nanosecond of a step goes
to one part: a compute part, or what an idle stream waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moesim.policy import LayerView, PrefetchPolicy, StepView, View
from moesim.sim.cache import ABSENT, FRESH, LOADING, RESIDENT, ExpertCache
from moesim.sim.foresight import Foresight
from moesim.sim.link import NEVER, Link
from moesim.sim.work import LayerWork, Work

PARTS = ("attention", "rest", "gate", "router", "experts", "host", "miss_stall", "late_stall")
ATTENTION, REST, GATE, ROUTER, EXPERTS, HOST, MISS_STALL, LATE_STALL = range(len(PARTS))
CLASSES = ("reuse", "prefetch", "late", "miss")
REUSE, PREFETCH, LATE, MISS = range(len(CLASSES))
CLASS_OF = {RESIDENT: REUSE, FRESH: PREFETCH, LOADING: LATE, ABSENT: MISS}


class ExpertCost:
    """Protocol of the cost table's part that the engine asks for itself: see `moesim.hardware.costs.CostTable`."""

    launch: int
    sync: int
    copy_submit: int
    decision: int

    def experts(self, tokens: int, active: int, largest: int) -> int:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class StepCosts:
    """Kernel times of one step in ns: per layer `attention`, `rest`, `gate`; once `sample` and, after it, `router`."""

    attention: int
    rest: int
    gate: int
    sample: int
    router: int


class Sooner:
    """Keys that are needed no later than a given event, as far as the prefetcher's level shows."""

    __slots__ = ("limit", "uses")

    def __init__(self, uses: np.ndarray, key: int) -> None:
        self.uses = uses
        self.limit = uses[key]

    def __contains__(self, key: object) -> bool:
        return bool(self.uses[key] <= self.limit)


class Engine:
    """Runs steps. `layerwise`: the gate's result has to come back to the host before anything can be demanded."""

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
        self.keys_by_class = [[0, 0] for _ in CLASSES]
        self.tokens_by_class = [[0, 0] for _ in CLASSES]
        self.bytes_by_class = [[0, 0] for _ in CLASSES]
        self.unique_keys = 0
        self._keys_of: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        if isinstance(getattr(prefetcher, "view", None), StepView):
            uses = prefetcher.view.next_uses  # type: ignore[union-attr]
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
        for foresight, later in zip(self.foresights, laters, strict=True):
            foresight.begin(step, work, later)
        for layer in range(self.layers):
            self._layer(layer, work.layer(layer), costs)
        end = self._finish(costs)
        if sum(parts) != end - start:
            raise AssertionError(f"step {step}: parts {dict(zip(PARTS, parts, strict=True))} != {end - start} ns")
        if self.check:
            self.cache.verify()
        return end

    def needed(self, layer: int) -> tuple[int, ...]:
        """Keys of a layer of the present step, ranked (what a view of level `step` shows)."""
        return self._keys(layer, self._work.layer(layer).experts)

    def _finish(self, costs: StepCosts) -> int:
        self._kernel(REST, costs.sample)
        self._synchronise()
        self.sampled_at = self.stream
        if costs.router:
            self._kernel(ROUTER, costs.router)
            self._synchronise()
        return self.stream

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
        keys = self._keys(layer, work.experts)
        for view in self.views:
            view.layer = layer
            if isinstance(view, LayerView):
                view.current = keys
        for foresight in self.foresights:
            foresight.enter(layer)
        self.unique_keys += len(keys)
        absent = self._classify(keys, work)
        if keys:
            self.cache.policies[self.cache.pool_of[keys[0]]].used(keys)
        if absent or self.expert_start == "index":
            self._load_and_run(keys, work, absent, max(now, self.host))
        else:
            self._run_resident(keys, work)

    def _keys(self, layer: int, experts: tuple[int, ...]) -> tuple[int, ...]:
        keys = self._keys_of.get(experts)
        if keys is None:
            if len(self._keys_of) > 100_000:
                self._keys_of.clear()
            keys = [tuple(base + e for e in experts) for base in range(0, self.layers * self.experts, self.experts)]
            self._keys_of[experts] = keys
        return keys[layer]

    def _classify(self, keys: tuple[int, ...], work: LayerWork) -> dict[int, int]:
        """Count each key in its access class, once; return the classes of those that are not there."""
        state, sizes = self.cache.state, self.cache.sizes
        absent: dict[int, int] = {}
        for key, prefill, decode in zip(keys, work.prefill, work.decode, strict=True):
            access = CLASS_OF[state[key]]
            if access == PREFETCH:
                state[key] = RESIDENT
            elif access != REUSE:
                absent[key] = access
            phase = 0 if prefill else 1
            self.keys_by_class[access][phase] += 1
            self.bytes_by_class[access][phase] += sizes[key]
            tokens = self.tokens_by_class[access]
            tokens[0] += prefill
            tokens[1] += decode
        return absent

    def _run_resident(self, keys: tuple[int, ...], work: LayerWork) -> None:
        """Every key is there: one group, launched without the host having to look."""
        asked_at = max(self.stream, self.host)
        if keys:
            self._kernel(EXPERTS, self.costs.experts(sum(work.tokens), len(keys), max(work.tokens)))
        if self.prefetcher is not None:
            group = frozenset(keys)
            self.cache.event, self.cache.unrun = group, ()
            self.cache.pinned |= group
            self.running = self.stream, group
            self.host = max(self.host, asked_at)
            self._ask_prefetcher()

    def _load_and_run(self, keys: tuple[int, ...], work: LayerWork, absent: dict[int, int], now: int) -> None:
        """Demand what is missing and run the experts as `expert_start` says, in waves where they do not all fit."""
        cache = self.cache
        tokens = dict(zip(keys, work.tokens, strict=True))
        unrun = set(keys)
        cache.event, cache.unrun = frozenset(keys), unrun
        cache.pinned.update(absent if self.expert_start == "index" else keys)
        self.waves += sum(cache.sizes[k] for k in keys) > cache.capacity[cache.pool_of[keys[0]]] if keys else 0
        self.host = max(self.host, now)
        for key in sorted(absent):
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
                self._wait(unrun, absent, tokens)

    def _demand(self, key: int) -> None:
        self.host += self.costs.copy_submit
        self._advance(self.host)
        self.link.demand(key, self.cache.sizes[key], self.host)

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
            if (
                self.expert_start == "index"
                and self.cache.state[first := min(unrun)] == ABSENT
                and first not in self.cache.pinned
            ):
                # It was there, but made room for one that comes before it.
                self.cache.pinned.add(first)
                self._demand(first)
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
        """Bring the link to `now`; a kernel that ends on the way releases its pins at its end, before copies that end then."""
        if self.running is not None and self.running[0] <= now:
            end, group = self.running
            self.link.advance(end, landings=False)
            self.running = None
            self.cache.pinned -= group
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
