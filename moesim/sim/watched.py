"""The engine, the link, the cache and the miss policy's hand, watched: subclasses that only look.

Whatever is done to a clock goes through a method that is watched here; `WatchedEngine.look` raises if the stream has
moved otherwise. A watched engine works every layer event out anew, which is slower and equal to the nanosecond.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from moesim.policy import Handling, Missing
from moesim.sim.cache import FRESH, LOADING, ExpertCache
from moesim.sim.engine import CLASS_OF, CLASSES, HOST, LATE, MISS, PARTS, REST, Engine, StepCosts
from moesim.sim.kv import Moves
from moesim.sim.link import Link, Transfer
from moesim.sim.misses import Misses
from moesim.sim.pattern import Event
from moesim.sim.server import Server
from moesim.sim.setup import Makers
from moesim.sim.watch import STREAM_WAITS, Span, Step, Watch
from moesim.sim.work import LayerWork, Work

WAITS = {part: STREAM_WAITS[name] for part, name in enumerate(PARTS) if name in STREAM_WAITS}
ORDER = (*WAITS, *(part for part in range(len(PARTS)) if part not in WAITS))
"""the stream waits first, and then it runs"""


class Watched:
    """Makes a machine whose parts tell `watch` what they do."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.makers = Makers(self.cache, self.link, self.misses, self.engine)

    def cache(self, *args: Any, **kwargs: Any) -> ExpertCache:
        made = self._cache = WatchedCache(*args, **kwargs)
        made.watch, made.given_up = self.watch, deque()
        return made

    def link(self, *args: Any, **kwargs: Any) -> Link:
        made = self._cache.link = WatchedLink(*args, **kwargs)
        made.watch, made.sent, made.copied = self.watch, {}, Counter(demand=0, prefetch=0)
        return made

    def misses(self, *args: Any, **kwargs: Any) -> Misses:
        made = WatchedMisses(*args, **kwargs)
        made.watch, made.handed = self.watch, deque()
        return made

    def engine(self, *args: Any, **kwargs: Any) -> Engine:
        made = WatchedEngine(*args, **kwargs)
        made.watch, made.tally = self.watch, Counter(dict.fromkeys(CLASSES, 0))
        return made

    def server(self, made: Server) -> None:
        """Watch the router that serves on the side, and steps that wait for KV memory."""
        route_aside, start_of, watch = made.route_aside, made.start_of, self.watch

        def routed(tokens: int, now: int) -> int:
            start, end = max(made.router_free, now), route_aside(tokens, now)
            watch.add("router", start, end, "route", (tokens,))
            return end

        def started(formed: int, moves: Moves) -> int:
            start = start_of(formed, moves)
            watch.add("stream", formed, start, "kv stall", moves="in" if moves.swapped_in else "out")
            return start

        made.route_aside = routed  # type: ignore[method-assign]
        made.start_of = started  # type: ignore[method-assign]


class WatchedCache(ExpertCache):
    """Says when keys take and leave their room; `now` is the link's."""

    watch: Watch
    link: WatchedLink
    given_up: deque[int]
    """keys of cancelled copies whose last chunk is not over, in order"""

    def make_room(self, key: int, demanded: bool) -> bool:
        found = super().make_room(key, demanded)
        if found:
            self.watch.takes(self._kind(key), key, self.link.now)
            self._sample()
        elif not demanded:
            self.watch.mark(self.link.now, "dropped", key)
        return found

    def landed(self, key: int, demanded: bool) -> None:
        super().landed(key, demanded)
        self._sample()

    def _leave(self, key: int, pool: int) -> None:
        self.watch.leaves(self._kind(key), key, self.link.now)
        super()._leave(key, pool)

    def _leave_staging(self, key: int) -> None:
        self.watch.leaves(self._kind(key), key, self.link.now)
        super()._leave_staging(key)

    def _gone(self, key: int) -> None:
        if self.state[key] == FRESH:
            self.link.wasted(key)
        super()._gone(key)
        self._sample()

    def cancelled(self, key: int, sent_bytes: int, over: bool) -> int:
        now = self.link.now
        self.watch.mark(now, "cancelled", key)
        self.watch.leaves(self._kind(key), key, now)
        self.link.wasted(key)
        if not over:
            self.watch.takes("cancelled", key, now)
            self.given_up.append(key)
        place = super().cancelled(key, sent_bytes, over)
        self._sample()
        return place

    def drained(self, place: int, size: int) -> None:
        super().drained(place, size)
        self.watch.leaves("cancelled", self.given_up.popleft(), self.link.now)
        self._sample()

    def _kind(self, key: int) -> str:
        return "staged" if key in self.staged else "key"

    def _sample(self) -> None:
        """How many keys are there, by state, and the bytes that they hold in the pools."""
        if not self.watch.watching:
            return
        loading, fresh = self.state.count(LOADING), self.state.count(FRESH)
        used = len(self.state) - self.state.count(0) - loading - fresh
        self.watch.sample(self.link.now, "expert cache, keys", used=used, prefetched=fresh, loading=loading)
        self.watch.sample(self.link.now, "expert cache, bytes", held=sum(self.used_bytes))


