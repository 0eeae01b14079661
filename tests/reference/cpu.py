"""What becomes of missing keys in the reference: the miss policy, and the CPU's line (docs/model.md, "Misses")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from moesim.policy import Handling, Missing, MissPolicy
from tests.reference.link import Link
from tests.reference.memory import Memory

Gate = tuple[list[int], list[float]]
"""a token's experts, -1 being none, and their gate weights"""
SMALLEST = 2.2250738585072014e-308


class Misses:
    """Asks the policy at a gate. `activations`: bytes of a token, one way."""

    def __init__(self, made: MissPolicy, memory: Memory, link: Link, costs: Any, activations: int) -> None:
        self.policy, self.memory, self.link, self.costs, self.activations = made, memory, link, costs, activations
        self.count = memory.count
        self.full = list(memory.sizes)
        self.free = 0
        """the instant at which the last of the CPU's line is done"""

    def missing(self, keys: Sequence[int]) -> list[int]:
        """Those of which not a byte is on its way, or only a smaller copy is there."""
        there, coming = self.memory.there, self.link.coming
        return [key for key in keys if key in self.memory.small or not (there(key) or coming(key))]

    def ask(
        self, keys: Sequence[int], experts: Sequence[int], tokens: Sequence[int], gates: Sequence[Gate]
    ) -> dict[int, Handling]:
        """What becomes of the missing ones of `keys`; smaller copies that will not do leave."""
        if not (asked := self.missing(keys)):
            return {}
        shares, before = weigh(gates)
        queue = self.link.backlog(keys)
        told = [
            self._told(key, number, shares[expert] / number, before[expert], queue)
            for key, expert, number in zip(keys, experts, tokens, strict=True)
            if key in asked
        ]
        answers = dict(zip(asked, self.policy.decide(told), strict=True))
        for m in told:
            self._settle(m, answers[m.key])
        return answers

    def _told(self, key: int, tokens: int, weight: float, before: float, queue: int) -> Missing:
        pool = self.memory.pool(key)
        free = self.memory.pools[pool][1] - sum(held.size for held in self.memory.inside(pool))
        copy = sum(self.link.copy_ns(chunk) for chunk in self.link.cut(self.full[key]))
        cpu = self.cpu_ns(tokens) if self.costs.has_cpu else None
        small = key in self.memory.small
        return Missing(key, tokens, weight, before, small, self.full[key], free, copy, queue, cpu)

    def _settle(self, m: Missing, answer: Handling) -> None:
        if answer is Handling.WAIT:
            if m.small:
                self.count["smaller copies that will not do"] += 1
                self.memory.drop(m.key)
            return
        self.count["struck off the plan"] += m.key in self.link.planned
        self.link.planned = [key for key in self.link.planned if key != m.key]
        if answer is Handling.CPU:
            self.count["cpu_keys"] += 1
            self.count["cpu_tokens"] += m.tokens
            self.count["on the CPU in spite of a smaller copy"] += m.small
            return
        self.count["degraded_tokens"] += m.tokens
        self.count["degraded_weight"] += round(m.weight * m.tokens * 10**6)
        self.count["skipped_keys"] += answer is Handling.SKIP
        if answer is Handling.SMALL:
            self.count["small_keys"] += 1
            self.count["smaller copies used again"] += m.small
            if not m.small:
                self.shrink(m.key)

    def shrink(self, key: int) -> None:
        """What comes of `key` is a smaller copy."""
        assert self.policy.small_ratio is not None
        self.memory.shrink(key, max(1, math.ceil(self.full[key] * self.policy.small_ratio)))

    def unpacking(self, group: Sequence[int]) -> int:
        """What smaller copies add to the kernel of a group, ns."""
        return round(sum(self.full[key] for key in group if key in self.memory.small) * self.policy.unpack_ns)

    def cpu_ns(self, tokens: int) -> int:
        way = self.link.copy_ns(tokens * self.activations)
        return int(way + self.costs.cpu_expert(tokens) + way)

    def hand_over(self, tokens: int, now: int) -> None:
        """A key's tokens join the CPU's line."""
        self.count["waits in the CPU's line"] += self.free > now
        self.count["cpu_busy_ns"] += self.cpu_ns(tokens)
        self.free = max(self.free, now) + self.cpu_ns(tokens)


def weigh(gates: Sequence[Gate]) -> tuple[dict[int, float], dict[int, float]]:
    """By expert: its gate weight in tokens, and the least share of a token's that goes to what comes before it."""
    weights: dict[int, float] = {}
    least: dict[int, float] = {}
    for experts, given in gates:
        there = [weight if expert >= 0 else 0.0 for expert, weight in zip(experts, given, strict=True)]
        if not sum(there) > 0:
            there = [float(expert >= 0) for expert in experts]
        shares = [share / max(sum(there), SMALLEST) for share in there]
        passed = 0.0
        for place in sorted(range(len(shares)), key=lambda place: -shares[place]):
            passed += shares[place]
            if (expert := experts[place]) >= 0:
                least[expert] = min(least.get(expert, 1.0), passed - shares[place])
        for expert, share in zip(experts, shares, strict=True):
            if expert >= 0:
                weights[expert] = weights.get(expert, 0.0) + share
    return weights, least
