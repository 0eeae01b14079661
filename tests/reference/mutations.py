"""Subtly wrong versions of the simulator, one rule broken in each. The agreement check must notice every one."""

from __future__ import annotations

from collections import deque
from collections.abc import Container
from typing import Any

from moesim.policy import FAR
from moesim.sim import engine
from moesim.sim.cache import FRESH, LOADING, RESIDENT, Either, ExpertCache
from moesim.sim.engine import EXPERTS, GATE, Engine
from moesim.sim.foresight import Foresight
from moesim.sim.link import NEVER, Link
from moesim.sim.server import FreeServer, Server
from tests.reference.broken_rules import Mutations, Patch

MUTATIONS = mutation = Mutations()


# ---- the link: chunks, copies in flight, promotion, cancellation


@mutation
def the_fixed_cost_is_paid_once_a_key(patch: Patch) -> None:
    right = Link.chunks

    def chunks(self: Link, nbytes: int) -> list[int]:
        first, *rest = right(self, nbytes)
        return [first, *(cost - self.cost.copy(0) for cost in rest)]

    patch.setattr(Link, "chunks", chunks)


@mutation
def the_last_chunk_is_as_long_as_the_others(patch: Patch) -> None:
    right = Link.chunks

    def chunks(self: Link, nbytes: int) -> list[int]:
        found = right(self, nbytes)
        return [found[0]] * len(found)

    patch.setattr(Link, "chunks", chunks)


@mutation
def one_chunk_more_is_in_flight(patch: Patch) -> None:
    made = Link.__init__

    def init(self: Link, cost: Any, chunk_bytes: int, in_flight: int, *rest: Any) -> None:
        made(self, cost, chunk_bytes, in_flight + 1, *rest)

    patch.setattr(Link, "__init__", init)


@mutation
def all_copies_take_as_long_as_that_of_the_largest_key(patch: Patch) -> None:
    right = Engine._demand

    def demand(self: Engine, key: int) -> None:
        one, many = self.keys, max(self.keys.sizes)
        link = self.link.demand
        self.link.demand = lambda key, nbytes, at: link(key, many, at)  # type: ignore[method-assign]
        right(self, key)
        del self.link.demand
        assert self.keys is one

    patch.setattr(Engine, "_demand", demand)


@mutation
def demands_are_served_last_in_first_out(patch: Patch) -> None:
    class Stack(deque[Any]):
        append = deque.appendleft

    made = Link.__init__

    def init(self: Link, *arguments: Any) -> None:
        made(self, *arguments)
        self.demands = Stack()

    patch.setattr(Link, "__init__", init)


@mutation
def promotion_moves_nothing_up(patch: Patch) -> None:
    right = Link.demand

    def demand(self: Link, key: int, nbytes: int, at: int) -> None:
        if moving := self.moving.get(key):
            moving.demanded = True
            self.idle_since = None
        else:
            right(self, key, nbytes, at)

    patch.setattr(Link, "demand", demand)


@mutation
def a_promoted_key_goes_to_the_head_of_the_line(patch: Patch) -> None:
    right = Link.demand

    def demand(self: Link, key: int, nbytes: int, at: int) -> None:
        moving = self.moving.get(key)
        if moving is not None and not moving.demanded and moving.chunks:
            moving.demanded = True
            self.prefetches.remove(moving)
            self.demands.appendleft(moving)
            self.submit(at)
        else:
            right(self, key, nbytes, at)

    patch.setattr(Link, "demand", demand)


@mutation
def a_cancelled_copy_frees_its_room_at_once(patch: Patch) -> None:
    right = ExpertCache.cancelled

    def cancelled(self: ExpertCache, key: int, sent: int, over: bool) -> int:
        place = right(self, key, sent, True)
        self.dying.setdefault(place, [])
        return place

    def drained(self: ExpertCache, place: int, size: int) -> None:
        pass

    patch.setattr(ExpertCache, "cancelled", cancelled)
    patch.setattr(ExpertCache, "drained", drained)


@mutation
def a_cancelled_copy_is_recalled(patch: Patch) -> None:
    """Its last chunk, though submitted, no longer keeps the link busy."""
    right = Link.cancel

    def cancel(self: Link, keys: Container[int], at: int) -> None:
        given_up = [t for t in self.prefetches if t.key in keys and t.end > at]
        right(self, keys, at)
        for transfer in given_up:
            self.ends = deque((min(end, at) if end == transfer.end else end for end in self.ends), self.in_flight)

    patch.setattr(Link, "cancel", cancel)


