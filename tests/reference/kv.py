"""KV memory of the reference: who holds blocks, who is let in, who must leave (docs/model.md, "KV memory")."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from moesim.experiment import Experiment
from moesim.hardware.budget import budget
from moesim.hardware.keys import Keys
from moesim.hardware.shape import ModelShape
from moesim.policy import Queued


@dataclass(frozen=True)
class KvMemory:
    """How much there is, and what to do when it does not suffice."""

    blocks: int
    block_tokens: int
    block_bytes: int
    preempt: str
    watermark: Fraction

    @classmethod
    def of(cls, config: Experiment, keys: Keys, shape: ModelShape) -> KvMemory | None:
        """That of an experiment and a model's shape, None where there is room for any number."""
        kv = config.memory.kv
        if kv is None:
            return None
        found = budget(config.memory, keys, shape)
        assert found.blocks is not None
        return cls(found.blocks, kv.block_tokens, found.block_bytes, kv.preempt, Fraction(str(kv.watermark)))

    def holding(self, tokens: int) -> int:
        """Blocks that hold so many tokens."""
        return -(-tokens // self.block_tokens)


@dataclass
class Moved:
    """Blocks of each request that are copied out and back in when a step is formed, and what was given up for it."""

    out: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
    preempted: list[tuple[int, int]] = field(default_factory=list)
    """request, tokens of it that must be computed again"""
    goals: dict[int, int] = field(default_factory=dict)
    """known tokens of each request that was preempted"""
    used: int = 0
    """blocks, once the step is formed"""


def reach(queued: Queued) -> int:
    """Tokens of a request, from its first, that have run once all its known ones have."""
    return queued.position + (queued.prompt_left or 1)


class Blocks:
    """Blocks of all requests. `again(request, tokens)` makes a prompt of the first `tokens` of a request."""

    def __init__(
        self, memory: KvMemory, most: int, again: Callable[[int, int], Queued], count: Counter[str]
    ) -> None:
        self.memory, self.most, self.again, self.count = memory, most, again, count
        self.held: dict[int, int] = {}
        self.admitted: dict[int, tuple[int, int]] = {}
        """of each request that holds blocks: its step, and its place among the step's parts"""
        self.away: dict[int, int] = {}
        """blocks on the host"""
        self.left: set[int] = set()
        """requests that have been preempted"""
        self.moved = Moved()

    @property
    def free(self) -> int:
        return self.memory.blocks - sum(self.held.values())

    def shown(self, queue: list[Queued]) -> list[Queued]:
        """Who may be chosen; those preempted for it go to the front of `queue`."""
        lacking = self._reserve(queue) > self.free
        if not lacking:
            return self._let_in(queue)
        if sum(queued.request in self.held for queued in queue) == 1:
            self.count["nobody to preempt"] += 1
            return []
        self._preempt(queue)
        return [queued for queued in queue if queued.request in self.held]

    def _reserve(self, queue: Sequence[Queued]) -> int:
        """Requests that need a block which they lack."""
        lacking = sum(
            self.memory.holding(reach(q)) > self.held[q.request] for q in queue if q.request in self.held
        )
        self.count["spared as a step takes no more"] += lacking > self.free >= self.most
        return min(lacking, self.most)

    def _preempt(self, queue: list[Queued]) -> None:
        """Take the blocks of those admitted last until what is free suffices."""
        while self._reserve(queue) > self.free:
            inside = [queued for queued in queue if queued.request in self.held]
            assert len(inside) > 1
            last = max(inside, key=lambda queued: self.admitted[queued.request])
            queue.remove(last)
            queue.insert(0, self._take_from(last))
        self.count["several preempted at once"] += len(self.moved.preempted) > 1

    def _take_from(self, queued: Queued) -> Queued:
        """What goes to the front of the queue."""
        request = queued.request
        again, midway, swap = request in self.left, queued.prompt_left > 0, self.memory.preempt == "swap"
        self.count["swapped out in a prompt"] += midway and swap
        self.count["swapped out again"] += again and swap
        self.count["preempted in a prompt"] += midway and not swap
        self.count["preempted again"] += again and not swap
        self.count["preempted while it is computed anew"] += again and midway and not swap
        self.left.add(request)
        del self.admitted[request], self.held[request]
        self.moved.goals[request] = reach(queued)
        if swap:
            queued.skipped = 0
            self.away[request] = self.memory.holding(queued.position)
            self.moved.out.append(self.away[request])
            self.moved.preempted.append((request, 0))
            return queued
        self.moved.preempted.append((request, queued.position))
        return self.again(request, reach(queued))

    def _let_in(self, queue: Sequence[Queued]) -> list[Queued]:
        """The admitted, and those that wait and fit."""
        watermark = math.ceil(self.memory.watermark * self.memory.blocks)
        least = watermark if self.held else 0
        left = self.free - self._reserve(queue)
        shown, full = [], False
        for queued in queue:
            if queued.request not in self.held:
                needed = self.memory.holding(reach(queued))
                fits = left - needed >= least
                self.count["one behind that does not fit would"] += full and fits
                self.count["watermark decides"] += not full and not fits and left >= needed
                self.count["reserve decides"] += not full and not fits and self.free - needed >= least
                self.count["let in below the watermark"] += not full and fits and left - needed < watermark
                full = full or not fits
                if full:
                    continue
                left -= needed
            shown.append(queued)
        return shown

    def take(self, step: int, place: int, queued: Queued) -> None:
        """`queued` is part number `place` of step `step`."""
        request = queued.request
        if request not in self.held:
            self.admitted[request] = step, place
            if request in self.away:
                self.moved.back.append(self.away.pop(request))
        self.held[request] = max(self.held.get(request, 0), self.memory.holding(reach(queued)))
        assert self.free >= 0

    def leave(self, request: int) -> None:
        """Its last token is there."""
        del self.held[request], self.admitted[request]

    def formed(self) -> Moved:
        """What has moved since this was asked last."""
        moved, self.moved = self.moved, Moved()
        moved.used = self.memory.blocks - self.free
        return moved