class WatchedLink(Link):
    """Says when each chunk moves, and when demands enter; `new` are the keys that the last plan added."""

    watch: Watch
    sent: dict[int, list[Span]]
    """chunks of each key since its copy began"""
    copied: Counter[str]
    """bytes within the window"""
    new: Sequence[int] = ()

    def plan(self, keys: Sequence[int], nbytes: Sequence[int], at: int, submit_ns: int = 0) -> int:
        self.new = [key for key in keys if key not in self.planned]
        return super().plan(keys, nbytes, at, submit_ns)

    def demand(self, key: int, nbytes: int, at: int) -> None:
        self.watch.mark(at, "demand", key)
        super().demand(key, nbytes, at)

    def swap_out(self, sizes: Sequence[int], at: int) -> int:
        end = super().swap_out(sizes, at)
        self.watch.add("to host", at, end, "swap out", bytes=sum(sizes))
        return end

    def _send_chunk(self, transfer: Transfer, now: int, line: deque[Transfer]) -> None:
        start, size = max(self.ends[-1], now), min(self.chunk_bytes, self._left(transfer))
        super()._send_chunk(transfer, now, line)
        self._moves(transfer, start, self.ends[-1], size)

    def _send_all(self, head: Transfer, now: int) -> None:
        at, left, costs = max(self.ends[-1], now), self._left(head), list(head.chunks)
        super()._send_all(head, now)
        if at + sum(costs) != self.ends[-1]:
            raise AssertionError(f"chunks of key {head.key} take {self.ends[-1] - at} ns, and not {sum(costs)}")
        for cost in costs:
            self._moves(head, at, at + cost, min(self.chunk_bytes, left))
            at, left = at + cost, left - self.chunk_bytes

    def _left(self, transfer: Transfer) -> int:
        """Bytes that are not submitted: those of its last chunks, the last of which may be smaller."""
        return transfer.nbytes - (len(self.chunks(transfer.nbytes)) - len(transfer.chunks)) * self.chunk_bytes

    def _moves(self, transfer: Transfer, start: int, end: int, size: int) -> None:
        earlier = self.sent.setdefault(transfer.key, [])
        if earlier and len(earlier) == earlier[0].notes["chunks"]:
            earlier.clear()  # those were of a copy before this one
        early = bool(earlier) and earlier[0].kind == "prefetch"
        kind = ("promoted" if early else "demand") if transfer.demanded else "prefetch"
        number, count = len(earlier) + 1, len(self.chunks(transfer.nbytes))
        notes = {"chunk": number, "chunks": count, "bytes": size}
        earlier.append(self.watch.add("link", start, end, kind, (transfer.key,), **notes))
        if self.watch.watching:
            self.copied["demand" if kind == "demand" else "prefetch"] += size
            self.watch.sample(end, "link, bytes copied", **self.copied)

    def wasted(self, key: int) -> None:
        """What was prefetched of this key was of no use."""
        for span in self.sent.get(key, ()):
            span.notes["wasted"] = True
        self.sent.pop(key, None)


class WatchedMisses(Misses):
    """Says what the CPU computes; `handed` are the keys that go to it next."""

    watch: Watch
    handed: deque[int]

    def _apply(self, missing: Missing, answer: Handling) -> None:
        super()._apply(missing, answer)
        if answer is Handling.CPU:
            self.handed.append(missing.key)

    def hand_over(self, tokens: int, at: int) -> None:
        start = max(self.cpu_free, at)
        super().hand_over(tokens, at)
        self.watch.add("cpu", start, self.cpu_free, "expert on the CPU", (self.handed.popleft(),), tokens=tokens)