@mutation
def what_a_cancelled_copy_has_sent_is_not_wasted(patch: Patch) -> None:
    right = ExpertCache.cancelled

    def cancelled(self: ExpertCache, key: int, sent: int, over: bool) -> int:
        self.count.wasted_bytes -= sent
        return right(self, key, sent, over)

    patch.setattr(ExpertCache, "cancelled", cancelled)


@mutation
def nobody_is_asked_what_to_cancel(patch: Patch) -> None:
    patch.setattr(Link, "under_way", lambda self: [])


@mutation
def a_prefetch_starts_while_a_demand_waits_for_room(patch: Patch) -> None:
    right = Link._pump

    def pump(self: Link, now: int) -> None:
        right(self, now)
        while self.demands and self.ends[0] <= now and not self.prefetches and self._start_planned():
            self._send_chunk(self.prefetches[0], now, self.prefetches)

    patch.setattr(Link, "_pump", pump)


# ---- the cache: classes, waste, victims, pins, staging, bypass, waves


@mutation
def late_keys_count_as_missed(patch: Patch) -> None:
    patch.setitem(engine.CLASS_OF, LOADING, engine.MISS)


@mutation
def wasted_bytes_are_not_counted(patch: Patch) -> None:
    right = ExpertCache._gone

    def gone(self: ExpertCache, key: int) -> None:
        if self.state[key] == FRESH:
            self.state[key] = RESIDENT
        right(self, key)

    patch.setattr(ExpertCache, "_gone", gone)


@mutation
def a_prefetched_key_stays_fresh_when_it_is_used(patch: Patch) -> None:
    right = Engine._absent

    def absent(self: Engine, keys: Any, states: Any) -> Any:
        found = right(self, keys, states)
        for key, state in zip(keys, states, strict=True):
            self.cache.state[key] = state
        return found

    patch.setattr(Engine, "_absent", absent)


@mutation
def victims_are_chosen_when_the_demand_is_made(patch: Patch) -> None:
    right = Link.demand

    def demand(self: Link, key: int, nbytes: int, at: int) -> None:
        right(self, key, nbytes, at)
        for load in self.demands:
            if not load.started:
                self._start(load)

    patch.setattr(Link, "demand", demand)


@mutation
def pins_are_released_when_the_kernel_starts(patch: Patch) -> None:
    right = Engine._run_group

    def run_group(self: Engine, group: list[int], *rest: Any) -> None:
        right(self, group, *rest)
        self.cache.pinned.difference_update(group)

    patch.setattr(Engine, "_run_group", run_group)


@mutation
def a_waiting_demand_does_not_hear_of_landings(patch: Patch) -> None:
    right = Link._land

    def land(self: Link, now: int) -> None:
        blocked = self.blocked_until
        right(self, now)
        if blocked == NEVER:
            self.blocked_until = blocked

    patch.setattr(Link, "_land", land)


@mutation
def a_prefetch_may_push_out_what_is_needed_sooner(patch: Patch) -> None:
    right = ExpertCache._spared

    def spared(self: ExpertCache, key: int, demanded: bool) -> tuple[Container[int], ...]:
        return right(self, key, demanded) if demanded else (Either(self.pinned, self.event),)

    patch.setattr(ExpertCache, "_spared", spared)


@mutation
def a_prefetch_may_push_out_keys_of_the_present_event(patch: Patch) -> None:
    right = ExpertCache._spared

    def spared(self: ExpertCache, key: int, demanded: bool) -> tuple[Container[int], ...]:
        return right(self, key, demanded) if demanded else (Either(self.pinned, self.needed_sooner(key)),)

    patch.setattr(ExpertCache, "_spared", spared)


@mutation
def a_demand_takes_any_key_that_has_run(patch: Patch) -> None:
    right = ExpertCache._spared

    def spared(self: ExpertCache, key: int, demanded: bool) -> tuple[Container[int], ...]:
        found = right(self, key, demanded)
        return found[1:] if len(found) == 3 else found

    patch.setattr(ExpertCache, "_spared", spared)


@mutation
def with_index_a_key_that_runs_sooner_makes_room(patch: Patch) -> None:
    right = ExpertCache._spared

    def spared(self: ExpertCache, key: int, demanded: bool) -> tuple[Container[int], ...]:
        found = right(self, key, demanded)
        return (*found[:2], self.pinned) if len(found) == 3 else found

    patch.setattr(ExpertCache, "_spared", spared)


