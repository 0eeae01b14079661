"""The link with real copies: the simulator's lines and rules, and a copier that says when a chunk is over."""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Sequence

from moesim.live.copies import Copier, Copy, HostPool, piece
from moesim.live.engine.cache import LiveCache
from moesim.live.engine.shared import Shared
from moesim.sim.link import NEVER, CopyCost, Link, Transfer


class LiveLink(Link):
    """At most `in_flight` chunks are handed to the copier and not over; at the end of each the next is chosen.

    What the simulator knows in advance, the end of a chunk, is here NEVER plus the chunk's number until it has come. So
    `ends` and `landing` keep their order, and the inherited rules hold as they stand. Whoever calls a method holds the
    lock; the times given are those of the host's last look, and the clock's take their place.
    """

    def __init__(
        self,
        shared: Shared,
        copier: Copier,
        pool: HostPool,
        cost: CopyCost,
        chunk_bytes: int,
        in_flight: int,
        room: LiveCache,
    ) -> None:
        super().__init__(cost, chunk_bytes, in_flight, room)
        self.shared, self.copier, self.pool, self.cache = shared, copier, pool, room
        self.sent: deque[tuple[Transfer, int, Copy]] = deque()
        """chunks in flight, with their numbers"""
        self.chunks_sent = self.bytes_sent = 0
        self.landed: dict[int, int] = {}
        """when the last copy of each key ended"""

    # -- asked by the host, now ----------------------------------------------------------------------------------

    def submit(self, now: int) -> None:
        super().submit(self.shared.now())

    def plan(self, keys: Sequence[int], nbytes: Sequence[int], at: int, submit_ns: int = 0) -> int:
        now = self.shared.now()
        super().plan(keys, nbytes, now)
        self._pump(now)
        return self.shared.now()

    def cancel(self, keys: Container[int], at: int) -> None:
        super().cancel(keys, self.shared.now())

    def go_on(self) -> None:
        """Room may have been made: whatever may be submitted is."""
        self._pump(self.shared.now())

    def verify(self) -> None:
        """Bytes handed to the copier, and still to come of what has started, are those loaded (`--check`)."""
        left = 0
        for transfer in self.moving.values():
            number = len(self.chunks(transfer.nbytes)) - len(transfer.chunks)
            left += max(0, transfer.nbytes - number * self.chunk_bytes)
        count = self.cache.count
        if self.bytes_sent + left != count.demand_bytes + count.prefetch_bytes:
            raise AssertionError(f"{self.bytes_sent} bytes were sent and {left} are to come, but {count} were loaded")
        if len(self.sent) > self.in_flight:
            raise AssertionError(f"{len(self.sent)} chunks are in flight, more than {self.in_flight}")

    # -- a chunk -------------------------------------------------------------------------------------------------

    def _send_all(self, head: Transfer, now: int) -> None:
        # Nothing can overtake the head of the line, so that its chunks may as well go when each has its turn.
        self._send_chunk(head, now, self.demands)

    def _send_chunk(self, transfer: Transfer, now: int, line: deque[Transfer]) -> None:
        key, count = transfer.key, len(self.chunks(transfer.nbytes))
        number = count - len(transfer.chunks)
        source, target = self.pool.bytes_of(key), self.cache.slots.bytes_of(self.cache.slot(key))
        chunk = piece(source, target, self.chunk_bytes, number)
        transfer.chunks = transfer.chunks[1:]
        transfer.end = NEVER + self.chunks_sent
        self.ends.append(transfer.end)
        self.chunks_sent += 1
        self.bytes_sent += chunk[0].numel()
        if not transfer.chunks:
            line.remove(transfer)
            self.landing.append(transfer)
        self.sent.append((transfer, transfer.end, self.copier.submit(*chunk, self._over)))

    def _over(self, copy: Copy) -> None:
        """The copier's thread: the first chunk in flight is over."""
        with self.shared.lock:
            self.shared.settle()
            transfer, number, _ = self.sent.popleft()
            now = self.shared.now()
            self.landed[transfer.key] = self.shared.since(copy.ended)
            self.busy_ns += copy.ended - copy.begun
            self.ends[self.ends.index(number)] = now
            if transfer.end == number:
                transfer.end = now
                if self.landing and self.landing[0] is transfer:
                    self._land(now)
            self._pump(now)
        self.shared.tell()

    def _land(self, now: int) -> None:
        done = self.landing[0]
        if done.cancelled_at is not None:
            self.cache.ended(done.key)
        super()._land(now)
