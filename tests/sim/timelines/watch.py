"""What the simulator does, seen from outside: when kernels run, the host acts, chunks move and keys hold their room.

The engine, the link and the cache are watched through subclasses that only look. Anything they do to a clock goes
through a method that is watched here; `Watch.look` raises if the stream has moved otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from moesim.check import toy
from moesim.sim import Inputs, RunResult, server, setup, simulate
from moesim.sim.cache import ExpertCache
from moesim.sim.engine import HOST, LATE_STALL, MISS_STALL, PARTS, REST, Engine
from moesim.sim.link import Link, Transfer
from tests.sim.timelines.timeline import Bar, Mark, Panel, Server

POLICIES = Path(__file__).parent / "policies"
IDLE = {HOST: "host", MISS_STALL: "miss stall", LATE_STALL: "late stall"}
LANES = ("stream", "host", "link", "cache", "router")


class Watch:
    """What was seen, in absolute ns."""

    def __init__(self) -> None:
        self.lanes: dict[str, list[Bar]] = {name: [] for name in LANES}
        self.marks: list[Mark] = []
        self.held: dict[str, int] = {}
        """since when a key, or a cancelled copy, holds its room"""
        self.began_as_prefetch: set[int] = set()
        self.step_start = 0

    def bar(self, lane: str, start: int, end: int, what: str) -> None:
        """A bar of some length; waiting on the stream that goes on within a step is one bar."""
        bars = self.lanes[lane]
        waits_on = what in IDLE.values() and bars and bars[-1][1:] == (start, what) and start > self.step_start
        if waits_on:
            start = bars.pop().start
        if end > start:
            bars.append(Bar(start, end, what))

    def takes(self, what: str, now: int) -> None:
        self.held[what] = now

    def leaves(self, what: str, now: int) -> None:
        self.lanes["cache"].append(Bar(self.held.pop(what), now, what))

    def window(self, origin: int) -> tuple[dict[str, list[Bar]], list[Mark]]:
        """Everything from `origin` on, in ns from there."""
        lanes = {name: [_moved(bar, origin) for bar in bars if bar.end > origin] for name, bars in self.lanes.items()}
        keys = [*self.lanes["cache"], *(Bar(start, None, what) for what, start in self.held.items())]
        lanes["cache"] = [_moved(bar, origin) for bar in keys if bar.end is None or bar.end >= origin]
        return lanes, [Mark(mark.at - origin, mark.what) for mark in self.marks if mark.at >= origin]


def _moved(bar: Bar, origin: int) -> Bar:
    start = None if bar.start < origin and bar.what.split()[0] in ("key", "staged") else bar.start - origin
    return Bar(start, None if bar.end is None else bar.end - origin, bar.what)


class WatchedCache(ExpertCache):
    """Says when keys take and leave their room; `now` is the link's."""

    watch: Watch
    link: Link

    def make_room(self, key: int, demanded: bool) -> bool:
        found = super().make_room(key, demanded)
        if found:
            self.watch.takes(self._name(key), self.link.now)
        elif not demanded:
            self.watch.marks.append(Mark(self.link.now, f"dropped {key}"))
        return found

    def _leave(self, key: int, pool: int) -> None:
        self.watch.leaves(self._name(key), self.link.now)
        super()._leave(key, pool)

    def _leave_staging(self, key: int) -> None:
        self.watch.leaves(self._name(key), self.link.now)
        super()._leave_staging(key)

    def cancelled(self, key: int, sent_bytes: int, over: bool) -> int:
        now = self.link.now
        self.watch.marks.append(Mark(now, f"cancelled {key}"))
        self.watch.leaves(self._name(key), now)
        self.waiting_room = getattr(self, "waiting_room", deque())
        if not over:
            self.watch.takes(f"cancelled {key}", now)
            self.waiting_room.append(key)
        return super().cancelled(key, sent_bytes, over)

    def drained(self, place: int, size: int) -> None:
        super().drained(place, size)
        self.watch.leaves(f"cancelled {self.waiting_room.popleft()}", self.link.now)

    def _name(self, key: int) -> str:
        return f"staged {key}" if key in self.staged else f"key {key}"


class WatchedLink(Link):
    """Says when each chunk moves, and when demands enter; `new` are the keys that the last plan added."""

    watch: Watch
    new: Sequence[int] = ()

    def plan(self, keys: Sequence[int], nbytes: Sequence[int], at: int, submit_ns: int = 0) -> int:
        self.new = [key for key in keys if key not in self.planned]
        return super().plan(keys, nbytes, at, submit_ns)

    def demand(self, key: int, nbytes: int, at: int) -> None:
        self.watch.marks.append(Mark(at, f"demand {key}"))
        super().demand(key, nbytes, at)

    def _send_chunk(self, transfer: Transfer, now: int, line: deque[Transfer]) -> None:
        what, cost = self._name(transfer), transfer.chunks[0]
        super()._send_chunk(transfer, now, line)
        self.watch.bar("link", self.ends[-1] - cost, self.ends[-1], what)

    def _send_all(self, head: Transfer, now: int) -> None:
        what, costs = self._name(head), list(head.chunks)
        super()._send_all(head, now)
        at = self.ends[-1] - sum(costs)
        for cost in costs:
            self.watch.bar("link", at, at + cost, what)
            at += cost

    def _name(self, transfer: Transfer) -> str:
        key, early = transfer.key, self.watch.began_as_prefetch
        if not transfer.demanded:
            early.add(key)
            return f"prefetch {key}"
        return f"promoted {key}" if key in early else f"demand {key}"