@mutation
def a_demand_pushes_nothing_out_of_staging(patch: Patch) -> None:
    right = ExpertCache._stage
    patch.setattr(ExpertCache, "_stage", lambda self, key, demanded: right(self, key, False))


@mutation
def what_came_last_is_pushed_out_of_staging(patch: Patch) -> None:
    right = ExpertCache._stage

    def stage(self: ExpertCache, key: int, demanded: bool) -> int | None:
        staged = self.staged
        self.staged = dict(reversed(staged.items()))
        found = right(self, key, demanded)
        left = self.staged
        self.staged = staged
        for other in [other for other in staged if other not in left]:
            del staged[other]
        staged.update(dict.fromkeys(other for other in left if other not in staged))
        return found

    patch.setattr(ExpertCache, "_stage", stage)


@mutation
def policies_are_not_asked_to_admit(patch: Patch) -> None:
    patch.setattr(ExpertCache, "_bypasses", lambda self, key, pool, _: self.sizes[key] > self.capacity[pool])


@mutation
def what_bypassed_the_cache_stays_until_somebody_wants_its_slot(patch: Patch) -> None:
    right = ExpertCache.ran

    def ran(self: ExpertCache, keys: frozenset[int]) -> None:
        staged, self.staged = self.staged, {}
        right(self, keys)
        self.staged = staged
        for key in keys & staged.keys():
            self.state[key] = FRESH

    patch.setattr(ExpertCache, "ran", ran)


@mutation
def a_wave_waits_for_all_that_is_under_way(patch: Patch) -> None:
    right = Link.stuck
    patch.setattr(Link, "stuck", lambda self: right(self) and not self.landing)


@mutation
def a_wave_is_one_key(patch: Patch) -> None:
    right = Engine._run_group

    def run_group(self: Engine, group: list[int], tokens: Any, unrun: set[int]) -> None:
        whole = self.expert_start == "barrier" and len(group) < len(unrun)
        right(self, group[:1] if whole else group, tokens, unrun)

    patch.setattr(Engine, "_run_group", run_group)


# ---- how experts start


@mutation
def eager_runs_one_key_at_a_time(patch: Patch) -> None:
    right = Engine._ready

    def ready(self: Engine, unrun: set[int]) -> list[int]:
        found = right(self, unrun)
        return found[:1] if self.expert_start == "eager" else found

    patch.setattr(Engine, "_ready", ready)


@mutation
def barrier_starts_without_the_last_key(patch: Patch) -> None:
    right = Engine._ready

    def ready(self: Engine, unrun: set[int]) -> list[int]:
        there = [key for key in unrun if self.cache.state[key] >= FRESH]
        return there if self.expert_start == "barrier" and len(there) >= len(unrun) - 1 else right(self, unrun)

    patch.setattr(Engine, "_ready", ready)


@mutation
def index_starts_with_the_highest_key(patch: Patch) -> None:
    right = Engine._ready

    def ready(self: Engine, unrun: set[int]) -> list[int]:
        there = [key for key in unrun if self.cache.state[key] >= FRESH]
        return [max(there)] if there and self.expert_start == "index" else right(self, unrun)

    patch.setattr(Engine, "_ready", ready)


@mutation
def a_key_that_is_loaded_again_is_not_used_again(patch: Patch) -> None:
    def demand_again(self: Engine, key: int) -> None:
        if self.cache.state[key] == 0 and key not in self.cache.pinned:
            self.cache.pinned.add(key)
            self.host = max(self.host, self.stream)
            self._demand(key)

    patch.setattr(Engine, "_demand_again", demand_again)


# ---- the host


@mutation
def a_group_of_experts_is_launched_for_nothing(patch: Patch) -> None:
    right = Engine._kernel

    def kernel(self: Engine, part: int, cost: int) -> None:
        if part == EXPERTS:
            self.host -= self.costs.launch
        right(self, part, cost)

    patch.setattr(Engine, "_kernel", kernel)


@mutation
def the_host_never_runs_ahead(patch: Patch) -> None:
    right = Engine._run_resident

    def run_resident(self: Engine, *rest: Any) -> None:
        self.host = max(self.host, self.stream)
        right(self, *rest)

    patch.setattr(Engine, "_run_resident", run_resident)


@mutation
def a_demand_enters_before_it_is_submitted(patch: Patch) -> None:
    right = Engine._demand

    def demand(self: Engine, key: int) -> None:
        self.host -= self.costs.copy_submit
        right(self, key)
        self.host += self.costs.copy_submit

    patch.setattr(Engine, "_demand", demand)


