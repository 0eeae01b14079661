"""What a run is seen to do: when kernels run, the host acts, chunks move, keys hold their room, requests are served.

A `Watch` collects it from engines, links and caches that only look (`moesim.sim.watched`). It can hold a window of
steps, so that a long run does not fill memory. Times are ns of the simulated clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from moesim.sim.work import Part

LANES = ("stream", "host", "link", "to host", "cpu", "router", "cache")
"""that of the cache holds keys, which overlap; in each other one thing follows another"""
STREAM_WAITS = {"host": "host", "miss_stall": "miss stall", "late_stall": "late stall", "cpu_stall": "cpu stall"}
"""parts of a step in which the stream waits, and what such spans are called"""


@dataclass(slots=True, eq=False)
class Span:
    """Something that takes time: its kind, the keys that it is about, and what else is known of it."""

    start: int
    end: int
    kind: str
    keys: tuple[int, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)


class Mark(NamedTuple):
    """Something that happens at an instant."""

    at: int
    kind: str
    keys: tuple[int, ...] = ()


class Sample(NamedTuple):
    """Values of a counter from an instant on."""

    at: int
    counter: str
    values: dict[str, int]


class Step(NamedTuple):
    """A step and what each request did in it."""

    number: int
    start: int
    end: int
    parts: Sequence[Part]


class Watch:
    """Everything that is seen of the steps from `first` on, up to and without `last`; without it, to the end."""

    def __init__(self, first: int = 0, last: int | None = None) -> None:
        self.first, self.last = first, last
        self.lanes: dict[str, list[Span]] = {name: [] for name in LANES}
        self.marks: list[Mark] = []
        self.samples: list[Sample] = []
        self.steps: list[Step] = []
        self.held: dict[tuple[str, int], int] = {}
        """since when a key, staged or not, or a cancelled copy holds its room"""
        self.opened = first == 0
        self.closed = False

    @property
    def watching(self) -> bool:
        """Whether what happens now is within the window."""
        return self.opened and not self.closed

    def begins(self, step: int, start: int) -> None:
        """A step starts: what was over before the window is forgotten."""
        if 0 < step <= self.first:
            for spans in self.lanes.values():
                spans[:] = [span for span in spans if span.end > start]
            self.marks.clear()
            self.opened = step == self.first

    def ends(self, step: Step) -> None:
        """A step is over."""
        if self.watching:
            self.steps.append(step)
        if self.last is not None and step.number == self.last - 1:
            self.closed = True

    def add(self, lane: str, start: int, end: int, kind: str, keys: Sequence[int] = (), **notes: Any) -> Span:
        """A span of some length; one without length, or after the window, is not kept."""
        span = Span(start, end, kind, tuple(keys), notes)
        if end > start and not self.closed:
            self.lanes[lane].append(span)
        return span

    def mark(self, at: int, kind: str, *keys: int) -> None:
        if not self.closed:
            self.marks.append(Mark(at, kind, keys))

    def sample(self, at: int, counter: str, **values: int) -> None:
        if self.watching:
            self.samples.append(Sample(at, counter, values))

    def takes(self, kind: str, key: int, now: int) -> None:
        """A key takes its room."""
        self.held[kind, key] = now

    def leaves(self, kind: str, key: int, now: int) -> None:
        """A key leaves its room; one that was there at first has held it from the start."""
        start = self.held.pop((kind, key), 0)
        if not self.closed:
            self.lanes["cache"].append(Span(start, now, kind, (key,)))
