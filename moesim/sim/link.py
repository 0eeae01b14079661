"""The host-to-device link: one copy engine, demand before prefetch, a bounded number of chunks in flight.

Nothing can overtake a demand at the head of its line, so its chunks are arithmetic; other copies are submitted chunk by
chunk. The link has no clock of its own: `advance` brings it up to an instant that the engine has reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from fractions import Fraction
from itertools import islice, takewhile
from math import ceil
from typing import Protocol

NEVER = 1 << 62


class CopyCost(Protocol):
    @property
    def both_ways(self) -> tuple[Fraction, Fraction]:
        """How many times as long a copy to the device, and one to the host, takes while the other direction is busy."""

    def copy(self, nbytes: int) -> int:
        """Nanoseconds of one copy, its fixed cost included."""

    def to_host(self, nbytes: int) -> int:
        """The same in the other direction."""


class Room(Protocol):
    """Who has to find room for what is copied, and is told how it went (`moesim.sim.cache.ExpertCache`)."""

    @property
    def awaited(self) -> int: ...
    @property
    def dying(self) -> dict[int, list[int]]: ...
    def make_room(self, key: int, demanded: bool) -> bool: ...
    def start_first(self, keys: Iterable[int]) -> tuple[int, int | None]: ...
    def landed(self, key: int, demanded: bool) -> None: ...
    def place(self, key: int) -> int: ...
    def cancelled(self, key: int, sent_bytes: int, over: bool) -> int: ...
    def drained(self, place: int, size: int) -> None: ...


class Transfer:
    """One key on its way: `chunks` are the costs in ns of those not yet submitted. KV memory has keys below 0."""

    __slots__ = ("at", "cancelled_at", "chunks", "demanded", "end", "key", "nbytes", "started")

    def __init__(self, key: int, nbytes: int, at: int, chunks: Sequence[int], demanded: bool) -> None:
        self.key = key
        self.nbytes = nbytes
        self.at = at
        self.chunks = chunks
        self.demanded = demanded
        self.started = False
        self.end = NEVER
        """of the last chunk that was submitted"""
        self.cancelled_at: int | None = None
        """the place of the room that it holds until then"""


class Link:
    """A copy engine and its two lines. `idle_since` is when it fell idle, None while it is not or once that is used."""

    def __init__(self, cost: CopyCost, chunk_bytes: int, in_flight: int, room: Room) -> None:
        self.cost = cost
        self.chunk_bytes = chunk_bytes
        self.in_flight = in_flight
        self.room = room
        self.demands: deque[Transfer] = deque()
        self.prefetches: deque[Transfer] = deque()
        """under way, with chunks left; `planned` are the keys of those that have not started, most urgent first"""
        self.planned: dict[int, int] = {}
        """when each of them was submitted, which is never before those ahead of it"""
        self.sizes: Sequence[int] = ()
        self.landing: deque[Transfer] = deque()
        """all chunks submitted, by end"""
        self.moving: dict[int, Transfer] = {}
        """transfers with a chunk submitted, by key"""
        self.ends: deque[int] = deque([0] * in_flight, maxlen=in_flight)
        """ends of the last `in_flight` chunks: the oldest must be over before another is submitted"""
        self.blocked_until = 0
        """the head demand found no victim; NEVER until something that was pinned is released"""
        self.idle_since: int | None = None
        self.now = 0
        """nothing is submitted before this"""
        self.busy_ns = 0
        self.dropped = self.cancelled = 0
        self.slow_until = 0
        """until when the other direction is busy"""
        self._costs: dict[int, list[int]] = {}

    @property
    def active(self) -> bool:
        """Something is under way, waiting or planned."""
        return bool(self.landing or self.demands or self.prefetches or self.planned)

    def chunks(self, nbytes: int) -> list[int]:
        """Cost in ns of each chunk of a key of `nbytes`."""
        if nbytes not in self._costs:
            self._costs[nbytes] = self._cut(nbytes, self.cost.copy)
        return self._costs[nbytes]

    def _cut(self, nbytes: int, cost: Callable[[int], int]) -> list[int]:
        whole, rest = divmod(nbytes, self.chunk_bytes)
        return [cost(self.chunk_bytes)] * whole + [cost(rest)] * (rest > 0)

    # -- asked of it, at an instant to which it has advanced ---------------------------------------------------------

    def demand(self, key: int, nbytes: int, at: int) -> None:
        """Queue a demand; a prefetch of the key is promoted."""
        self.idle_since = None
        moving = self.moving.get(key)
        if moving is not None:
            if not moving.demanded:
                moving.demanded = True
                if moving.chunks:
                    self.prefetches.remove(moving)
                    self.demands.append(moving)
        else:
            self.planned.pop(key, None)
            self.demands.append(Transfer(key, nbytes, at, self.chunks(nbytes), True))
        self.submit(at)

    def swap_in(self, sizes: Sequence[int], at: int) -> int:
        """Demand KV memory of these sizes, which needs no room, and go to when the last of it has landed."""
        for number, nbytes in enumerate(sizes):
            self.demand(-1 - number, nbytes, at)
        while any(transfer.key < 0 for transfer in (*self.landing, *self.demands)):
            self.step()
        return self.now

    def swap_out(self, sizes: Sequence[int], at: int) -> int:
        """Copy KV memory of these sizes to the host, one after another; when that is over.

        As long as it lasts, what is submitted the other way takes longer.
        """
        factor = self.cost.both_ways[1] if self.active else Fraction(1)
        costs = (cost for nbytes in sizes for cost in self._cut(nbytes, self.cost.to_host))
        self.slow_until = at + sum(ceil(cost * factor) for cost in costs)
        return self.slow_until

    def plan(self, keys: Sequence[int], nbytes: Sequence[int], at: int, submit_ns: int = 0) -> int:
        """Replace the prefetches that have not started by `keys`, most urgent first, from `at` on.

        Keys that were not planned already are submitted one after another, in `submit_ns` each, and may start from then
        on. `nbytes` is indexed by key. Returns when the last of them is submitted.
        """
        self.idle_since, self.now = None, at
        before, self.planned, self.sizes = self.planned, {}, nbytes
        for key in keys:
            if key not in before:
                at += submit_ns
            self.planned[key] = at
        return at

    def strike(self, key: int) -> None:
        """A planned prefetch of `key`, if there is one, will not do."""
        self.planned.pop(key, None)

    def backlog(self, keys: Container[int], now: int) -> int:
        """Nanoseconds of what comes before a new demand: chunks in flight, and what is left of `keys` under way."""
        left = sum(sum(t.chunks) for t in self.prefetches if t.key in keys)
        return max(0, self.ends[-1] - now) + left

    def under_way(self) -> list[int]:
        """Keys of prefetches that have started and have chunks left: those that can be cancelled."""
        return [t.key for t in self.prefetches]

    def cancel(self, keys: Container[int], at: int) -> None:
        """Give up those of `under_way` that are in `keys`."""
        given_up = [t for t in self.prefetches if t.key in keys]
        for transfer in given_up:
            self.prefetches.remove(transfer)
            del self.moving[transfer.key]
            self.cancelled += 1
            sent = (len(self.chunks(transfer.nbytes)) - len(transfer.chunks)) * self.chunk_bytes
            over = transfer.end <= at
            place = self.room.cancelled(transfer.key, sent, over)
            if not over:
                transfer.cancelled_at = place
                later = [t for t in self.landing if t.end > transfer.end]
                sooner = [t for t in self.landing if t.end < transfer.end]
                self.landing = deque([*sooner, transfer, *later])
            self.release(at)

    def release(self, now: int) -> None:
        """Something was unpinned at `now`: a demand that found no victim may try again."""
        if self.blocked_until == NEVER:
            self.blocked_until = now

    def stuck(self) -> bool:
        """The first demand waits for room, and nothing is on its way that could make some."""
        if not self.demands or self.demands[0].started or self.blocked_until != NEVER:
            return False
        place = self.room.awaited
        return not self.room.dying.get(place) and all(self.room.place(key) != place for key in self.moving)

    # -- the passing of time -----------------------------------------------------------------------------------------

    def next_event(self) -> int:
        """When the next copy ends or the next chunk is submitted; NEVER if nothing will happen by itself."""
        return min(self.landing[0].end if self.landing else NEVER, self._opening())

    def advance(self, until: int, *, landings: bool = True, idle: bool = False) -> None:
        """Everything before `until` and, with `landings`, copies that end at `until`.

        What may be submitted at `until` itself still waits: the host comes first. With `idle` it stops where it falls
        idle.
        """
        latest = until if landings else until - 1
        while self.active:
            end = self.landing[0].end if self.landing else NEVER
            opening = self._opening()
            if end <= opening:
                if end > latest:
                    break
                self._land(end)
                if idle and self.idle_since is not None:
                    return
            elif opening < until:
                self._pump(opening)
            else:
                break
        self.now = max(self.now, until)

    def step(self) -> None:
        """Only the next event."""
        end = self.landing[0].end if self.landing else NEVER
        opening = self._opening()
        if end <= opening:
            self._land(end)
        else:
            self._pump(opening)

    def submit(self, now: int) -> None:
        """Submit the demands that may be submitted at `now`; prefetches come last in an instant."""
        self.now = now
        while self.demands and self.ends[0] <= now:
            if not self._submit_demand(now):
                return

    def _opening(self) -> int:
        first = NEVER
        if self.demands:
            head = self.demands[0]
            if head.started:
                first = head.at
            elif self.blocked_until != NEVER:
                first = max(head.at, self.blocked_until)
            elif any(t.started for t in self.demands):
                first = 0
        # A demand that waits keeps new prefetches from starting; those under way go on.
        if self.prefetches:
            first = 0
        elif self.planned and not self.demands:
            first = next(iter(self.planned.values()))
        return first if first == NEVER else max(first, self.ends[0], self.now)

    def _pump(self, now: int) -> None:
        self.now = now
        while self.ends[0] <= now:
            if self.demands and self._submit_demand(now):
                continue
            if not self.prefetches and (self.demands or not self._start_planned()):
                return
            self._send_chunk(self.prefetches[0], now, self.prefetches)

    def _submit_demand(self, now: int) -> bool:
        """Submit the head of the line or, if it has no room, a chunk of the first behind it that is under way."""
        head = self.demands[0]
        if head.started or (self.blocked_until <= now and self._start(head)):
            self._send_all(head, now)
            return True
        if self.blocked_until <= now:
            self.blocked_until = NEVER
        behind = next((t for t in self.demands if t.started), None)
        if behind is None:
            return False
        self._send_chunk(behind, now, self.demands)
        return True

    def _start_planned(self) -> bool:
        """Start the first planned key that is submitted and finds room; those before it are dropped."""
        now = self.now
        passed, key = self.room.start_first(takewhile(lambda key: self.planned[key] <= now, self.planned))
        self.dropped += passed
        self.planned = dict(islice(self.planned.items(), passed + (key is not None), None))
        if key is None:
            return False
        nbytes = self.sizes[key]
        transfer = Transfer(key, nbytes, self.now, self.chunks(nbytes), False)
        transfer.started = True
        self.moving[key] = transfer
        self.prefetches.append(transfer)
        return True

    def _start(self, transfer: Transfer) -> bool:
        if transfer.key >= 0 and not self.room.make_room(transfer.key, True):
            return False
        transfer.started = True
        self.moving[transfer.key] = transfer
        return True

    def _send_all(self, head: Transfer, now: int) -> None:
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

    def _send_chunk(self, transfer: Transfer, now: int, line: deque[Transfer]) -> None:
        cost, *transfer.chunks = transfer.chunks
        if now < self.slow_until:
            cost = ceil(cost * self.cost.both_ways[0])
        self.busy_ns += cost
        self.ends.append(max(self.ends[-1], now) + cost)
        transfer.end = self.ends[-1]
        if not transfer.chunks:
            line.remove(transfer)
            self.landing.append(transfer)

    def _land(self, now: int) -> None:
        self.now = now
        done = self.landing.popleft()
        if done.cancelled_at is not None:
            self.room.drained(done.cancelled_at, done.nbytes)
        else:
            del self.moving[done.key]
            if done.key >= 0:
                self.room.landed(done.key, done.demanded)
        self.release(now)
        if not self.active:
            self.idle_since = now
