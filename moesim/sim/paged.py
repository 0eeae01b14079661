"""The scheduler with KV memory: what a batch policy is shown, and who is preempted (docs/model.md, "KV memory")."""

from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import BatchPolicy, Limits, Queued
from moesim.sim.kv import Blocks, Moves
from moesim.sim.scheduler import Again, Scheduler
from moesim.sim.work import Part


class PagedScheduler(Scheduler):
    """Shows the policy requests that hold blocks, and those for which there are some. `moves` are the last step's."""

    def __init__(self, policy: BatchPolicy, limits: Limits, blocks: Blocks, routes: Again) -> None:
        super().__init__(policy, limits)
        self.blocks, self.routes = blocks, routes
        self.moves = Moves((), (), (), 0)
        self._victims: list[int] = []
        self._let_in: set[int] = set()

    def ready(self) -> bool:
        """Whether there is anybody to show; who that is, and who has to go before, is settled now."""
        queue, blocks, most = self.queue, self.blocks, self.limits.max_requests
        self._victims = blocks.victims(queue, most)
        self._let_in = set() if self._victims else set(blocks.let_in(queue, most))
        left = sum(request in queue for request in blocks.held) - len(self._victims)
        return bool(left or self._let_in)

    def shown(self) -> list[Queued]:
        blocks, queue = self.blocks, self.queue
        preempted = tuple(blocks.preempt(queue[request]) for request in self._victims)
        self.moves = Moves(preempted, (), (), blocks.used)
        self.to_front(preempted, self.routes)
        return [q for request, q in queue.items() if request in blocks.held or request in self._let_in]

    def going_on(self) -> list[Queued]:
        """Those in the queue that hold blocks, or were let in: when there is room for others is not known."""
        held, idle = self.blocks.held, self.moves.idle
        return [queued for request, queued in self.queue.items() if request in held or request in idle]

    def take(self, parts: Sequence[Part], shown: Sequence[Queued]) -> tuple[Part, ...]:
        """These parts run now: advance their requests and give them blocks, age the others that were shown."""
        blocks = self.blocks
        back = [blocks.take(self.queue[part.request]) for part in parts]
        idle = self._let_in.difference(part.request for part in parts)
        self.moves = Moves(self.moves.preempted, tuple(filter(None, back)), tuple(sorted(idle)), blocks.used)
        return super().take(parts, shown)
