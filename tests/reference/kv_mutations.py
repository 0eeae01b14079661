"""Subtly wrong versions of KV memory in the simulator, one rule broken in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from moesim.policy import Queued
from moesim.sim.kv import Blocks, Moves, Preempted
from moesim.sim.link import Link
from moesim.sim.paged import PagedScheduler
from moesim.sim.scheduler import Scheduler
from moesim.sim.server import Server
from tests.reference.broken_rules import Mutations, Patch

MUTATIONS = mutation = Mutations()


# ---- who is let in


@mutation
def the_reserve_is_given_away(patch: Patch) -> None:
    right = Blocks.let_in
    patch.setattr(Blocks, "let_in", lambda self, queue, most: right(self, queue, 0))


@mutation
def the_watermark_holds_for_an_empty_memory(patch: Patch) -> None:
    right = Blocks.let_in

    def let_in(self: Blocks, queue: Mapping[int, Queued], most: int) -> list[int]:
        if self.held:
            return right(self, queue, most)
        free, self.free = self.free, self.free - self.spare
        found = right(self, queue, most) or list(queue)[:1]
        self.free = free
        return found

    patch.setattr(Blocks, "let_in", let_in)


@mutation
def there_is_no_watermark(patch: Patch) -> None:
    right = Blocks.__init__

    def init(self: Blocks, *arguments: Any) -> None:
        right(self, *arguments)
        self.spare = 0

    patch.setattr(Blocks, "__init__", init)


@mutation
def those_that_fit_pass_one_that_does_not(patch: Patch) -> None:
    right = Blocks.let_in

    def let_in(self: Blocks, queue: Mapping[int, Queued], most: int) -> list[int]:
        found: list[int] = []
        for request in queue:
            if request not in self.held:
                admitted = {other: queued for other, queued in queue.items() if other in (*self.held, *found, request)}
                found = right(self, admitted, most) if request in right(self, admitted, most) else found
        return found

    patch.setattr(Blocks, "let_in", let_in)


@mutation
def a_prompt_takes_the_blocks_of_its_first_token_only(patch: Patch) -> None:
    patch.setattr(Blocks, "needs", lambda self, queued: -(-(queued.position + 1) // self.tokens))


@mutation
def who_is_not_shown_is_passed_over(patch: Patch) -> None:
    right = Scheduler.take
    patch.setattr(Scheduler, "take", lambda self, parts, shown: right(self, parts, list(self.queue.values())))


# ---- who has to go


@mutation
def who_was_admitted_first_has_to_go(patch: Patch) -> None:
    right = Blocks.victims

    def victims(self: Blocks, queue: Mapping[int, Queued], most: int) -> list[int]:
        held = self.held
        self.held = dict(reversed(held.items()))
        found = right(self, queue, most)
        self.held = held
        return found

    patch.setattr(Blocks, "victims", victims)


@mutation
def more_have_to_go_than_a_step_takes(patch: Patch) -> None:
    right = Blocks.victims
    patch.setattr(Blocks, "victims", lambda self, queue, most: right(self, queue, len(queue)))


@mutation
def the_last_one_goes_to_make_room_for_nobody(patch: Patch) -> None:
    right = PagedScheduler.ready

    def ready(self: PagedScheduler) -> bool:
        found = right(self)
        if not found and self._victims:
            self.to_front(tuple(self.blocks.preempt(self.queue[number]) for number in self._victims), self.routes)
        return found

    patch.setattr(PagedScheduler, "ready", ready)


@mutation
def who_has_to_go_is_put_last(patch: Patch) -> None:
    right = Scheduler.to_front

    def to_front(self: Scheduler, preempted: Sequence[Preempted], routes: Any) -> None:
        right(self, preempted, routes)
        for gone in preempted:
            self.queue[gone.request] = self.queue.pop(gone.request)

    patch.setattr(Scheduler, "to_front", to_front)


@mutation
def of_several_who_was_admitted_last_comes_first(patch: Patch) -> None:
    right = Scheduler.to_front
    patch.setattr(Scheduler, "to_front", lambda self, preempted, routes: right(self, preempted[::-1], routes))


@mutation
def who_has_to_go_stays_passed_over(patch: Patch) -> None:
    right = Scheduler.to_front

    def to_front(self: Scheduler, preempted: Sequence[Preempted], routes: Any) -> None:
        skipped = {gone.request: self.queue[gone.request].skipped for gone in preempted}
        right(self, preempted, routes)
        for request, steps in skipped.items():
            self.queue[request].skipped = steps

    patch.setattr(Scheduler, "to_front", to_front)


# ---- copies


@mutation
def blocks_that_hold_nothing_yet_are_swapped(patch: Patch) -> None:
    right = Blocks.preempt

    def preempt(self: Blocks, queued: Queued) -> Preempted:
        held = self.held[queued.request]
        found = right(self, queued)
        if not found.nbytes:
            return found
        self.away[queued.request] = held * self.bytes
        return found._replace(nbytes=held * self.bytes)

    patch.setattr(Blocks, "preempt", preempt)


@mutation
def what_comes_back_is_one_copy(patch: Patch) -> None:
    right = Link.swap_in
    patch.setattr(Link, "swap_in", lambda self, sizes, at: right(self, [sum(sizes)], at))


@mutation
def what_leaves_is_one_copy(patch: Patch) -> None:
    right = Link.swap_out
    patch.setattr(Link, "swap_out", lambda self, sizes, at: right(self, [sum(sizes)], at))


@mutation
def copies_to_the_host_do_not_feel_the_others(patch: Patch) -> None:
    right = Link.swap_out

    def swap_out(self: Link, sizes: Sequence[int], at: int) -> int:
        with Patch.context() as inner:
            inner.setattr(type(self.cost), "both_ways", property(lambda _: (Fraction(1), Fraction(1))))
            return right(self, sizes, at)

    patch.setattr(Link, "swap_out", swap_out)


@mutation
def copies_to_the_device_do_not_feel_the_others(patch: Patch) -> None:
    right = Link.swap_out

    def swap_out(self: Link, sizes: Sequence[int], at: int) -> int:
        end = right(self, sizes, at)
        self.slow_until = 0
        return end

    patch.setattr(Link, "swap_out", swap_out)


@mutation
def copies_to_the_device_are_slow_until_the_last_chunk_starts(patch: Patch) -> None:
    right = Link.swap_out

    def swap_out(self: Link, sizes: Sequence[int], at: int) -> int:
        end = right(self, sizes, at)
        self.slow_until -= self.cost.to_host(min(self.chunk_bytes, sizes[-1]))
        return end

    patch.setattr(Link, "swap_out", swap_out)


@mutation
def copies_do_not_wait_for_the_host(patch: Patch) -> None:
    right = Server.start_of

    def start_of(self: Server, formed: int, moves: Moves) -> int:
        self.setup.engine.host = min(self.setup.engine.host, formed)
        return right(self, formed, moves)

    patch.setattr(Server, "start_of", start_of)


# ---- what is foreseen


@mutation
def the_forecast_has_those_who_wait_for_room(patch: Patch) -> None:
    patch.setattr(PagedScheduler, "going_on", Scheduler.going_on)
