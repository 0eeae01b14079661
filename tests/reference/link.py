"""The host-to-device link of the reference: a process per load and per chunk (docs/model.md, "The link")."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import simpy

from tests.reference.clock import COPY_END, DEMAND, PREFETCH, Clock, Doing, Signal
from tests.reference.memory import Holding, Memory


class Load:
    """One key on its way (None: keys and values): chunks that are not submitted yet, and who wants it."""

    def __init__(self, clock: Clock, key: int | None, chunks: list[int], demanded: bool) -> None:
        self.key = key
        self.chunks = chunks
        self.demanded = demanded
        self.started = False
        self.waits_for: int | None = None
        """the place in which there was no room when this demand last asked"""
        self.submitted: list[simpy.Event] = []
        """its chunks on the way"""
        self.last_submitted = clock.event()
        """fires when all chunks are submitted"""


class Link:
    """One copy engine. `changed` fires when a copy has ended or a demand has asked for room."""

    def __init__(
        self, clock: Clock, memory: Memory, copy_ns: Callable[[int], int], chunk_bytes: int, in_flight: int
    ) -> None:
        self.clock, self.memory, self.copy_ns = clock, memory, copy_ns
        self.chunk_bytes, self.limit = chunk_bytes, in_flight
        self.engine = simpy.Resource(clock, 1)
        self.in_flight = 0
        self.demands: list[Load] = []
        """with chunks left, first come, first served"""
        self.prefetches: list[Load] = []
        """under way, with chunks left"""
        self.planned: list[int] = []
        self.submitted: set[int] = set()
        """planned keys that the host has submitted: those may start, in the order of the plan"""
        self.moving: dict[int, Load] = {}
        """under way: started, not landed, not cancelled"""
        self.changed, self.fallen_idle = Signal(clock), Signal(clock)
        self.sent_by = 0
        """when the last chunk that is submitted is over"""
        self.idle_since: int | None = None
        """the instant at which it fell idle, if it is idle since and nobody has answered since"""
        self.count = memory.count
        self.pace: Callable[[int], int] = lambda ns: ns
        """what a chunk that is submitted now takes, which would take `ns` if nothing went the other way"""

    def cut(self, size: int) -> list[int]:
        whole, rest = divmod(size, self.chunk_bytes)
        return [self.chunk_bytes] * whole + [rest] * (rest > 0)

    @property
    def busy(self) -> bool:
        """A copy is under way, waiting or planned."""
        return bool(self.in_flight or self.demands or self.prefetches or self.planned)

    def coming(self, key: int) -> bool:
        """`key` is demanded or under way."""
        return key in self.moving or any(load.key == key for load in self.demands)

    # What the host does

    def demand(self, key: int) -> None:
        """The host submits a demand of a key that is not there: a new load, or the promotion of a prefetch."""
        load = self.moving.get(key)
        if load is None:
            self.count["planned and demanded"] += key in self.planned
            self.planned = [other for other in self.planned if other != key]
            load = Load(self.clock, key, self.cut(self.memory.sizes[key]), True)
        else:
            self.count["promotions"] += bool(load.chunks)
            self.count["late without promotion"] += not load.chunks
        load.demanded = True
        if load in self.prefetches:
            self.prefetches.remove(load)
        if load.chunks:
            self.demands.append(load)
        self.kick()

    def fetch(self, size: int) -> simpy.Event:
        """A demand of so many bytes that needs no room; what fires when it is over."""
        load = Load(self.clock, None, self.cut(size), True)
        load.started = True
        self.demands.append(load)
        self.kick()
        return self.clock.process(self._over(load))

    def backlog(self, keys: Sequence[int]) -> int:
        """ns of chunks in flight, and of what is left of those of `keys` that are under way."""
        left = [chunk for load in self.prefetches if load.key in keys for chunk in load.chunks]
        return max(0, self.sent_by - self.clock.time) + sum(map(self.copy_ns, left))

    def cancellable(self) -> list[int]:
        return [load.key for load in self.prefetches if load.key is not None]

    def cancel(self, key: int) -> None:
        """Give up a prefetch that is under way: what is submitted runs to its end."""
        load = self.moving.pop(key)
        self.prefetches.remove(load)
        held = self.memory.cancel(key, sum(load.chunks))
        self.count["prefetch_cancelled"] += 1
        self.count["cancelled in flight"] += bool(load.submitted)
        if load.submitted:
            self.clock.process(self._end_of(load.submitted[-1], held))
        else:
            self.memory.release(held)
        self.room_may_have_come()

    def plan(self, keys: Sequence[int]) -> list[int]:
        """Replace what was planned and has not started; gives the keys that the host must submit now, in order."""
        self.submitted &= set(keys) & set(self.planned)
        self.planned = list(keys)
        self.idle_since = None
        self.kick()
        return [key for key in keys if key not in self.submitted]

    def submit(self, key: int) -> None:
        """The host has submitted a planned key."""
        self.submitted.add(key)
        self.kick()

    def room_may_have_come(self) -> None:
        """A kernel or a copy has ended, or a prefetch was cancelled."""
        for load in self.demands:
            load.waits_for = None
        self.kick()

    # What it does by itself

    def kick(self) -> None:
        """Submit what can be submitted in this instant."""
        self.clock.soon(DEMAND, self._submit_demands)
        self.clock.soon(PREFETCH, self._submit_all)

    def _submit_demands(self) -> None:
        while self.in_flight < self.limit and (load := self._next_demand()):
            self._submit(load)
        self.changed.fire()

    def _submit_all(self) -> None:
        while self.in_flight < self.limit and (load := self._next_demand() or self._next_prefetch()):
            self._submit(load)

    def _next_demand(self) -> Load | None:
        """The head of the line; if it waits for room, the first behind it that is under way."""
        if self.demands and not self.demands[0].started and self.demands[0].waits_for is None:
            head = self.demands[0]
            assert head.key is not None
            head.waits_for = self.memory.start_demand(head.key)
            head.started = head.waits_for is None
            self.count["demands that wait for room"] += not head.started
        found = next((load for load in self.demands if load.started), None)
        self.count["promoted chunks behind a demand that waits"] += found is not None and found is not self.demands[0]
        return found

    def _next_prefetch(self) -> Load | None:
        if self.prefetches:
            self.count["prefetched chunks behind a demand that waits"] += bool(self.demands)
            return self.prefetches[0]
        while self.planned and self.planned[0] in self.submitted and not self.demands:
            key = self.planned.pop(0)
            if self.memory.there(key) or self.coming(key):
                continue
            if self.memory.start_prefetch(key):
                load = Load(self.clock, key, self.cut(self.memory.sizes[key]), False)
                load.started = True
                self.prefetches.append(load)
                return load
            self.count["prefetch_dropped"] += 1
        return None

    def _submit(self, load: Load) -> None:
        self.idle_since = None
        if load.key is not None and load.key not in self.moving:
            self.moving[load.key] = load
            self.clock.process(self._load(load, load.key))
        size = load.chunks.pop(0)
        self.in_flight += 1
        ns = self.pace(self.copy_ns(size))
        self.sent_by = max(self.sent_by, self.clock.time) + ns
        self.count["link_busy_ns"] += ns
        load.submitted.append(self.clock.process(self._chunk(load, ns, self.engine.request())))
        if not load.chunks:
            (self.demands if load in self.demands else self.prefetches).remove(load)
            load.last_submitted.succeed()

    def _chunk(self, load: Load, ns: int, turn: simpy.Event) -> Doing:
        yield turn
        yield self.clock.after(ns, COPY_END)
        self.engine.release(turn)  # type: ignore[arg-type]
        self.in_flight -= 1
        load.submitted.pop(0)
        self.room_may_have_come()
        if not self.busy:
            self.idle_since = self.clock.time
            self.fallen_idle.fire()

    def _over(self, load: Load) -> Doing:
        yield load.last_submitted
        yield load.submitted[-1]

    def _load(self, load: Load, key: int) -> Doing:
        yield from self._over(load)
        del self.moving[key]
        self.memory.land(key, load.demanded)
        self.changed.fire()

    def _end_of(self, chunk: simpy.Event, held: Holding) -> Doing:
        """Of a cancelled copy."""
        yield chunk
        self.memory.release(held)

    @property
    def stuck(self) -> bool:
        """The first demand in line waits for room, and nothing more will come by itself."""
        if not self.demands or self.demands[0].started or self.demands[0].waits_for is None:
            return False
        place = self.demands[0].waits_for
        under_way = any(self.memory.holding(key).place == place for key in self.moving)
        return not under_way and not self.memory.leaving(place)
