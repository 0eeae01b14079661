"""One step for real: the simulator's engine decides, and its kernels, waits and copies happen.

Inherited are the order of everything in a step, what is asked of whom, and the accounts. What is replaced is what takes
time: a kernel is launched on the stream, waiting waits, a stall lasts until a copy has landed. The host holds the lock
of `Shared` during a step and gives it up where it waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.live.engine.cache import LiveCache
from moesim.live.engine.host import HostTimes
from moesim.live.engine.link import LiveLink
from moesim.live.engine.model import LiveModel
from moesim.live.engine.shared import Shared
from moesim.live.engine.streams import Piece, Stream
from moesim.sim.cache import FRESH
from moesim.sim.engine import (
    ATTENTION,
    EXPERTS,
    GATE,
    HOST,
    LATE,
    LATE_STALL,
    MISS_STALL,
    REST,
    ROUTER,
    Engine,
    StepCosts,
)
from moesim.sim.pattern import Event
from moesim.sim.work import LayerWork, Work

ROUTED = StepCosts(0, 0, 0, 0, router=1)
"""a step after which its tokens are routed; nothing here reads a time from it"""
UNROUTED = StepCosts(0, 0, 0, 0, router=0)


@dataclass(frozen=True, slots=True)
class Free:
    """Costs of a machine whose time passes by itself."""

    launch: int = 0
    sync: int = 0
    copy_submit: int = 0
    decision: int = 0
    forming: int = 0
    planning: int = 0

    def experts(self, tokens: int, active: int, largest: int) -> int:
        return 0


class LiveEngine(Engine):
    """Executes steps. `stream` and `host` are both the clock at the host's last look; times are ns of the run."""

    link: LiveLink
    cache: LiveCache

    def __init__(self, shared: Shared, compute: Stream, *args: Any, **kwargs: Any) -> None:
        keys, _, *rest = args
        super().__init__(keys, Free(), *rest, **kwargs)
        self.shared, self.compute = shared, compute
        self.model: LiveModel | None = None
        """set before the first step"""
        self.layer = self.launched = self.demanded = -1
        """the present layer, the part of the last kernel, the last layer of which a key was demanded"""
        self.in_step = False
        self.group: Sequence[int] = ()
        """keys of the next expert kernel"""
        self.times = HostTimes()
        self.waits: list[tuple[int, int, int]] = []
        """stalls of the step: from, to, part"""
        shared.settle = self._settle

    # -- a step --------------------------------------------------------------------------------------------------

    def run(self, step: int, work: Work, costs: StepCosts, start: int, laters: Sequence[np.ndarray]) -> int:
        with self.shared.lock:
            self._reach(start)
            self.waits.clear()
            self.demanded, self.in_step = -1, True
            try:
                return super().run(step, work, costs, start, laters)
            finally:
                self.in_step = False

    def reach(self, start: int) -> int:
        """Wait for the clock to reach `start`; the prefetcher may be asked."""
        if self.in_step:  # which was reached before
            return self.host
        with self.shared.lock:
            return self._reach(start)

    def _reach(self, start: int) -> int:
        self._look()
        while self.host < start:
            self.idle_until(lambda: False, (start - self.host) / 1e9)
        return self.host

    def _layer(self, layer: int, event: Event, work: LayerWork, costs: StepCosts) -> None:
        self.layer = layer
        super()._layer(layer, event, work, costs)
        if self.check and event.keys:
            with self.compute.context():
                self._launch(self._model.compare(layer))

    @property
    def _model(self) -> LiveModel:
        assert self.model is not None
        return self.model

    def _finish(self, costs: StepCosts) -> int:
        end = super()._finish(costs)
        self._account(end)
        return end

    def _account(self, end: int) -> None:
        """Where the time went: into what ran; between that into stalls, and else into the host."""
        parts, at, waits, ran = self.parts, self._began, deque(self.waits), self.compute.ran()
        self.times.read(ran, self._began)
        for part, begun, ended in [*ran, (HOST, end, end)]:
            begun, ended = min(max(begun, at), end), min(max(ended, at), end)
            idle = begun - at
            while waits and waits[0][0] < begun:
                since, until, kind = waits.popleft()
                stalled = max(0, min(until, begun) - max(since, at))
                parts[kind] += stalled
                idle -= stalled
            parts[HOST] += idle
            parts[part] += ended - begun
            at = ended

    # -- kernels -------------------------------------------------------------------------------------------------

    def _kernel(self, part: int, cost: int) -> None:
        group = frozenset(self.group) if part == EXPERTS else None
        waited = self.compute.idle and self.launched not in (GATE, REST)  # after these there was a synchronisation
        with self.compute.context():
            self._launch(self._pieces(part), group, waited)
        self.launched = part
        self._look()

    def _launch(self, pieces: list[Piece], group: frozenset[int] | None = None, waited: bool = False) -> None:
        self.times.launches(len(pieces), waited)
        self.compute.launch(pieces, group)

    def _pieces(self, part: int) -> list[Piece]:
        model = self._model
        if part == ATTENTION:
            return model.attention(self.layer)
        if part == GATE:
            return model.gate(self.layer)
        if part == REST:
            return model.sample()
        if part == ROUTER:
            return model.route()
        pieces = model.experts(self.layer, self.group, self.cache.slot)
        return [*self._checks(), *pieces] if self.check else pieces

    def _checks(self) -> list[Piece]:
        """Whether the group's weights are where its kernel reads them."""
        model, slots = self._model, [(key, self.cache.slot(key)) for key in self.group]

        def run() -> None:
            for key, slot in slots:
                model.same(key, slot)

        return [(EXPERTS, run)]

    def _run_resident(self, keys: tuple[int, ...], work: LayerWork) -> None:
        self.group = keys
        if self.check:
            self._launch(self._model.keep())
        super()._run_resident(keys, work)

    def _run_group(self, group: list[int], tokens: dict[int, int], unrun: set[int]) -> None:
        self.group = group
        super()._run_group(group, tokens, unrun)

    def _load_and_run(self, tokens: dict[int, int], absent: dict[int, int], now: int) -> None:
        self._wait_until(now)  # what is missing is demanded once the layer's experts could start
        if self.check:
            self._launch(self._model.keep())
        super()._load_and_run(tokens, absent, now)

    # -- waiting -------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        self.stream = self.host = self.shared.now()

    def _settle(self) -> None:
        """Kernels that have ended let go of their keys, which may make room; by whoever holds the lock."""
        ended = self.compute.ended
        while ended:
            group = ended.popleft()
            if self.running is None or self.running[1] != group:
                continue
            self.running = None
            self.cache.ran(group)
            if not self.cache.unrun:
                self.cache.event = ()
            self.link.release(self.shared.now())
            self.link.go_on()

    def _advance(self, now: int, *, idle: bool = False) -> None:
        # Copies and kernels have gone on by themselves; what they left to do is done now.
        self._settle()
        self._look()

    def _wait_until(self, due: int) -> None:
        """Until the stream has nothing to run."""
        self.idle_until(lambda: self.compute.idle)

    def idle_until(self, over: Callable[[], bool], at_most: float | None = None) -> None:
        """The host has nothing to do before that: the prefetcher is asked if the link is or falls idle meanwhile."""
        asks = self.prefetcher is not None
        until = None if at_most is None else self.shared.now() + round(at_most * 1e9)
        while True:
            left = None if until is None else max(0.0, (until - self.shared.now()) / 1e9)
            self.shared.wait(lambda: over() or (asks and self.link.idle_since is not None), left)
            self._look()
            if over() or (until is not None and self.host >= until):
                return
            if asks and self.link.idle_since is not None:
                self._ask_prefetcher()

    def _synchronise(self) -> None:
        self.shared.wait(lambda: self.compute.idle)
        self._model.read(self.launched)
        self._look()
        self.times.has_read(self.host)

    def _stall(self, unrun: set[int], absent: dict[int, int], tokens: dict[int, int]) -> None:
        """The stream is free and nothing may run: wait for a key that the event needs, or for nothing to be coming."""
        if self.running is not None:
            raise AssertionError("waiting for a copy while a kernel holds its pins")
        link, state, began = self.link, self.cache.state, self.shared.now()
        before = {key for key in unrun if state[key] >= FRESH}

        def landed() -> int | None:
            return next((key for key in unrun if state[key] >= FRESH and key not in before), None)

        def over() -> bool:
            if landed() is None and not link.stuck() and not link.sent:
                raise AssertionError("nothing may run and nothing is on its way")
            return landed() is not None or link.stuck()

        self.shared.wait(over)
        self._look()
        cause = landed()
        waited_for = link.demands[0].key if cause is None else cause
        ended = max(began, self.host if cause is None else link.landed[cause])
        self.times.landed = ended
        self.waits.append((began, ended, LATE_STALL if absent.get(waited_for) == LATE else MISS_STALL))
        if cause is None:
            ready = sorted(key for key in unrun if state[key] >= FRESH)
            if not ready:
                raise AssertionError("nothing is there to run, and nothing can come")
            self._run_group(ready, tokens, unrun)

    def _ask_prefetcher(self) -> None:
        assert self.prefetcher is not None
        if self.prefetcher.cost_ns:  # a predictor that is not run takes its stated time
            self.shared.wait(lambda: False, self.prefetcher.cost_ns / 1e9)
        self._look()
        begun = self.host
        super()._ask_prefetcher()
        self._look()
        self.times.add("ask", self.host - begun)

    def _demand(self, key: int) -> None:
        super()._demand(key)
        if self.demanded != self.layer:
            self.demanded = self.layer
            self.times.demands(self.shared.now())

    def _check(self) -> None:
        self.cache.balance()
        self.cache.verify()
        self.link.verify()