class WatchedEngine(Engine):
    """Says what the stream and the host do."""

    watch: Watch
    link: WatchedLink

    def run(self, step: int, work: Any, costs: Any, start: int, laters: Any) -> int:
        self.booked, self.at, self.group = [0] * len(PARTS), start, ""
        self.watch.step_start = start
        return super().run(step, work, costs, start, laters)

    def look(self, kernel: str = "rest") -> None:
        """Enter what was booked since the last look: first what the stream waited for, then what it ran."""
        order = (HOST, MISS_STALL, LATE_STALL, *(p for p in range(len(PARTS)) if p not in IDLE))
        for part in order:
            spent = self.parts[part] - self.booked[part]
            self.watch.bar("stream", self.at, self.at + spent, IDLE.get(part, kernel))
            self.at += spent
        self.booked = list(self.parts)
        if self.at != self.stream:
            raise AssertionError(f"the stream is at {self.stream}, and {self.at} is what was seen of it")

    def _kernel(self, part: int, cost: int) -> None:
        self.look()
        before, name = self.host, "sample" if part == REST else PARTS[part]
        super()._kernel(part, cost)
        self.watch.bar("host", before, before + self.costs.launch, f"launch {name}")
        self.look(f"{name} {self.group}" if name == "experts" else name)

    def _synchronise(self) -> None:
        self.look()
        super()._synchronise()
        self.watch.bar("host", self.host - self.costs.sync, self.host, "read back")
        self.look()

    def _layer(self, layer: int, event: Any, work: Any, costs: Any) -> None:
        if layer == 0:
            self.watch.bar("host", self.host - self.costs.decision, self.host, "batch")
        super()._layer(layer, event, work, costs)
        self.look()

    def _run_resident(self, keys: tuple[int, ...], work: Any) -> None:
        self.group = _listed(keys)
        super()._run_resident(keys, work)

    def _run_group(self, group: list[int], tokens: dict[int, int], unrun: set[int]) -> None:
        self.group = _listed(group)
        super()._run_group(group, tokens, unrun)

    def _stall(self, unrun: set[int], absent: dict[int, int], tokens: dict[int, int]) -> None:
        self.look()
        super()._stall(unrun, absent, tokens)
        self.look()

    def _demand(self, key: int) -> None:
        before = self.host
        super()._demand(key)
        self.watch.bar("host", before, before + self.costs.copy_submit, f"submit {key}")

    def _ask_prefetcher(self) -> None:
        before = self.host
        super()._ask_prefetcher()
        answered = before + self.costs.decision
        if answered == before:
            self.watch.marks.append(Mark(before, "asked"))
        self.watch.bar("host", before, answered, "decide")
        self.watch.bar("host", answered, self.host, f"submit {_listed(self.link.new)}")


def _listed(keys: Sequence[int]) -> str:
    return " ".join(map(str, sorted(keys)))


def inputs(made: Server) -> Inputs:
    """Its trace, shape and tables. The n-th request of a run replays the n-th of `requests`."""
    places = toy.as_requests([([n], [0]) for n in range(len(made.requests))])
    sequences = [made.requests[p[0]] for p, _ in places]
    trace = toy.trace(sequences, layers=made.layers, experts=made.experts, router=made.router)  # type: ignore[arg-type]
    fields = {"key_sizes": made.key_sizes, "key_map": made.key_map}
    shape = toy.shape(made.layers, made.experts, made.key_bytes).model_copy(update=fields)
    return Inputs(trace, shape, made.costs, toy.ToyLink(made.copy_fixed))  # type: ignore[arg-type]


def run(panel: Panel, **machine: Any) -> tuple[Any, Inputs]:
    """Configuration and inputs of a panel: its run ends with the window, and the window is what is measured."""
    made = panel.server
    settings: dict[str, Any] = {
        "memory": made.memory,
        "machine": {"chunk_bytes": 1000} | made.machine | machine,
        "traffic": {"kind": "all", "requests": len(made.requests)},
        "warmup_steps": panel.first,
        "steps": panel.first + len(panel.steps),
    }
    named = {kind: _found(made.changes[kind]) for kind in ("cache", "prefetch") if kind in made.changes}
    return toy.config(**(settings | made.changes | named)), inputs(made)


def _found(spec: Any) -> Any:
    """A policy of this folder by its name, any other as it is."""
    name = spec["name"] if isinstance(spec, dict) else spec
    own = POLICIES / f"{name}.py"
    return {**spec, "name": str(own)} if own.is_file() else spec


def watched(panel: Panel, **machine: Any) -> tuple[RunResult, dict[str, list[Bar]], list[Mark]]:
    """Run a panel's server and look on: the result, the lanes and the marks of its window."""
    watch = Watch()
    route_aside = server.Server.route_aside

    def routed(self: server.Server, tokens: int, now: int) -> int:
        start, end = max(self.router_free, now), route_aside(self, tokens, now)
        watch.bar("router", start, end, f"route {tokens}")
        return end

    def link(cost: Any, chunk_bytes: int, in_flight: int, room: WatchedCache) -> Link:
        room.link = WatchedLink(cost, chunk_bytes, in_flight, room)
        room.link.watch = room.watch = watch
        return room.link

    def machine_of(*args: Any, **kwargs: Any) -> Engine:
        made = WatchedEngine(*args, **kwargs)
        made.watch = watch
        return made

    config, given = run(panel, **machine)
    with (
        mock.patch.multiple(setup, Engine=machine_of, Link=link, ExpertCache=WatchedCache),
        mock.patch.object(server.Server, "route_aside", routed),
    ):
        result = simulate(config, given, 0, check=True, direct=True)
    return result, *watch.window(panel.origin)


