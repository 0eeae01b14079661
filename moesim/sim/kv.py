"""KV memory in blocks: who holds how many, who has to give them up, who is let in (docs/model.md, "KV memory")."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from moesim.experiment import KVMemory
from moesim.policy import Queued

COUNTED = (
    "kv_blocks_used",
    "kv_stall_ns",
    "preemptions_recompute",
    "preemptions_swap",
    "recomputed_tokens",
    "swap_out_bytes",
    "swap_in_bytes",
)
"""of each step: blocks that are held once it is formed, and what forming it did"""


class Preempted(NamedTuple):
    """A request that gave up its blocks after `position` tokens; `prompt` of them and of the next are one prompt now.

    With swapping `nbytes` go to the host, and the request's prompt stays what it was.
    """

    request: int
    position: int
    prompt: int
    nbytes: int


class Moves(NamedTuple):
    """What forming a step did to KV memory."""

    preempted: tuple[Preempted, ...]
    """in this order, the one that was admitted last first"""
    swapped_in: tuple[int, ...]
    """bytes of each request of the step that comes back from the host, in the order of the step"""
    idle: tuple[int, ...]
    """requests that were let in and not chosen"""
    used: int
    """blocks that are held once the step is formed"""

    def row(self, stall: int) -> tuple[int, ...]:
        """COUNTED of this step, which started `stall` ns after it was formed."""
        swaps = len(self.swapped_out)
        recomputed = sum(p.position for p in self.preempted if not p.nbytes)
        out, back = sum(self.swapped_out), sum(self.swapped_in)
        return self.used, stall, len(self.preempted) - swaps, swaps, recomputed, out, back

    @property
    def swapped_out(self) -> tuple[int, ...]:
        """Bytes of each request that goes to the host, in the order of preemption."""
        return tuple(p.nbytes for p in self.preempted if p.nbytes)


class Blocks:
    """The blocks of a KV memory. `held` has the requests in the order in which they were admitted."""

    def __init__(self, memory: KVMemory, block_bytes: int) -> None:
        assert memory.blocks is not None, "its size is settled before (moesim.hardware.budget)"
        self.total, self.tokens, self.bytes = memory.blocks, memory.block_tokens, block_bytes
        self.spare = ceil(Fraction(str(memory.watermark)) * memory.blocks)
        """blocks that have to stay free when somebody is let in"""
        self.swaps = memory.preempt == "swap"
        self.held: dict[int, int] = {}
        self.away: dict[int, int] = {}
        """bytes of requests on the host"""
        self.free = self.total

    @property
    def used(self) -> int:
        return self.total - self.free

    def needs(self, queued: Queued) -> int:
        """Blocks that its next tokens need in all."""
        return -(-(queued.position + queued.known) // self.tokens)

    def victims(self, queue: Mapping[int, Queued], most: int) -> list[int]:
        """Requests of the queue that have to go, in this order, so that `most` of the others can go on.

        If that leaves nobody, all of them are among those.
        """
        admitted = [request for request in self.held if request in queue]
        lacking = {request for request in admitted if self.needs(queue[request]) > self.held[request]}
        found, free = [], self.free
        while free < min(len(lacking), most):
            found.append(admitted.pop())
            lacking.discard(found[-1])
            free += self.held[found[-1]]
        return found

    def let_in(self, queue: Mapping[int, Queued], most: int) -> list[int]:
        """Waiting requests of the queue that may start, `most` of the others being sure of the blocks they lack."""
        admitted = [request for request in self.held if request in queue]
        reserve = sum(self.needs(queue[request]) > self.held[request] for request in admitted)
        left = self.free - min(reserve, most) - (self.spare if self.held else 0)
        found = []
        for request, queued in queue.items():
            if request not in self.held:
                left -= self.needs(queued)
                if left < 0:
                    break
                found.append(request)
        return found

    def preempt(self, queued: Queued) -> Preempted:
        """Take its blocks from a request."""
        self.release(queued.request)
        nbytes = 0
        if self.swaps:
            nbytes = self.away[queued.request] = -(-queued.position // self.tokens) * self.bytes
        return Preempted(queued.request, queued.position, queued.position + queued.known, nbytes)

    def take(self, queued: Queued) -> int:
        """Give a request the blocks that its next tokens need; bytes of it that come back from the host."""
        request, needs = queued.request, self.needs(queued)
        self.free -= needs - self.held.get(request, 0)
        self.held[request] = needs
        return self.away.pop(request, 0)

    def release(self, request: int) -> None:
        """Free its blocks."""
        self.free += self.held.pop(request)

    def verify(self, processed: Mapping[int, int]) -> None:
        """Conservation at this instant (`--check`); raises AssertionError with the numbers.

        `processed` are the tokens that each request which should hold blocks has, or is to have, there.
        """
        should = {request: -(-tokens // self.tokens) for request, tokens in processed.items()}
        if should != self.held or sum(should.values()) + self.free != self.total or self.free < 0:
            raise AssertionError(f"requests hold {self.held} of {self.total} KV blocks, {self.free} free: {should}")
        if self.held.keys() & self.away.keys():
            raise AssertionError(f"requests {self.held.keys() & self.away.keys()} are here and on the host")
