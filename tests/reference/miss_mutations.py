"""Subtly wrong versions of the simulator's misses, one rule broken in each."""

from __future__ import annotations

from typing import Any

from moesim.policy import Handling
from moesim.sim import misses
from moesim.sim.cache import ExpertCache
from moesim.sim.engine import Engine
from moesim.sim.link import Link
from moesim.sim.misses import Misses
from tests.reference.broken_rules import Mutations, Patch

MUTATIONS = mutation = Mutations()


@mutation
def the_cpu_serves_all_keys_at_once(patch: Patch) -> None:
    right = Misses.hand_over

    def hand_over(self: Misses, tokens: int, at: int) -> None:
        free, self.cpu_free = self.cpu_free, 0
        right(self, tokens, at)
        self.cpu_free = max(self.cpu_free, free)

    patch.setattr(Misses, "hand_over", hand_over)


@mutation
def results_need_not_be_carried_back(patch: Patch) -> None:
    right = Misses.cpu_time

    def cpu_time(self: Misses, tokens: int) -> int:
        return right(self, tokens) - self.link.cost.copy(tokens * self.activation_bytes)

    patch.setattr(Misses, "cpu_time", cpu_time)


@mutation
def nobody_waits_for_the_cpu(patch: Patch) -> None:
    right = Engine._run_as_settled

    def run(self: Engine, settled: Misses, *rest: Any) -> None:
        right(self, settled, *rest)
        if settled.on_cpu:
            settled.cpu_free = 0

    patch.setattr(Engine, "_run_as_settled", run)
    patch.setattr(Misses, "hand_over", lambda self, tokens, at: None)


@mutation
def asking_takes_no_time_of_the_policys_own(patch: Patch) -> None:
    made = Misses.__init__

    def init(self: Misses, *arguments: Any) -> None:
        made(self, *arguments)
        self.asking = self.costs.decision

    patch.setattr(Misses, "__init__", init)


@mutation
def handing_over_takes_no_time(patch: Patch) -> None:
    right = Misses.hand_over

    def hand_over(self: Misses, tokens: int, at: int) -> None:
        right(self, tokens, at - self.costs.copy_submit)  # type: ignore[attr-defined]

    patch.setattr(Misses, "hand_over", hand_over)


@mutation
def smaller_copies_unpack_for_nothing(patch: Patch) -> None:
    patch.setattr(Misses, "unpacking", lambda self, group: 0)


@mutation
def a_smaller_copy_is_unpacked_by_its_own_bytes(patch: Patch) -> None:
    def unpacking(self: Misses, group: Any) -> int:
        whole = sum(self.cache.sizes[key] for key in group if key in self.cache.small)
        return round(whole * self.policy.unpack_ns)

    patch.setattr(Misses, "unpacking", unpacking)


@mutation
def a_smaller_copy_will_do_for_who_waits(patch: Patch) -> None:
    patch.setattr(ExpertCache, "drop", lambda self, key: None)


@mutation
def what_is_not_waited_for_stays_planned(patch: Patch) -> None:
    patch.setattr(Link, "strike", lambda self, key: None)


@mutation
def what_the_link_has_to_carry_first_is_not_told(patch: Patch) -> None:
    patch.setattr(Link, "backlog", lambda self, keys, now: 0)


@mutation
def what_is_left_of_keys_under_way_is_not_told(patch: Patch) -> None:
    right = Link.backlog
    patch.setattr(Link, "backlog", lambda self, keys, now: right(self, (), now))


@mutation
def gate_weights_are_all_the_same(patch: Patch) -> None:
    right = misses.weigh
    patch.setattr(misses, "weigh", lambda ids, weights, experts: right(ids, weights * 0, experts))


@mutation
def what_is_skipped_is_loaded_for_later(patch: Patch) -> None:
    right = Misses._apply

    def apply(self: Misses, missing: Any, answer: Handling) -> None:
        right(self, missing, answer)
        if answer is Handling.SKIP:
            self.elsewhere.discard(missing.key)

    patch.setattr(Misses, "_apply", apply)