class WatchedEngine(Engine):
    """Says what the stream and the host do."""

    watch: Watch
    link: WatchedLink
    tally: Counter[str]
    """keys by access class within the window"""
    booked: list[int]
    """parts of the step as they were at the last look"""
    at: int
    """the stream's clock, as far as it was seen"""
    layer: int
    group: tuple[int, ...]
    """keys of the present expert kernel"""
    group_tokens: int
    classes: dict[int, str]
    """of the keys of the present layer event"""

    def run(self, step: int, work: Work, costs: StepCosts, start: int, laters: Any) -> int:
        self.watch.begins(step, start)
        self.booked, self.at, self.layer = [0] * len(PARTS), start, -1
        end = super().run(step, work, costs, start, laters)
        self.watch.ends(Step(step, start, end, tuple(work.parts)))
        return end

    def look(self, kernel: str = "rest", keys: tuple[int, ...] = (), **notes: Any) -> None:
        """Enter what was booked since the last look: first what the stream waited for, then what it ran."""
        where = {"layer": self.layer} if self.layer >= 0 else {}
        for part in ORDER:
            spent = self.parts[part] - self.booked[part]
            if spent:
                about = {"for": kernel} if part == HOST else {} if part in WAITS else notes
                shown = () if part in WAITS else keys
                self.watch.add("stream", self.at, self.at + spent, WAITS.get(part, kernel), shown, **where, **about)
            self.at += spent
        self.booked = list(self.parts)
        if self.at != self.stream:
            raise AssertionError(f"the stream is at {self.stream}, and {self.at} is what was seen of it")

    def _host(self, start: int, end: int, kind: str, keys: Sequence[int] = ()) -> None:
        self.watch.add("host", start, end, kind, sorted(keys), **({"layer": self.layer} if self.layer >= 0 else {}))

    def _kernel(self, part: int, cost: int) -> None:
        self.look()
        before, name = self.host, "sample" if part == REST else PARTS[part]
        super()._kernel(part, cost)
        self._host(before, before + self.costs.launch, f"launch {name}")
        if name == "experts":
            self.look(name, self.group, **self._served())
        else:
            self.look(name)

    def _served(self) -> dict[str, Any]:
        """Tokens of the group, and the access class of each of its keys."""
        return {"classes": [self.classes.get(key, CLASSES[0]) for key in self.group], "tokens": self.group_tokens}

    def _synchronise(self) -> None:
        self.look()
        super()._synchronise()
        self._host(self.host - self.costs.sync, self.host, "read back")
        self.look("read back")

    def _layer(self, layer: int, event: Event, work: LayerWork, costs: StepCosts) -> None:
        if layer == 0:
            self._host(self.host - self.costs.forming, self.host, "batch")
        self.layer = layer
        self.classes = dict.fromkeys(event.keys, CLASSES[0])
        super()._layer(layer, event, work, costs)
        self.look()
        if self.watch.watching:
            self.tally.update(list(self.classes.values()))
            self.watch.sample(self.stream, "accesses, keys", **{name: self.tally[name] for name in CLASSES})
        if layer == self.layers - 1:
            self.layer = -1

    def _absent(self, keys: tuple[int, ...], states: tuple[int, ...]) -> dict[int, int]:
        self.classes |= {key: CLASSES[CLASS_OF[state]] for key, state in zip(keys, states, strict=True)}
        return super()._absent(keys, states)

    def _run_as_settled(
        self, misses: Misses, keys: tuple[int, ...], work: LayerWork, states: tuple[int, ...], now: int
    ) -> None:
        assert isinstance(misses, WatchedMisses)
        before = max(self.host, now)
        elsewhere = list(misses.handed)
        self._host(before, before + misses.asking, "decide on misses")
        for number, key in enumerate(elsewhere):
            at = before + misses.asking + number * self.costs.copy_submit
            self._host(at, at + self.costs.copy_submit, "hand over", (key,))
        super()._run_as_settled(misses, keys, work, states, now)
        count = len(self.watch.lanes["stream"])
        self.look("hand over")
        for span in self.watch.lanes["stream"][count:]:
            if span.kind == "cpu stall":
                span.notes["waits_for"] = elsewhere[-1]

    def _run_resident(self, keys: tuple[int, ...], work: LayerWork) -> None:
        self.group, self.group_tokens = tuple(sorted(keys)), work.total
        super()._run_resident(keys, work)

    def _run_group(self, group: list[int], tokens: dict[int, int], unrun: set[int]) -> None:
        self.group, self.group_tokens = tuple(sorted(group)), sum(tokens[key] for key in group)
        super()._run_group(group, tokens, unrun)

    def _stall(self, unrun: set[int], absent: dict[int, int], tokens: dict[int, int]) -> None:
        """The key that the stream waited for is the one that came, or the first in line that found no room."""
        self.look()
        spans = self.watch.lanes["stream"]
        count, state, waiting = len(spans), self.cache.state, list(unrun)
        before = {key for key in waiting if state[key] >= FRESH}
        super()._stall(unrun, absent, tokens)
        self.look("submit")
        came = next((key for key in waiting if state[key] >= FRESH and key not in before), None)
        key = self.link.demands[0].key if came is None else came
        for span in spans[count:]:
            if span.kind in ("miss stall", "late stall"):
                span.notes |= {"waits_for": key, "class": CLASSES[LATE if span.kind == "late stall" else MISS]}

    def _demand(self, key: int) -> None:
        before = self.host
        super()._demand(key)
        self._host(before, before + self.costs.copy_submit, "submit", (key,))

    def _ask_prefetcher(self) -> None:
        before = self.host
        super()._ask_prefetcher()
        answered = before + self.asking
        if answered == before:
            self.watch.mark(before, "asked")
        self._host(before, answered, "decide")
        self._host(answered, self.host, "submit", self.link.new)
