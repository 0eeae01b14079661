"""The server for real: requests come by the clock, prompts are routed aside, steps run on the live engine.

What is inherited forms the steps, keeps the books and answers the policies; the clock is the machine's. Between steps
`now` is the end of the last one, as in the simulator: what arrives after it is seen when the next step has ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from moesim.live.engine.engine import ROUTED, UNROUTED, LiveEngine
from moesim.live.engine.model import LiveModel
from moesim.live.engine.side import Errand, SideRouter
from moesim.live.kernels import Prompt
from moesim.sim.kv import Moves
from moesim.sim.link import NEVER
from moesim.sim.replayed import ReplayServer
from moesim.sim.server import FreeServer, Kind, Server
from moesim.sim.work import Part, Work
from moesim.sim.workload import Request

Shown = Sequence[tuple[Request, int]]
AHEAD = 64
"""requests that are handed to the router before they arrive, so that it can begin when they do"""


class LiveServer(Server):
    """What both kinds of live server add: steps on a live engine, and errands of the router."""

    side: SideRouter
    model: LiveModel
    engine: LiveEngine

    def bind(self, engine: LiveEngine, model: LiveModel, side: SideRouter) -> None:
        """The machine that it runs on; before `run`."""
        self.engine, self.model, self.side = engine, model, side
        self._sampled: tuple[list[Request], list[tuple[Request, int]]] = [], []

    def sampling(self, parts: Sequence[Part]) -> tuple[list[Request], list[tuple[Request, int]]]:
        self._sampled = super().sampling(parts)
        return self._sampled

    def run_step(
        self, step: int, work: Work, start: int, sampled: int, continuing: int, later: Callable[[Kind], np.ndarray]
    ) -> int:
        engine, requests = self.engine, self.workload.requests
        for part in work.parts:
            request = requests[part.request]
            if part.start == 0 and request.started_step < 0:
                request.started, request.started_step = start, step
        with engine.compute.context():
            self.model.begin(work.parts, requests, self.trace, *self._sampled)
        routes = continuing and self.decoupled and not self.side_router
        laters = [later(kind) for kind in self.setup.foresights]
        end = engine.run(step, work, ROUTED if routes else UNROUTED, start, laters)
        if routes:
            self.learn(self._sampled[1], self.model.next_routes)
        self.log.add(self._row(step, start, end, work))
        if engine.check:
            self.budget.verify(self.setup.cache.taken_bytes, self.log.kv[-1][0] if self.log.kv else 0)
        self.progress(step + 1)
        return end

    def start_of(self, formed: int, moves: Moves) -> int:
        for gone in moves.preempted:
            self.model.leave(gone.request)
        return super().start_of(formed, moves)

    def learn(self, shown: Shown, chosen: np.ndarray) -> None:
        """A real router has chosen: experts [tokens, k] of what these requests have at these positions."""
        if self.model.weights.real is None:
            return
        first = 0
        for request, position in shown:
            count = request.prompt if position == 0 else 1
            row = int(self.trace.offsets[request.sequence]) + position
            self.trace.experts[row : row + count, 0] = chosen[first : first + count]
            first += count

    def errand(self, shown: Shown, not_before: int) -> Errand:
        """Hand to the router what these requests have at these positions: a prompt of one, or tokens of several."""
        model = self.model
        places = [model.place_in_router(request.number, self.side.at_rest) for request, _ in shown]
        ids: list[int] = []
        prompts, singles = [], []
        for (request, at), place in zip(shown, places, strict=True):
            known = model.tokens.of(request)
            if at == 0:
                prompts.append(Prompt(len(ids), request.prompt, place, 0))
                ids += known[: request.prompt]
            else:
                singles.append((place, at))
                ids.append(known[at])
        made = Errand(ids, prompts, singles, not_before)
        self.side.send(made)
        return made

    def _visible(self, shown: Shown, at: int) -> None:
        for request, position in shown:
            if position == 0:
                request.visible = at

    def wait_for(self, errand: Errand) -> int:
        """The host waits for the router; when it was done."""
        engine = self.engine
        with engine.shared.lock:
            engine.idle_until(lambda: errand.done >= 0)
        return errand.done


class LiveFreeServer(LiveServer, FreeServer):
    """As it runs."""

    def run(self) -> None:
        super().run()
        for errand, shown in self.routing:
            self._visible(shown, self.wait_for(errand))

    def bind(self, engine: LiveEngine, model: LiveModel, side: SideRouter) -> None:
        super().bind(engine, model, side)
        self.routing: deque[tuple[Errand, Shown]] = deque()
        """what the router has, in its order, with the requests and positions that it is about"""
        self.fed: dict[int, Errand] = {}
        """prompts that were handed over before they arrive"""
        self.fed_until = 0

    def route_aside(self, tokens: int, now: int) -> int:
        return NEVER if self.decoupled else now

    def _at(self, time: int, shown: Shown) -> None:
        if time <= self.now:
            self._show(shown)
            return
        first = shown[0][0].number
        errand = self.fed.pop(first) if first in self.fed else self.errand(shown, self.now)
        self.routing.append((errand, shown))

    def _reach(self, time: int, *, arrivals: bool = True) -> None:
        latest = time if arrivals else time - 1
        self._feed()
        while True:
            arrival = self._next_arrival()
            routed = self.routing[0][0].done if self.routing else -1
            due = min(arrival, NEVER if routed < 0 else routed)
            if due > latest:
                break
            self.now = max(self.now, due)
            if due == routed:
                errand, shown = self.routing.popleft()
                self._visible(shown, routed)
                if errand.chosen is not None:
                    self.learn(shown, errand.chosen)
                self._show(shown)
            else:
                self._arrive(self.workload[self.arrived])
        self.now = time

    def _next_arrival(self) -> int:
        """When the next request comes; NEVER if none does by itself."""
        if self.arrived >= self.config.traffic.requests:
            return NEVER
        arrival = self.workload[self.arrived].arrival
        return NEVER if arrival < 0 else arrival

    def _feed(self) -> None:
        if not self.decoupled:
            return
        self.fed_until = max(self.fed_until, self.arrived)
        while self.fed_until < min(self.arrived + AHEAD, self.config.traffic.requests):
            request = self.workload[self.fed_until]
            if request.arrival < 0:
                return
            self.fed[request.number] = self.errand([(request, 0)], request.arrival)
            self.fed_until += 1

    def _next_event(self) -> int:
        arrival = self._next_arrival()
        if not self.routing and arrival == NEVER:
            return super()._next_event()
        engine, now = self.engine, self.engine.shared.now
        with engine.shared.lock:
            left = None if arrival == NEVER else max(0.0, (arrival - now()) / 1e9)
            engine.idle_until(lambda: bool(self.routing) and self.routing[0][0].done >= 0, left)
        return max(self.now, now())


class LiveReplayServer(LiveServer, ReplayServer):
    """On a frozen schedule."""

    def bind(self, engine: LiveEngine, model: LiveModel, side: SideRouter) -> None:
        super().bind(engine, model, side)
        self.errands: dict[int, Errand] = {}
        """the last of each request"""

    def run(self) -> None:
        super().run()
        for request in self.workload.requests:
            if request.visible == NEVER:
                request.visible = self.wait_for(self.errands[request.number])

    def _route(self, shown: Shown, tokens: int, now: int) -> int:
        if not self.decoupled:
            return super()._route(shown, tokens, now)
        made = self.errand(shown, now)
        self.errands.update((request.number, made) for request, _ in shown)
        return NEVER

    def _ready(self, request: int) -> int:
        errand = self.errands.get(request)
        if errand is None:
            return super()._ready(request)
        done = self.wait_for(errand)
        of_it = self.workload.requests[request]
        if of_it.visible == NEVER:
            of_it.visible = done
        return done
