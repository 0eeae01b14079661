"""The compute stream: kernels one after another beside the host, each with its time (docs/live.md).

On a GPU it is a stream of the device, and a thread waits for its events. On a CPU a thread runs the kernels, so that
the host can decide, run ahead and wait as it does beside a GPU.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from queue import SimpleQueue
from typing import NamedTuple

import torch

from moesim.live.copies import clock
from moesim.live.engine.shared import Shared

Piece = tuple[int, Callable[[], object]]
"""part of the step that its time goes to (`moesim.sim.engine.PARTS`), and what runs"""


MARKS = 20
"""tries of which the best says how the clocks of host and device are related"""


class Ran(NamedTuple):
    """A piece that has run; times in ns of the run."""

    part: int
    begun: int
    ended: int


class Stream:
    """Launches are run in order. `ended` are the groups of keys whose kernels are over and not yet settled."""

    def __init__(self, shared: Shared) -> None:
        self.shared = shared
        self.launched = self.finished = 0
        self.ended: deque[frozenset[int]] = deque()
        self.failure: BaseException | None = None
        shared.checks.append(self.check)
        self._thread = threading.Thread(target=self._work, name="stream", daemon=True)

    @property
    def idle(self) -> bool:
        return self.launched == self.finished

    def launch(self, pieces: Sequence[Piece], group: frozenset[int] | None = None) -> None:
        """Run `pieces` once all that was launched before is over; then the pins of `group` may go."""
        raise NotImplementedError

    def context(self) -> AbstractContextManager[object]:
        """In it the host prepares tensors for what it launches, so that they are there in time."""
        return nullcontext()

    def ran(self) -> list[Ran]:
        """What has run since it was asked last; only while nothing is running."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises what a kernel raised."""
        if self.failure is not None:
            raise RuntimeError("a kernel has failed") from self.failure

    def close(self) -> None:
        """End when all that was launched is over."""
        raise NotImplementedError

    def _work(self) -> None:
        raise NotImplementedError

    def _over(self, group: frozenset[int] | None) -> None:
        if group is not None:
            self.ended.append(group)
        self.finished += 1
        if group is not None or self.idle:
            self.shared.tell()


class ThreadStream(Stream):
    """A CPU's: a thread that runs what is launched."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._waiting: SimpleQueue[tuple[Sequence[Piece], frozenset[int] | None] | None] = SimpleQueue()
        self._ran: list[Ran] = []
        self._thread.start()

    def launch(self, pieces: Sequence[Piece], group: frozenset[int] | None = None) -> None:
        self.launched += 1
        self._waiting.put((pieces, group))

    def ran(self) -> list[Ran]:
        found, self._ran = self._ran, []
        return found

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    @torch.inference_mode()
    def _work(self) -> None:
        now = self.shared.now
        while (item := self._waiting.get()) is not None:
            pieces, group = item
            try:
                begun = now()
                for part, run in pieces:
                    run()
                    ended = now()
                    self._ran.append(Ran(part, begun, ended))
                    begun = ended
            except BaseException as error:
                self.failure = error
                self.shared.tell()
                return
            self._over(group)


class CudaStream(Stream):
    """A GPU's: the host launches, a thread waits for the event behind each launch."""

    def __init__(self, shared: Shared, device: torch.device) -> None:
        super().__init__(shared)
        self._stream = torch.cuda.Stream(device)
        self._waiting: SimpleQueue[tuple[torch.cuda.Event, frozenset[int] | None] | None] = SimpleQueue()
        self._marks: list[tuple[int, torch.cuda.Event, torch.cuda.Event]] = []
        self._thread.start()
        self._base, self._base_at = min((self._mark() for _ in range(MARKS)), key=lambda mark: mark[2])[:2]

    def _mark(self) -> tuple[torch.cuda.Event, int, int]:
        """An event, when it was (`clock`), and how far off that may be."""
        before = clock()
        event = self._event()
        event.synchronize()
        after = clock()
        return event, (before + after) // 2, after - before

    def _event(self, *, blocking: bool = False) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=not blocking, blocking=blocking)
        event.record(self._stream)
        return event

    def launch(self, pieces: Sequence[Piece], group: frozenset[int] | None = None) -> None:
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            begun = self._event()
            for part, run in pieces:
                run()
                ended = self._event()
                self._marks.append((part, begun, ended))
                begun = ended
            self.launched += 1
            self._waiting.put((self._event(blocking=True), group))

    def context(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def ran(self) -> list[Ran]:
        marks, self._marks = self._marks, []
        if marks:
            marks[-1][2].synchronize()
        found = [Ran(part, self._at(begun), self._at(ended)) for part, begun, ended in marks]
        if marks:  # the next ones are counted from here: a time between events is a float of 24 bits
            self._base_at += self._since_base(marks[-1][2])
            self._base = marks[-1][2]
        return found

    def _at(self, event: torch.cuda.Event) -> int:
        return self.shared.since(self._base_at + self._since_base(event))

    def _since_base(self, event: torch.cuda.Event) -> int:
        return round(self._base.elapsed_time(event) * 1e6)

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            event, group = item
            try:
                event.synchronize()
            except BaseException as error:
                self.failure = error
                self.shared.tell()
                return
            self._over(group)


def stream_on(device: torch.device, shared: Shared) -> Stream:
    """The compute stream of a device."""
    return CudaStream(shared, device) if device.type == "cuda" else ThreadStream(shared)
