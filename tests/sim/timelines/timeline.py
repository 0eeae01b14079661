"""What a hand-computed timeline is: a server, a window of its steps, and everything that happens in it.

Lanes are written as lines `start-end what`, marks as `instant what`; times are ns from `origin`. `before` and `after`
stand for a key that was there when the window starts, or still is when it ends.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from moesim.check.toy import ToyCosts

PART_OF = {
    "attention": "attention",
    "rest": "rest",
    "sample": "rest",
    "gate": "gate",
    "router": "router",
    "experts": "experts",
    "host": "host",
    "miss stall": "miss_stall",
    "late stall": "late_stall",
}
"""the part of a step to which time on the stream is booked"""
LINE = re.compile(r"(before|\d+)-(after|\d+)\s+(\S.*)")


class Bar(NamedTuple):
    """Something that takes time; `start` or `end` None: outside of the window."""

    start: int | None
    end: int | None
    what: str

    @property
    def kind(self) -> str:
        """What it is, without the numbers of keys."""
        return re.sub(r"[\d ]+$", "", self.what)

    @property
    def keys(self) -> str:
        """The numbers of its keys."""
        return self.what.removeprefix(self.kind).strip()

    def __str__(self) -> str:
        start = "before" if self.start is None else self.start
        return f"{start}-{'after' if self.end is None else self.end} {self.what}"


class Mark(NamedTuple):
    """Something that happens at an instant: `demand 1`, `asked`, `dropped 2`, `cancelled 3`."""

    at: int
    what: str

    def __str__(self) -> str:
        return f"{self.at} {self.what}"


@dataclass(frozen=True)
class Costs(ToyCosts):
    """Round numbers that a picture can show; the router takes `router_ns` a token."""

    attention: int = 300
    expert: int = 300
    gate_ns: int = 0
    rest_ns: int = 0

    def layer_rest(self, tokens: int) -> int:
        return self.rest_ns

    def router(self, tokens: int) -> int:
        return self.router_ns * tokens


Request = tuple[Sequence[Any], Sequence[Any]]
"""prompt and output tokens, each an expert, or a list of them by layer"""


def prompt(*tokens: Any) -> Request:
    """A request of one step: its prompt yields its only token."""
    return tokens, (tokens[0],)


@dataclass(frozen=True)
class Server:
    """A toy server: one slot of 1000 bytes a layer, 1 ns a byte, one chunk a key, `changes` as in an experiment."""

    requests: tuple[Request, ...]
    layers: int = 1
    experts: int = 4
    router: str = "decoupled"
    costs: Costs = field(default_factory=Costs)
    copy_fixed: int = 0
    key_bytes: int = 1000
    key_sizes: tuple[int, ...] = ()
    key_map: tuple[tuple[int, ...], ...] = ()
    memory: dict[str, Any] = field(default_factory=lambda: {"slots": 1, "scope": "layer"})
    machine: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Panel:
    """A window of a server's life, worked out by hand from docs/model.md."""

    title: str
    server: Server
    stream: str
    link: str = ""
    host: str = ""
    cache: str = ""
    """where memory matters: bars of keys, `staged` ones, and `cancelled` ones whose room is not free yet"""
    router: str = ""
    """the prompt router, on the side"""
    marks: str = ""
    steps: tuple[tuple[int, int], ...] = ()
    """start and end of each step of the window"""
    first: int = 0
    """number of the first of them; those before it bring the cache into its state"""
    origin: int = 0
    """when the window starts"""
    numbers: dict[str, int] = field(default_factory=dict)
    """keys by access class and all counters that are not 0"""
    requests: dict[str, list[int]] = field(default_factory=dict)
    """columns of the table of requests"""
    same: tuple[str, ...] = ()
    """other `expert_start` that make no difference"""

    def lane(self, name: str) -> list[Bar]:
        """Bars of a lane. Raises ValueError for a line that is none."""
        return bars(getattr(self, name))

    @property
    def events(self) -> list[Mark]:
        """The marks."""
        return [Mark(int(line.split()[0]), line.split(maxsplit=1)[1]) for line in lines(self.marks)]


@dataclass(frozen=True)
class Figure:
    """One feature: panels, one below the other on one axis of time."""

    name: str
    panels: tuple[Panel, ...]

    @property
    def digest(self) -> str:
        """Of everything that the drawing is made from."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]


def lines(text: str) -> list[str]:
    """Lines of a lane, one a statement; `;` separates as a line does."""
    return [line.strip() for line in re.split(r"[\n;]", text) if line.strip()]


def bars(text: str) -> list[Bar]:
    """Bars from their lines."""
    found = []
    for line in lines(text):
        match = LINE.fullmatch(line)
        if not match:
            raise ValueError(f"{line!r} is no bar: `start-end what`")
        start, end, what = match.groups()
        found.append(Bar(None if start == "before" else int(start), None if end == "after" else int(end), what))
    return found


def chunks(start: int, size: int, count: int, what: str) -> str:
    """`count` bars of `size` ns, one after another."""
    return "\n".join(f"{start + n * size}-{start + (n + 1) * size} {what}" for n in range(count))
