"""Copies of keys and values of the reference: out to the host on an engine of their own, back in on the link."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Protocol

import simpy

from tests.reference.clock import COPY_END, Clock, Doing
from tests.reference.link import Link


class Cost(Protocol):
    """What a link's table says of copies to the host."""

    @property
    def both_ways(self) -> tuple[Fraction, Fraction]:
        """How many times as long a chunk to the device, and one to the host, takes while the other way is at work."""
        ...

    def to_host(self, bytes: int) -> int: ...


class Swaps:
    """A process for each request that is copied out; those that come back are demands of `link`."""

    def __init__(self, clock: Clock, link: Link, cost: Cost) -> None:
        self.clock, self.link, self.cost = clock, link, cost
        self.engine = simpy.Resource(clock, 1)
        self.leaving = 0
        """copies to the host that are not over"""
        self.under_way: list[simpy.Event] = []
        link.pace = self._pace

    def out(self, sizes: list[int]) -> None:
        """Requests of so many bytes leave now, one after another."""
        if sizes:
            slow = self.cost.both_ways[1] if self.link.busy else Fraction(1)
            self.link.count["swapped out beside the link"] += self.link.busy
            self.link.count["swapped out beside a prefetch under way"] += bool(self.link.in_flight)
        for size in sizes:
            self.leaving += 1
            self.under_way.append(self.clock.process(self._out(size, slow, self.engine.request())))

    def back(self, sizes: list[int]) -> None:
        """Requests of so many bytes come back, in this order."""
        self.link.count["swapped in behind a prefetch under way"] += bool(sizes and self.link.in_flight)
        self.link.count["several swapped in at once"] += len(sizes) > 1
        self.under_way += [self.link.fetch(size) for size in sizes]

    def over(self) -> Doing:
        """Until nothing is under way, either way."""
        while self.under_way:
            yield self.under_way.pop()

    def _out(self, size: int, slow: Fraction, turn: simpy.Event) -> Doing:
        yield turn
        for chunk in self.link.cut(size):
            yield self.clock.after(math.ceil(slow * self.cost.to_host(chunk)), COPY_END)
        self.engine.release(turn)  # type: ignore[arg-type]
        self.leaving -= 1

    def _pace(self, ns: int) -> int:
        if not self.leaving:
            return ns
        self.link.count["chunks beside a swap"] += 1
        return math.ceil(self.cost.both_ways[0] * ns)
