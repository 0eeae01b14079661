"""One step on the machine, layer by layer: compute stream, host, link and expert cache (docs/model.md).

The engine keeps two clocks, `stream` (when the compute stream is free) and `host` (when the host is), and brings the
link up to date whenever it reaches an instant at which something could have changed. Every nanosecond of a step goes
to one part: a compute part, or what an idle stream waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import sub
from typing import Protocol

import numpy as np

from moesim.hardware.keys import Keys
from moesim.policy import FAR, CachePolicy, LayerView, PredictedView, PrefetchPolicy, StepView, View
from moesim.policy.cache import wants_users
from moesim.sim.cache import ABSENT, FRESH, LOADING, RESIDENT, ExpertCache
from moesim.sim.foresight import Foresight
from moesim.sim.link import NEVER, Link
from moesim.sim.misses import Misses
from moesim.sim.pattern import KEPT, Event, Events, Pattern, loads_of
from moesim.sim.predictions import Predictions
from moesim.sim.rows import StepRows
from moesim.sim.users import Users
from moesim.sim.work import LayerWork, Work

PARTS = ("attention", "rest", "gate", "router", "experts", "host", "miss_stall", "late_stall", "cpu_stall")
ATTENTION, REST, GATE, ROUTER, EXPERTS, HOST, MISS_STALL, LATE_STALL, CPU_STALL = range(len(PARTS))
CLASSES = ("reuse", "prefetch", "late", "miss")
REUSE, PREFETCH, LATE, MISS = range(len(CLASSES))
FEW = 16
"""keys that are found sooner in a tuple than in a set that has to be made first"""
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
    @property
    def forming(self) -> int: ...
    @property
    def planning(self) -> int: ...

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
    """Keys that are known to be needed no later than a given one, as far as the prefetcher's level shows.

    It answers for keys and holds nothing else that the policy which chooses the victim could read.
    """

    __slots__ = ("_holds",)

    def __init__(self, uses: np.ndarray, key: int) -> None:
        limit = min(uses[key], FAR - 1)
        self._holds: Callable[[int], bool] = lambda other: bool(uses[other] <= limit)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and self._holds(key)


class Engine:
    """Runs steps. `layerwise`: the gate's result has to come back to the host before anything can be demanded.

    `direct` works every layer event out instead of repeating known patterns; the two agree to the nanosecond.
    """

    def __init__(
        self,
        keys: Keys,
        costs: ExpertCost,
        cache: ExpertCache,
        link: Link,
        *,
        layerwise: bool,
        expert_start: str,
        views: Sequence[View],
        foresights: Sequence[Foresight],
        prefetcher: PrefetchPolicy | None,
        misses: Misses | None = None,
        predictions: Predictions | None = None,
        rows: StepRows | None = None,
        users: Users | None = None,
        check: bool = False,
        direct: bool = False,
    ) -> None:
        self.keys = keys
        self.layers, self.experts = keys.layers, keys.experts
        self.costs, self.cache, self.link = costs, cache, link
        self.layerwise, self.expert_start = layerwise, expert_start
        self.views, self.foresights = views, foresights
        self.prefetcher = prefetcher
        self.asking = self.costs.decision + (prefetcher.cost_ns if prefetcher else 0)
        """host time of asking the prefetcher, in ns"""
        self.misses = misses
        """there if not every load is waited for"""
        self.predictions = predictions
        """there if some view shows them"""
        self.rows = rows
        """there if misses, predictions or users read them"""
        self.users = users
        """there if some cache policy wants to know whom its keys serve"""
        self.check = check
        self.stream = self.host = 0
        self.parts = [0] * len(PARTS)
        self.running: tuple[int, frozenset[int]] | None = None
        """end and keys of the expert kernel that is pinned"""
        self.work: Work | None = None
        """the present step"""
        self.sampled_at = 0
        self.waves = 0
        self.unique_keys = 0
        self.counts = [0] * (6 * len(CLASSES))
        """per class: keys, tokens and bytes, each of prefill and decode"""
        self.accesses: dict[tuple[LayerWork, tuple[int, ...], int], int] = {}
        """layer events of the present step by work, states and layer (0 if keys are of one size)"""
        self._whole: tuple[LayerWork | None, int] = None, 0
        """the last layer event that ran as one group, and how long that took: other layers may do the same"""
        self._events = Events(keys)
        self._patterns: dict[tuple[tuple[int, ...], tuple[int, ...], int], Pattern] = {}
        self._near_views = [view for view in views if isinstance(view, LayerView)]
        self._far_views = [view for view in views if isinstance(view, StepView)]
        self._predicted_views = [view for view in views if isinstance(view, PredictedView)]
        at = enumerate(cache.policies[cache.pool_of[row[0]]] for row in keys.table)
        self._used = [self._teller(layer, policy) for layer, policy in at]
        repeats = prefetcher is None and expert_start != "index" and keys.equal and not cache.staging
        self._repeats = repeats and not direct
        if prefetcher is not None and isinstance(prefetcher.view, StepView):
            uses = prefetcher.view.next_uses
            cache.next_use = uses.item
            cache.needed_sooner = lambda key: Sooner(uses, key)

    def _teller(self, layer: int, policy: CachePolicy) -> Callable[[Sequence[int]], None]:
        """What tells a policy of the keys that a layer event uses."""
        users = self.users
        if users is None or not wants_users(policy):
            return policy.used

        def tell(keys: Sequence[int]) -> None:
            policy.used_by(users.of(layer))
            policy.used(keys)

        return tell

    # -- a step ------------------------------------------------------------------------------------------------

    def run(self, step: int, work: Work, costs: StepCosts, start: int, laters: Sequence[np.ndarray]) -> int:
        """Run one step from `start` and return its end; `laters` is what each foresight knows beyond the step.

        Afterwards `parts` holds where the time went and `sampled_at` when the step's tokens were there.
        """
        self.parts = parts = [0] * len(PARTS)
        self.reach(start)
        self.stream, self._began, self.work = start, start, work
        self.host = max(self.host, start) + self.costs.forming
        works = work.layers
        if len(works) == 1:
            events = self._events.of_step(works[0].experts)
            works *= len(events)
        else:
            events = [self._events.of_layer(layer, w.experts) for layer, w in enumerate(works)]
        for view in self.views:
            view.step, view.layer = step, -1
        for far in self._far_views:
            far.upcoming = [event.keys for event in events]
        for foresight, later in zip(self.foresights, laters, strict=True):
            foresight.begin(step, work, later)
        if self.rows is not None:
            self.rows.begin(work.parts)
        if self.predictions is not None:
            self._show_predictions(-1)
        for layer, event in enumerate(events):
            self._layer(layer, event, works[layer], costs)
        end = self._finish(costs)
        self._advance(end)
        self._count_accesses()
        if sum(parts) != end - start:
            raise AssertionError(f"step {step}: parts {dict(zip(PARTS, parts, strict=True))} != {end - start} ns")
        self.cache.balance()
        if self.check:
            self.cache.verify()
        return end

    def reach(self, start: int) -> int:
        """Wait for a step's start: the link moves on, and the prefetcher may be asked. When the host is there."""
        self._wait_until(start)
        there = max(self.host, start)
        self._advance(there)
        return there

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
        counts, size = self.counts, self.keys.sizes
        for (work, states, layer), events in self.accesses.items():
            row = self.keys.table[layer]
            for state, prefill, decode, expert in zip(states, work.prefill, work.decode, work.experts, strict=True):
                at = 6 * CLASS_OF[state]
                phase = 0 if prefill else 1
                counts[at + phase] += events
                counts[at + 2] += prefill * events
                counts[at + 3] += decode * events
                counts[at + 4 + phase] += size[row[expert]] * events
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

    def _layer(self, layer: int, event: Event, work: LayerWork, costs: StepCosts) -> None:
        self._kernel(ATTENTION, costs.attention)
        self.parts[REST] += costs.rest
        self.stream += costs.rest
        if layer == 0 and self.prefetcher is not None:
            self._ask_prefetcher()
        if self.layerwise:
            self._kernel(GATE, costs.gate)
            self._synchronise()
        if self.prefetcher is not None:
            self._wait_until(self.stream)
        now = max(self.stream, self.host)
        # What repeats leaves nothing behind: no kernel that holds pins, no copy under way.
        if not self._repeats and (self.running is not None or self.link.active):
            self._advance(now)
        keys, states_of = event
        for view in self.views:
            view.layer = layer
        for near in self._near_views:
            near.current = keys
        for foresight in self.foresights:
            foresight.enter(layer)
        if self.predictions is not None:
            self._show_predictions(layer)
        if not keys:
            return
        self.unique_keys += len(keys)
        states = states_of(self.cache.state)
        misses = self.misses
        if misses is not None:
            states = misses.settle(layer, keys, work, states, now)
        access = work, states, 0 if self.keys.equal else layer
        self.accesses[access] = self.accesses.get(access, 0) + 1
        self._used[layer](keys)
        if misses is not None and misses.asked:
            self._run_as_settled(misses, keys, work, states, now)
        elif min(states) >= FRESH and self.expert_start != "index":
            if self.prefetcher is not None:
                self._absent(keys, states)
            self._run_resident(keys, work)
        elif self._repeats:
            self._repeat(keys, work, states, now)
        else:
            self._load_and_run(_tokens_of(keys, work), self._absent(keys, states), now)
        if self.check:
            self._check()

    def _check(self) -> None:
        """Conservation after a layer event: the parts of the step add up, and so do the keys."""
        if sum(self.parts) != self.stream - self._began:
            raise AssertionError(f"parts {self.parts} do not add up to {self.stream - self._began} ns")
        self.cache.balance()

    def _show_predictions(self, layer: int) -> None:
        assert self.predictions is not None
        named = self.predictions.made_at(layer)
        for view in self._predicted_views:
            view.named = named

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
        if self._whole[0] is not work:
            self._whole = work, self.costs.experts(work.total, len(keys), work.largest)
        self._kernel(EXPERTS, self._whole[1])
        if self.prefetcher is not None:
            group = frozenset(keys)
            self.cache.event, self.cache.unrun = group, ()
            self.cache.pinned |= group
            self.running = self.stream, group
            self.host = max(self.host, asked_at)
            self._ask_prefetcher()

    def _repeat(self, keys: tuple[int, ...], work: LayerWork, states: tuple[int, ...], now: int) -> None:
        """Do what was done in the same situation before; work it out and remember it if there was none."""
        situation = (work.tokens, states, now - self.stream)
        pattern = self._patterns.get(situation)
        if pattern is None:
            self._patterns[situation] = self._learn(keys, work, states, now)
            if len(self._patterns) > KEPT:
                self._patterns.clear()
            return
        parts = self.parts
        for part, cost in pattern.parts:
            parts[part] += cost
        self.stream, self.host = now + pattern.stream, now + pattern.host
        self.link.busy_ns += pattern.link_busy_ns
        self.waves += pattern.waves
        swap_in, kind = self.cache.swap_in, frozenset if len(keys) > FEW else tuple
        event = kind(keys)
        for rank, unrun in pattern.loads:
            swap_in(keys[rank], event if unrun is None else kind(unrun(keys)))

    def _learn(self, keys: tuple[int, ...], work: LayerWork, states: tuple[int, ...], now: int) -> Pattern:
        parts, busy, waves = list(self.parts), self.link.busy_ns, self.waves
        script: list[tuple[str, tuple[int, ...]]] = []
        self.cache.script = script
        self._load_and_run(_tokens_of(keys, work), self._absent(keys, states), now)
        self._advance(self.stream)
        self.cache.script = None
        return Pattern(
            loads_of(script, keys),
            self.stream - now,
            self.host - now,
            tuple((part, got) for part, got in enumerate(map(sub, self.parts, parts)) if got),
            self.link.busy_ns - busy,
            self.waves - waves,
        )

    def _run_as_settled(
        self, misses: Misses, keys: tuple[int, ...], work: LayerWork, states: tuple[int, ...], now: int
    ) -> None:
        """The miss policy has said what becomes of the keys that are missing; run the rest, and wait for the CPU."""
        self.host = max(self.host, now) + misses.asking
        for tokens in misses.on_cpu:
            self.host += self.costs.copy_submit
            misses.hand_over(tokens, self.host)
        here = {key: n for key, n in _tokens_of(keys, work).items() if key not in misses.elsewhere}
        absent = {key: cause for key, cause in self._absent(keys, states).items() if key in here}
        self._load_and_run(here, absent, now)
        if misses.cpu_free > self.stream:
            by_host = max(0, min(self.host, misses.cpu_free) - self.stream)
            self.parts[HOST] += by_host
            self.parts[CPU_STALL] += misses.cpu_free - self.stream - by_host
            self.stream = misses.cpu_free

    def _load_and_run(self, tokens: dict[int, int], absent: dict[int, int], now: int) -> None:
        """Demand what is missing and run the experts as `expert_start` says, in waves where they do not all fit.

        `tokens` of each key, ranked; `absent`: the access classes of those that are not there.
        """
        cache = self.cache
        unrun = set(tokens)
        cache.event, cache.unrun = frozenset(tokens), unrun
        cache.pinned.update(absent if self.expert_start == "index" else tokens)
        pool = cache.pool_of[next(iter(tokens), 0)]
        self.waves += bool(absent) and sum(cache.sizes[key] for key in tokens) > cache.capacity[pool]
        self.host = max(self.host, now)
        for key in sorted(absent) if self.expert_start == "index" else absent:
            self._demand(key)
        asked = self.prefetcher is None
        while unrun:
            self._wait_until(self.stream)
            at = max(self.stream, self.host)
            self._advance(at)
            self.link.submit(at)
            group = self._ready(unrun)
            if group:
                self._run_group(group, tokens, unrun)
            if not asked:
                self._ask_prefetcher()
                asked = True
            elif not group:
                self._demand_again(min(unrun))
                self._stall(unrun, absent, tokens)
        if not asked:
            self._ask_prefetcher()

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
            if self.misses is not None:
                self.misses.resize(key)
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
        cost = self.costs.experts(sum(counts), len(group), max(counts))
        self._kernel(EXPERTS, cost if self.misses is None else cost + self.misses.unpacking(group))
        unrun.difference_update(group)
        self.cache.pinned.update(group)
        self.running = self.stream, frozenset(group)

    def _stall(self, unrun: set[int], absent: dict[int, int], tokens: dict[int, int]) -> None:
        """The stream is free and nothing may run: go to the next landing of a needed key and book the wait to it.

        Or to where no such landing can come, because the set does not fit: what is there runs then, and makes room.
        """
        if self.running is not None:
            raise AssertionError("waiting for a copy while a kernel holds its pins")
        free = now = max(self.stream, self.host)
        state = self.cache.state
        before = {key for key in unrun if state[key] >= FRESH}
        cause: int | None = None
        while cause is None:
            self.link.submit(now)
            if self.link.stuck():
                break
            now = self.link.next_event()
            if now == NEVER:
                raise AssertionError("nothing may run and nothing is on its way")
            self.link.step()
            cause = next((key for key in unrun if state[key] >= FRESH and key not in before), None)
        self.parts[HOST] += max(0, free - self.stream)
        self.stream = max(self.stream, free)
        if now > self.stream:
            waited_for = self.link.demands[0].key if cause is None else cause
            self.parts[LATE_STALL if absent.get(waited_for) == LATE else MISS_STALL] += now - self.stream
            self.stream = now
        self.host = max(self.host, now)
        if cause is None:
            ready = sorted(key for key in unrun if state[key] >= FRESH)
            if not ready:
                raise AssertionError("nothing is there to run, and nothing can come")
            self._run_group(ready, tokens, unrun)

    # -- between -----------------------------------------------------------------------------------------------

    def _advance(self, now: int, *, idle: bool = False) -> None:
        """Bring the link to `now`; a kernel that ends on the way releases its pins, before copies that end then."""
        if self.running is not None and self.running[0] <= now:
            end, group = self.running
            self.link.advance(end, landings=False, idle=idle)
            if idle and self.link.idle_since is not None:
                return
            self.running = None
            self.cache.ran(group)
            if not self.cache.unrun:
                self.cache.event = ()
            self.link.release(end)
        self.link.advance(now, idle=idle)

    def _wait_until(self, due: int) -> None:
        """The host has nothing to do before `due`: the prefetcher is asked if the link is or falls idle meanwhile."""
        if self.prefetcher is None:
            return
        while self.host < due:
            if self.link.idle_since is None:
                self._advance(due - 1, idle=True)
            fell = self.link.idle_since
            if fell is None or fell >= due:
                return
            self.host = max(self.host, fell)
            self._ask_prefetcher()

    def _ask_prefetcher(self) -> None:
        """A decision on the host; at its end the prefetcher's answer replaces what has not started."""
        assert self.prefetcher is not None
        self.link.idle_since = None
        self.host += self.asking
        self._advance(self.host)
        at = self.host
        self.link.idle_since = None
        under_way = self.link.under_way()
        if under_way and (given_up := self.prefetcher.cancel(under_way)):
            self.link.cancel(frozenset(given_up), at)
        wanted = self.prefetcher.plan()
        self.link.submit(at)
        state, unrun = self.cache.state, self.cache.unrun
        keys = [key for key in dict.fromkeys(wanted) if state[key] == ABSENT and key not in unrun]
        self.host = self.link.plan(keys, self.keys.sizes, at, self.costs.planning)


def _tokens_of(keys: tuple[int, ...], work: LayerWork) -> dict[int, int]:
    return dict(zip(keys, work.tokens, strict=True))
