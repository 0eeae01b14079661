"""What the threads of a live machine share: its clock, its lock, and how somebody waits for the others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from moesim.live.copies import WAIT_S, clock


class Shared:
    """One lock for everything that decides: whoever looks at link and cache, or changes them, holds it.

    The host holds it while it decides, and gives it up while it waits. `settle` and `checks` are called by who holds
    it: what kernels that have ended leave to do, and what raises if a thread has failed.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting = False
        """the host waits: who has news says so"""
        self.settle: Callable[[], None] = lambda: None
        self.checks: list[Callable[[], None]] = []
        self._news: SimpleQueue[None] = SimpleQueue()
        self._origin = clock()

    def start(self) -> None:
        """The run's clock starts at 0."""
        self._origin = clock()

    def now(self) -> int:
        """Nanoseconds of the run."""
        return clock() - self._origin

    def since(self, instant: int) -> int:
        """An instant of `clock` in nanoseconds of the run."""
        return instant - self._origin

    def tell(self) -> None:
        """Something has happened that the host may wait for; what it is must have been written before."""
        if self.waiting:
            self._news.put(None)

    def wait(self, until: Callable[[], bool], at_most: float | None = None) -> bool:
        """The host, which holds the lock, waits until that is so, or for `at_most` seconds; whether it is so.

        What is to be settled is settled each time before it looks.
        """
        left = None if at_most is None else self.now() + round(at_most * 1e9)
        self.waiting = True
        try:
            while True:
                self.settle()
                if until():
                    return True
                pause = WAIT_S if left is None else min(WAIT_S, (left - self.now()) / 1e9)
                if pause <= 0:
                    return False
                self._sleep(pause)
                for check in self.checks:
                    check()
        finally:
            self.waiting = False

    def _sleep(self, pause: float) -> None:
        self.lock.release()
        try:  # a queue wakes who waits for it sooner than a condition does
            self._news.get(timeout=pause)
        except Empty:
            pass
        finally:
            self.lock.acquire()
