"""The host-to-device link of the reference: a process per load and per chunk (docs/model.md, "The link")."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import simpy

from tests.reference.clock import COPY_END, DEMAND, IDLE, PREFETCH, QUIET, Clock, Signal, Work
from tests.reference.memory import Memory


class Load:
    """One key on its way: chunks that are not submitted yet, and who wants it."""

    def __init__(self, clock: Clock, key: int, chunks: list[int], demanded: bool) -> None:
        self.key = key
        self.chunks = chunks
        self.demanded = demanded
        self.started = False
        self.sent = clock.event()
        """all chunks are submitted; its value is the last of them"""


class Link:
    """One copy engine. `fallen_idle` fires when it has nothing left to do, `blocked` when a demand finds no room."""

    def __init__(
        self, clock: Clock, memory: Memory, copy_ns: Callable[[int], int], chunk_bytes: int, in_flight: int
    ) -> None:
        self.clock, self.memory, self.copy_ns = clock, memory, copy_ns
        self.chunk_bytes, self.limit = chunk_bytes, in_flight
        self.engine = simpy.Resource(clock, 1)
        self.in_flight = 0
        self.demands: list[Load] = []
        self.prefetches: list[Load] = []
        self.planned: list[int] = []
        self.moving: dict[int, Load] = {}
        self.landed, self.fallen_idle, self.blocked = Signal(clock), Signal(clock), Signal(clock)
        self.last_landed = -1
        self.retry = False
        self.idle = True
        self.contested: set[str] = set()
        self.dropped = self.busy_ns = 0

    def cut(self, key: int) -> list[int]:
        size = self.memory.sizes[key]
        whole, rest = divmod(size, self.chunk_bytes)
        return [self.chunk_bytes] * whole + [rest] * (rest > 0)

    def coming(self, key: int) -> bool:
        """`key` is demanded or under way."""
        return key in self.moving or any(load.key == key for load in self.demands)

    def demand(self, key: int) -> None:
        """The host submits a demand: a new load, or the promotion of a prefetch."""
        if self.memory.there(key):
            self.memory.use(key)  # it landed while its demand was being submitted
            return
        if key in self.planned:
            self.planned.remove(key)
        load = self.moving.get(key)
        if load is None:
            load = Load(self.clock, key, self.cut(key), True)
        load.demanded = True
        if load in self.prefetches:
            self.prefetches.remove(load)
        if load.chunks:
            if not self.demands:
                self.retry = True  # a new head of the line asks for room
            self.demands.append(load)
        self.kick()

    def plan(self, keys: Sequence[int], at_once: bool) -> None:
        """Replace what was planned and has not started; start it now or, not `at_once`, at the end of the instant."""
        self.planned = list(keys)
        if at_once:
            self._submit_prefetches()
        self.kick()

    def room_may_have_come(self) -> None:
        """A kernel or a copy has ended."""
        self.retry = True
        self.kick()

    def kick(self) -> None:
        """Submit what can be submitted in this instant."""
        self.clock.soon(DEMAND, self._submit_demands)
        self.clock.soon(PREFETCH, self._submit_prefetches)

    def _submit_demands(self) -> None:
        while self.in_flight < self.limit and (load := self._next_demand()):
            self._submit(load)

    def _next_demand(self) -> Load | None:
        """The head of the line; if it waits for room, the first behind it that is under way."""
        if self.demands and not self.demands[0].started and self.retry:
            self.retry = False
            self.demands[0].started = self.memory.start_demand(self.demands[0].key)
        load = next((load for load in self.demands if load.started), None)
        if load and load is not self.demands[0]:
            self.contested.add("promoted key behind a demand without room")
        return load

    def _submit_prefetches(self) -> None:
        while self.in_flight < self.limit and (load := self._next_demand() or self._next_prefetch()):
            self._submit(load)

    def _next_prefetch(self) -> Load | None:
        if self.prefetches:
            return self.prefetches[0]
        while self.planned and not self.demands:
            key = self.planned.pop(0)
            if self.memory.there(key) or self.coming(key):
                continue
            if self.memory.start_prefetch(key):
                load = Load(self.clock, key, self.cut(key), False)
                load.started = True
                self.prefetches.append(load)
                return load
            self.dropped += 1
        return None

    def _submit(self, load: Load) -> None:
        if load.key not in self.moving:
            self.moving[load.key] = load
            self.clock.process(self._load(load))
        size = load.chunks.pop(0)
        self.idle = False
        self.in_flight += 1
        chunk = self.clock.process(self._chunk(size, self.engine.request()))
        if not load.chunks:
            self._leave_line(load)
            load.sent.succeed(chunk)

    def _leave_line(self, load: Load) -> None:
        if load in self.prefetches:
            self.prefetches.remove(load)
            return
        if self.demands[0] is load:
            self.retry = True  # a new head of the line asks for room
        self.demands.remove(load)

    def _load(self, load: Load) -> Work:
        yield (yield load.sent)
        del self.moving[load.key]
        self.memory.land(load.key, load.demanded)
        self.last_landed = load.key
        self.landed.fire()

    def _chunk(self, size: int, turn: simpy.Event) -> Work:
        yield turn
        took = self.copy_ns(size)
        yield self.clock.after(took, COPY_END)
        self.engine.release(turn)  # type: ignore[arg-type]
        self.in_flight -= 1
        self.busy_ns += took
        self.room_may_have_come()
        if not (self.in_flight or self.demands or self.prefetches or self.planned):
            self.clock.soon(IDLE, self._fall_idle)
        self.clock.soon(QUIET, self._quiet)

    @property
    def stuck(self) -> bool:
        """The first demand has no room, and nothing is under way in its pool."""
        if not self.demands:
            return False
        pool = self.memory.pool(self.demands[0].key)
        if any(self.memory.pool(key) == pool for key in self.moving):
            return False
        if self.memory.room_for_demand(self.demands[0].key) is not None:
            return False
        if self.in_flight:
            self.contested.add("wave while the link is busy with prefetches")
        return True

    def _fall_idle(self) -> None:
        if not self.idle and not (self.in_flight or self.demands or self.prefetches or self.planned):
            self.idle = True
            self.fallen_idle.fire()

    def _quiet(self) -> None:
        if self.stuck:
            self.blocked.fire()
