"""The compute stream of the reference: one kernel after another, and what fills the time between them."""

from __future__ import annotations

from dataclasses import dataclass

import simpy

from tests.reference.clock import KERNEL_END, Clock, Doing
from tests.reference.link import Link
from tests.reference.memory import Event, Memory

PARTS = ("attention", "rest", "gate", "router", "experts", "host", "miss_stall", "late_stall", "cpu_stall")


@dataclass
class Kernel:
    part: str
    ns: int
    event: Event | None
    keys: tuple[int, ...]
    done: simpy.Event
    result: int = 0
    """of the CPU, for which the stream waits instead: when it is there"""


class Stream:
    """The compute stream: kernels in the order of their launches, one after another."""

    def __init__(self, clock: Clock, memory: Memory, link: Link) -> None:
        self.clock, self.memory, self.link = clock, memory, link
        self.parts = dict.fromkeys(PARTS, 0)
        self.waiting = simpy.Store(clock)
        self.drained = clock.event().succeed()
        """the last kernel that was launched has ended"""
        self.idle_since = 0
        self.stalled = 0
        clock.process(self._run())

    def begin(self, start: int) -> None:
        """A step starts: whatever the stream did before is no part of it."""
        self.parts = dict.fromkeys(PARTS, 0)
        self.idle_since, self.stalled = start, 0

    def launch(self, part: str, ns: int, event: Event | None = None, keys: tuple[int, ...] = ()) -> None:
        """A kernel; with `keys` it runs these experts of `event`."""
        self.drained = self.clock.event()
        self.waiting.put(Kernel(part, ns, event, keys, self.drained))

    def wait_for_cpu(self, result: int) -> None:
        """Before the next kernel, until `result`; up to now the host was busy."""
        self.drained = self.clock.event()
        self.waiting.put(Kernel("cpu_stall", 0, None, (), self.drained, result))

    def rest_until(self, now: int) -> None:
        """Account for the idle time up to `now`: what was no stall was the host's."""
        self.parts["host"] += now - self.idle_since - self.stalled
        self.idle_since, self.stalled = now, 0

    def stall(self, part: str, ns: int) -> None:
        self.parts[part] += ns
        self.stalled += ns

    def _run(self) -> Doing:
        while True:
            kernel = yield self.waiting.get()
            if kernel.result:
                if (ns := kernel.result - self.clock.time) > 0:
                    yield self.clock.after(ns, KERNEL_END)
                    self.stall("cpu_stall", ns)
                kernel.done.succeed()
                continue
            self.rest_until(self.clock.time)
            if kernel.ns:
                yield self.clock.after(kernel.ns, KERNEL_END)
            self.idle_since = self.clock.time
            self.parts[kernel.part] += kernel.ns
            if kernel.event:
                self.memory.kernel_ended(kernel.event, kernel.keys)
                self.link.room_may_have_come()
            kernel.done.succeed()
