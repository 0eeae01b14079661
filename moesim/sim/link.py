"""The host-to-device link: one copy engine, demand before prefetch, a bounded number of chunks in flight.

Nothing can overtake a demand, so a demand's chunks are arithmetic; a prefetch is submitted chunk by chunk. The link
has no clock of its own: `advance` brings it up to an instant that the engine has reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

NEVER = 1 << 62


class CopyCost(Protocol):
    def copy(self, nbytes: int) -> int:
        """Nanoseconds of one copy, its fixed cost included."""


class Transfer:
    """One key on its way: `chunks` are the costs in ns of those not yet submitted."""

    __slots__ = ("at", "chunks", "demanded", "end", "key", "started")

    def __init__(self, key: int, at: int, chunks: Sequence[int], demanded: bool) -> None:
        self.key = key
        self.at = at
        self.chunks = chunks
        self.demanded = demanded
        self.started = False
        self.end = NEVER


class Link:
    """`room(key, demanded, now)` makes room or says no; `landed(key, demanded)` and `idle(now)` are told."""

    def __init__(
        self,
        cost: CopyCost,
        chunk_bytes: int,
        in_flight: int,
        room: Callable[[int, bool, int], bool],
        landed: Callable[[int, bool], None],
        idle: Callable[[int], None] | None,
    ) -> None:
        self.cost = cost
        self.chunk_bytes = chunk_bytes
        self.in_flight = in_flight
        self.room, self.landed, self.idle = room, landed, idle
        self.demands: deque[Transfer] = deque()
        self.prefetches: deque[Transfer] = deque()
        self.landing: deque[Transfer] = deque()
        self.moving: dict[int, Transfer] = {}
        """transfers with a chunk submitted, by key"""
        self.ends: deque[int] = deque([0] * in_flight, maxlen=in_flight)
        """ends of the last `in_flight` chunks: the oldest must be over before another is submitted"""
        self.blocked_until = 0
        """the head demand found no victim; NEVER until something that was pinned is released"""
        self.busy_ns = 0
        self.dropped = 0
        self._costs: dict[int, list[int]] = {}

    @property
    def active(self) -> bool:
        return bool(self.landing or self.demands or self.prefetches)

    def chunks(self, nbytes: int) -> list[int]:
        """Cost in ns of each chunk of a key of `nbytes`."""
        if nbytes not in self._costs:
            whole, rest = divmod(nbytes, self.chunk_bytes)
            sizes = [self.chunk_bytes] * whole + [rest] * (rest > 0)
            self._costs[nbytes] = [self.cost.copy(size) for size in sizes]
        return self._costs[nbytes]

    def demand(self, key: int, nbytes: int, at: int) -> None:
        """Queue a demand at `at`, to which the link has advanced; a prefetch of the key is promoted."""
        moving = self.moving.get(key)
        if moving is not None:
            if not moving.demanded:
                moving.demanded = True
                if moving.chunks:
                    self.prefetches.remove(moving)
                    self.demands.append(moving)
        else:
            self.prefetches = deque(t for t in self.prefetches if t.key != key)
            self.demands.append(Transfer(key, at, self.chunks(nbytes), True))
        self._pump(at)

    def plan(self, keys: Sequence[int], nbytes: Sequence[int], at: int) -> int:
        """Replace the prefetches that have not started by `keys`, most urgent first, from `at` on.

        `nbytes` is indexed by key. Returns how many of the keys were not planned already. Nothing is submitted yet.
        """
        queued = {t.key for t in self.prefetches if not t.started}
        started = [t for t in self.prefetches if t.started]
        self.prefetches = deque([*started, *(Transfer(k, at, self.chunks(nbytes[k]), False) for k in keys)])
        return sum(key not in queued for key in keys)

    def release(self, now: int) -> None:
        """Something was unpinned at `now`: a demand that found no victim may try again."""
        if self.blocked_until == NEVER:
            self.blocked_until = now

    def next_event(self) -> int:
        """When the next copy ends or the next chunk is submitted; NEVER if nothing will happen by itself."""
        return min(self.landing[0].end if self.landing else NEVER, self._opening())

    def advance(self, until: int, *, landings: bool = True) -> None:
        """Everything before `until` and, with `landings`, copies that end at `until`.

        What may be submitted at `until` itself still waits: demands of that instant come first.
        """
        latest = until if landings else until - 1
        while self.landing or self.demands or self.prefetches:
            end = self.landing[0].end if self.landing else NEVER
            opening = self._opening()
            if end <= opening:
                if end > latest:
                    return
                self._land(end)
            elif opening < until:
                self._pump(opening)
            else:
                return

    def step(self) -> None:
        """Only the next event."""
        end = self.landing[0].end if self.landing else NEVER
        opening = self._opening()
        if end <= opening:
            self._land(end)
        else:
            self._pump(opening)

    def pump(self, now: int) -> None:
        """Submit what may be submitted at `now`, after the demands of that instant."""
        if self.active:
            self._pump(now)

    def _opening(self) -> int:
        demand = max(self.demands[0].at, self.blocked_until) if self.demands else NEVER
        prefetch = NEVER
        if self.prefetches:
            head = self.prefetches[0]
            # A demand that waits keeps new prefetches from starting; those under way go on.
            if head.started or not self.demands:
                prefetch = head.at
        first = min(demand, prefetch)
        return first if first == NEVER else max(first, self.ends[0])

    def _pump(self, now: int) -> None:
        while self.ends[0] <= now:
            if self.demands and self.demands[0].at <= now and self.blocked_until <= now:
                if not self._submit_demand(now):
                    self.blocked_until = NEVER
                continue
            if not self.prefetches or self.prefetches[0].at > now:
                return
            head = self.prefetches[0]
            if not head.started and self.demands:
                return
            self._submit_chunk(head, now)

    def _submit_demand(self, now: int) -> bool:
        head = self.demands[0]
        if not head.started:
            if not self.room(head.key, True, now):
                return False
            head.started = True
            self.moving[head.key] = head
        self.demands.popleft()
        costs = head.chunks
        end = max(self.ends[-1], now)
        total = sum(costs)
        self.busy_ns += total
        last = costs[-self.in_flight :]
        end += total - sum(last)
        for cost in last:
            end += cost
            self.ends.append(end)
        head.chunks = ()
        head.end = end
        self.landing.append(head)
        return True

    def _submit_chunk(self, head: Transfer, now: int) -> None:
        if not head.started:
            if not self.room(head.key, False, now):
                self.prefetches.popleft()
                self.dropped += 1
                return
            head.started = True
            self.moving[head.key] = head
        cost, *rest = head.chunks
        head.chunks = rest
        self.busy_ns += cost
        self.ends.append(max(self.ends[-1], now) + cost)
        if not rest:
            head.end = self.ends[-1]
            self.prefetches.popleft()
            self.landing.append(head)

    def _land(self, now: int) -> None:
        done = self.landing.popleft()
        del self.moving[done.key]
        self.landed(done.key, done.demanded)
        self.release(now)
        if self.idle is not None and not self.active:
            self.idle(now)
