"""What becomes of missing keys: waited for, computed by the CPU, served by a smaller copy, or skipped (docs/model.md).

A miss policy says which. Here its answers are put into effect: the CPU's line, the sizes of copies, the accounts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moesim.hardware.keys import Keys
from moesim.policy import Handling, Missing, MissPolicy
from moesim.sim.cache import ABSENT, RESIDENT, ExpertCache
from moesim.sim.gate_weights import weigh
from moesim.sim.link import Link
from moesim.sim.rows import StepRows
from moesim.sim.work import LayerWork

MILLIONTHS = 10**6


class CpuCost(Protocol):
    """What a cost table says of the host and the CPU, in ns (see `moesim.hardware.costs.CostTable`)."""

    @property
    def decision(self) -> int: ...
    @property
    def has_cpu(self) -> bool: ...

    def cpu_expert(self, tokens: int) -> int: ...


@dataclass(slots=True)
class MissCounts:
    cpu_keys: int = 0
    cpu_tokens: int = 0
    cpu_busy_ns: int = 0
    small_keys: int = 0
    """served by a smaller copy"""
    skipped_keys: int = 0
    degraded_tokens: int = 0
    """served by a smaller copy or skipped, counted by key like the tokens of an access class"""
    degraded_weight: int = 0
    """gate weight that these got from it, in millionths of a token's"""

    def row(self) -> list[int]:
        return [getattr(self, name) for name in COUNTS]


COUNTS = tuple(MissCounts.__dataclass_fields__)


class Misses:
    """Asks the policy at a gate and remembers, for the layer event, what it said.

    `asking` is the host's time for that. `activation_bytes`: of one token, one way.
    """

    def __init__(
        self,
        policy: MissPolicy,
        keys: Keys,
        cache: ExpertCache,
        link: Link,
        costs: CpuCost,
        step: StepRows,
        activation_bytes: int,
    ) -> None:
        self.policy, self.keys, self.cache, self.link, self.costs, self.step = policy, keys, cache, link, costs, step
        self.activation_bytes = activation_bytes
        self.asking = costs.decision + policy.cost_ns
        self.count = MissCounts()
        self.asked = False
        self.on_cpu: list[int] = []
        """tokens of each key that the CPU computes, ranked"""
        self.elsewhere: set[int] = set()
        """keys that no kernel of the event runs"""
        self.small: set[int] = set()
        """keys that smaller copies serve"""
        self.cpu_free = 0
        cache.used_elsewhere = True

    # -- at the gate -----------------------------------------------------------------------------------------------

    def settle(
        self, layer: int, keys: Sequence[int], work: LayerWork, states: tuple[int, ...], now: int
    ) -> tuple[int, ...]:
        """Ask what becomes of the keys that are missing; their states as they count from now on.

        Smaller copies that will not do leave, and what is not waited for is on no plan any more.
        """
        there = self.cache.small
        places = [i for i, (key, state) in enumerate(zip(keys, states, strict=True)) if not state or key in there]
        self.asked = bool(places)
        self.on_cpu, self.elsewhere, self.small = [], set(), set()
        if not places:
            return states
        ids, weights = self._gate(layer)
        shares, before = weigh(ids, weights, self.keys.experts)
        queue_ns = self.link.backlog(frozenset(keys), now)
        missing = []
        for i in places:
            expert = work.experts[i]
            share = float(shares[expert])
            missing.append(self._missing(keys[i], work.tokens[i], share, float(before[expert]), queue_ns))
        settled = list(states)
        for i, m, answer in zip(places, missing, self._answers(missing), strict=True):
            settled[i] = RESIDENT if m.small and answer is Handling.SMALL else ABSENT
            self._apply(m, answer)
        return tuple(settled)

    def _gate(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        """Experts and weights of the step's tokens in a layer, [tokens, k]."""
        trace, rows = self.step.trace, self.step.rows
        decision = layer if trace.experts.shape[1] > 1 else 0
        return trace.experts[rows, decision], trace.weights[rows, decision]

    def _missing(self, key: int, tokens: int, share: float, before: float, queue_ns: int) -> Missing:
        cache, nbytes = self.cache, self.keys.sizes[key]
        pool = cache.pool_of[key]
        return Missing(
            key,
            tokens,
            share / tokens,
            before,
            small=key in cache.small,
            nbytes=nbytes,
            free_bytes=cache.capacity[pool] - cache.used_bytes[pool],
            copy_ns=sum(self.link.chunks(nbytes)),
            queue_ns=queue_ns,
            cpu_ns=self.cpu_time(tokens) if self.costs.has_cpu else None,
        )

    def _answers(self, missing: Sequence[Missing]) -> Sequence[Handling]:
        policy = self.policy
        answers = policy.decide(missing)
        if len(answers) != len(missing):
            raise RuntimeError(f"miss policy {policy.name!r} gave {len(answers)} answers for {len(missing)} keys")
        if not policy.uses_cpu and Handling.CPU in answers:
            raise RuntimeError(f"miss policy {policy.name!r} answered CPU, but its uses_cpu is False")
        if policy.small_ratio is None and Handling.SMALL in answers:
            raise RuntimeError(f"miss policy {policy.name!r} answered SMALL, but it has no small_ratio")
        return answers

    def _apply(self, missing: Missing, answer: Handling) -> None:
        key, count = missing.key, self.count
        if answer is Handling.WAIT:
            if missing.small:
                self.cache.drop(key)
            return
        self.link.strike(key)
        if answer is Handling.CPU:
            self.on_cpu.append(missing.tokens)
            count.cpu_keys += 1
            count.cpu_tokens += missing.tokens
        else:
            count.degraded_tokens += missing.tokens
            count.degraded_weight += round(missing.weight * missing.tokens * MILLIONTHS)
        if answer is Handling.SMALL:
            count.small_keys += 1
            self.small.add(key)
            self.resize(key)
            return
        count.skipped_keys += answer is Handling.SKIP
        self.elsewhere.add(key)

    # -- during the event ------------------------------------------------------------------------------------------

    def resize(self, key: int) -> None:
        """`key` is about to be copied: in the size that was chosen."""
        if key in self.small and key not in self.cache.small:
            assert self.policy.small_ratio is not None
            self.cache.shrink(key, max(1, math.ceil(self.keys.sizes[key] * self.policy.small_ratio)))

    def unpacking(self, group: Iterable[int]) -> int:
        """What smaller copies add to the kernel of a group, in ns."""
        whole = sum(self.cache.small.get(key, 0) for key in group)
        return round(whole * self.policy.unpack_ns)

    def cpu_time(self, tokens: int) -> int:
        """The CPU's time for one key: activations there, compute, results back."""
        way = self.link.cost.copy(tokens * self.activation_bytes)
        return way + self.costs.cpu_expert(tokens) + way

    def hand_over(self, tokens: int, at: int) -> None:
        """A key's tokens join the CPU's line at `at`; afterwards `cpu_free` is when the last of the line is done."""
        spent = self.cpu_time(tokens)
        self.cpu_free = max(self.cpu_free, at) + spent
        self.count.cpu_busy_ns += spent