@mutation
def planned_keys_start_before_they_are_submitted(patch: Patch) -> None:
    right = Link.plan

    def plan(self: Link, keys: Any, nbytes: Any, at: int, submit_ns: int = 0) -> int:
        end = right(self, keys, nbytes, at, submit_ns)
        self.planned = dict.fromkeys(self.planned, at)
        return end

    patch.setattr(Link, "plan", plan)


@mutation
def planned_keys_are_submitted_for_nothing(patch: Patch) -> None:
    right = Link.plan
    patch.setattr(Link, "plan", lambda self, keys, nbytes, at, submit_ns=0: right(self, keys, nbytes, at, 0))


@mutation
def the_decision_of_the_prefetcher_is_free(patch: Patch) -> None:
    right = Engine._ask_prefetcher

    def ask(self: Engine) -> None:
        self.host -= self.costs.decision
        self._advance(self.host)
        right(self)

    patch.setattr(Engine, "_ask_prefetcher", ask)


@mutation
def nobody_is_asked_when_the_link_falls_idle(patch: Patch) -> None:
    patch.setattr(Engine, "_wait_until", lambda self, due: None)


@mutation
def a_layerwise_gate_needs_no_round_trip(patch: Patch) -> None:
    kernel, synchronise = Engine._kernel, Engine._synchronise
    last = [0]

    def remembering(self: Engine, part: int, cost: int) -> None:
        last[0] = part
        kernel(self, part, cost)

    patch.setattr(Engine, "_kernel", remembering)
    patch.setattr(Engine, "_synchronise", lambda self: None if last[0] == GATE else synchronise(self))


@mutation
def the_tokens_are_there_before_the_host_has_read_them(patch: Patch) -> None:
    right = Engine.run

    def run(self: Engine, *arguments: Any) -> int:
        end = right(self, *arguments)
        self.sampled_at -= self.costs.sync
        return end

    patch.setattr(Engine, "run", run)


# ---- order within an instant


@mutation
def what_may_start_at_an_instant_does_so_before_the_host_acts(patch: Patch) -> None:
    right = Engine._advance

    def advance(self: Engine, now: int, *, idle: bool = False) -> None:
        right(self, now, idle=idle)
        if not idle and self.link.active and self.link._opening() <= now:
            self.link._pump(now)

    patch.setattr(Engine, "_advance", advance)



# ---- keys, routes and requests


@mutation
def a_shared_key_is_used_next_by_the_last_of_its_layers(patch: Patch) -> None:
    right = Foresight._gather

    def gather(self: Foresight) -> None:
        right(self)
        if self._table is not None:
            flat = self.grid.reshape(-1).tolist()
            uses = {}
            for key, use in zip(self._table.reshape(-1).tolist(), flat, strict=True):
                if use < FAR:
                    uses[key] = use
            for key, use in uses.items():
                self.next_uses[key] = use

    patch.setattr(Foresight, "_gather", gather)


@mutation
def next_uses_of_the_present_layer_are_those_of_this_step(patch: Patch) -> None:
    patch.setattr(Foresight, "enter", lambda self, layer: self._gather())


@mutation
def prompts_are_visible_when_they_arrive(patch: Patch) -> None:
    right = Server.route_aside
    patch.setattr(Server, "route_aside", lambda self, tokens, now: (right(self, tokens, now), now)[1])


@mutation
def the_router_serves_each_request_at_once(patch: Patch) -> None:
    def route_aside(self: Server, tokens: int, now: int) -> int:
        return now + self.inputs.costs.router(tokens) * self.decoupled

    patch.setattr(Server, "route_aside", route_aside)


@mutation
def sampled_tokens_on_the_side_are_visible_at_once(patch: Patch) -> None:
    right = FreeServer._requeue

    def requeue(self: FreeServer, continuing: Any) -> None:
        side, self.side_router = self.side_router, False
        right(self, continuing)
        self.side_router = side

    patch.setattr(FreeServer, "_requeue", requeue)


@mutation
def patterns_spare_no_key_of_the_present_event(patch: Patch) -> None:
    right = engine.loads_of

    def loads_of(script: Any, keys: tuple[int, ...]) -> Any:
        return [(rank, lambda sequence: ()) for rank, _ in right(script, keys)]

    patch.setattr(engine, "loads_of", loads_of)
