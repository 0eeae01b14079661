"""Simulated time with ranks: what happens first among the events of one instant (docs/model.md, "One instant")."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import simpy

KERNEL_END, COPY_END, CANCEL, DEMAND, HOST, ARRIVAL, FORM, PREFETCH, IDLE = range(10, 19)
"""Ranks within an instant. What SimPy triggers without delay (rank 1) goes before all of them.

HOST is whatever the host does but forming a step (FORM, after the arrivals), giving up prefetches (CANCEL) and asking
for an idle link (IDLE), which it does only if there is nothing else to do.
"""

Doing = Generator[simpy.Event, Any, Any]


class Clock(simpy.Environment):
    """An environment whose delays carry a rank."""

    @property
    def time(self) -> int:
        """ns"""
        return int(self.now)

    def after(self, delay: int, rank: int) -> simpy.Event:
        """An event `delay` ns from now, at `rank` of its instant."""
        event = self.event()
        event._ok, event._value = True, None
        self.schedule(event, rank, delay)  # type: ignore[arg-type]
        return event

    def soon(self, rank: int, act: Callable[[], None]) -> None:
        """Call `act` in this instant, at `rank`."""
        callbacks = self.after(0, rank).callbacks
        assert callbacks is not None
        callbacks.append(lambda _: act())


class Signal:
    """Something that happens again and again; `wait` gives the event of its next time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.next = clock.event()

    def wait(self) -> simpy.Event:
        return self.next

    def fire(self) -> None:
        fired, self.next = self.next, self.clock.event()
        fired.succeed()
