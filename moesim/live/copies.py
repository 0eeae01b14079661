"""Real copies between host and device, one after another beside the compute, as a link makes them (docs/live.md).

The same for whoever measures a link (`moesim profile`) and for whoever serves over it (`moesim live`). On a GPU a copy
is submitted to a stream of its own and a thread waits for its event; on a CPU "the device" is other memory, and that
thread does the copying. What follows from the end of a copy, such as the next one, is done by the thread as well.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from types import TracebackType

import torch
from torch import Tensor

SECOND = 10**9
WAIT_S = 1.0
"""how often somebody who waits looks whether the copier still works"""

clock = time.perf_counter_ns
"""the clock of everything live, in ns"""


@dataclass(frozen=True, slots=True)
class Throttle:
    """A slower link than the real one: no copy is over before its stated time, and they still come one by one."""

    bytes_per_second: int
    fixed_ns: int = 0

    def of(self, nbytes: int) -> int:
        """Nanoseconds of a copy, as `moesim.hardware.link.Times` has them."""
        return self.fixed_ns - (-nbytes * SECOND // self.bytes_per_second)


class Copy:
    """One copy; times in ns of `clock`, 0 until they come. On a GPU `begun` is when the one before it had ended."""

    __slots__ = ("begun", "done", "ended", "event", "nbytes", "over", "source", "submitted", "target")

    def __init__(self, source: Tensor, target: Tensor, done: Callable[[Copy], None] | None) -> None:
        self.source, self.target, self.done = source, target, done
        self.nbytes = source.numel() * source.element_size()
        self.submitted = self.begun = self.ended = 0
        self.event: torch.cuda.Event | None = None
        self.over = threading.Event() if done is None else None
        """somebody may wait for it if nobody is told"""


class Copier:
    """Makes copies in the order in which they are submitted, in either direction; a context manager.

    How many may be submitted and not over is for the caller to say (`moesim.live.engine.link`). With a `throttle` each
    takes at least as long as that says, from its submission or the end of the one before it. An error in a copy, or in
    what is done at its end, ends the copier: `check` raises it.
    """

    def __init__(self, device: torch.device, throttle: Throttle | None = None) -> None:
        self.device, self.throttle = device, throttle
        self.failure: BaseException | None = None
        self.free_at = 0
        """end of the last copy"""
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._waiting: SimpleQueue[Copy | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="copies", daemon=True)
        self._thread.start()

    def submit(self, source: Tensor, target: Tensor, done: Callable[[Copy], None] | None = None) -> Copy:
        """Copy `source` to `target`, of equal bytes. `done` is called by the copier's thread when it is over."""
        copy = Copy(source, target, done)
        copy.submitted = clock()
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                target.copy_(source, non_blocking=True)
                copy.event = torch.cuda.Event(blocking=True)
                copy.event.record(self._stream)
        self._waiting.put(copy)
        return copy

    def wait(self, copy: Copy) -> int:
        """Wait for a copy of which nobody is told; its end in ns."""
        assert copy.over is not None, "only copies without `done` can be waited for"
        while not copy.over.wait(WAIT_S):
            self.check()
        self.check()
        return copy.ended

    def check(self) -> None:
        """Raises what ended the copier, if anything has."""
        if self.failure is not None:
            raise RuntimeError("the copies have stopped") from self.failure

    def close(self) -> None:
        """End when the copies that were submitted are over."""
        self._waiting.put(None)
        self._thread.join()

    def __enter__(self) -> Copier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _work(self) -> None:
        while (copy := self._waiting.get()) is not None:
            try:
                self._perform(copy)
                if copy.done is not None:
                    copy.done(copy)
            except BaseException as error:
                self.failure = error
                return
            finally:
                if copy.over is not None:
                    copy.over.set()

    def _perform(self, copy: Copy) -> None:
        copy.begun = max(copy.submitted, self.free_at) if self._stream or self.throttle else clock()
        if copy.event is not None:
            copy.event.synchronize()
        else:
            copy.target.copy_(copy.source)
        if self.throttle is not None:
            # From the stated end of the one before, so that what a sleep is too long does not add up.
            due = copy.begun + self.throttle.of(copy.nbytes)
            late = clock() - due
            if late < 0:
                time.sleep(-late / SECOND)
            copy.ended = due + max(0, late)
        else:
            copy.ended = clock()
        self.free_at = copy.ended


class HostPool:
    """Weights of all keys in host memory, `rows` [keys, weights]; pinned where the device is a GPU.

    `bytes_of(key)` is one key as bytes, to be cut into chunks.
    """

    def __init__(self, rows: Tensor, device: torch.device) -> None:
        self.rows = rows.pin_memory() if device.type == "cuda" and not rows.is_pinned() else rows
        self._bytes = self.rows.view(torch.uint8)

    def bytes_of(self, key: int) -> Tensor:
        """uint8 [bytes of a key]; no copy."""
        return self._bytes[key]


class Slots:
    """Device memory for so many keys, `rows` [slots, weights], in ranges: one a pool, and one for staging.

    A slot that is taken holds one key until it is given back; asking for more than there are raises RuntimeError.
    """

    def __init__(self, counts: list[int], like: Tensor, device: torch.device) -> None:
        """`counts`: slots of each range; `like`: the host's rows, of which slots have the width and the numbers."""
        total = sum(counts)
        self.rows = torch.zeros(total, like.shape[1], dtype=like.dtype, device=device)
        self._bytes = self.rows.view(torch.uint8)
        starts = [sum(counts[:at]) for at in range(len(counts))]
        self.ranges = [range(start, start + count) for start, count in zip(starts, counts, strict=True)]
        self._free = [list(reversed(of_range)) for of_range in self.ranges]

    def take(self, place: int) -> int:
        """A free slot of a range."""
        if not self._free[place]:
            raise RuntimeError(f"all {len(self.ranges[place])} slots of range {place} are taken")
        return self._free[place].pop()

    def give_back(self, place: int, slot: int) -> None:
        """What was in the slot is not needed any more."""
        if slot not in self.ranges[place] or slot in self._free[place]:
            raise RuntimeError(f"slot {slot} is not one that was taken from range {place}")
        self._free[place].append(slot)

    def taken(self, place: int) -> int:
        """How many slots of a range are taken."""
        return len(self.ranges[place]) - len(self._free[place])

    def bytes_of(self, slot: int) -> Tensor:
        """uint8 [bytes of a key]; no copy."""
        return self._bytes[slot]


def piece(source: Tensor, target: Tensor, chunk_bytes: int, number: int) -> tuple[Tensor, Tensor]:
    """Chunk `number` of a copy that is cut into chunks of so many bytes, the last one smaller: source and target."""
    first = number * chunk_bytes
    return source[first : first + chunk_bytes], target[first : first + chunk_bytes]
