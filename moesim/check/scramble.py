"""The scramble test: change everything that a level does not show yet; every decision stays the same.

A small server runs once (of a frozen schedule: the one that is recorded), and its decisions are written down with
their instants (step, layer). Then, for an instant, all that is not visible at it is drawn anew - routes, predictions,
output lengths, arrivals, how many more requests there will be - and the server runs again: up to that instant it must
decide as it did.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import product, zip_longest
from typing import Any
from unittest.mock import patch

import numpy as np

from moesim import policy
from moesim.check.toy import ToyCosts, run, trace
from moesim.policy import LEVELS, CachePolicy, MissPolicy, Policy, PrefetchPolicy
from moesim.sim.scheduler import Scheduler
from moesim.sim.server import FreeServer
from moesim.sim.work import Part
from moesim.sim.workload import NOT_YET, Request, Workload
from moesim.trace.routing import RoutingTrace

SIMULATE = import_module("moesim.sim.simulate")  # moesim.sim.simulate is the function
EXPERTS, LAYERS = 5, 3
DISTANCES, PREDICTED = (1, 2), 2
Instant = tuple[int, int]
"""step and layer; -1 before the first layer"""


@dataclass(frozen=True)
class World:
    """What is outside the server: per request its routes [tokens, R], the length of its prompt, and its arrival.

    A layer-wise router has predictions as well, [distances, tokens, R, PREDICTED], which have nothing to do with the
    routes. In a closed loop of `users`, arrivals after the first `users` are NOT_YET: they come as others leave.
    """

    router: str
    routes: tuple[np.ndarray, ...]
    prompts: tuple[int, ...]
    arrivals: tuple[int, ...]
    users: int | None
    predicted: tuple[np.ndarray, ...]

    @property
    def requests(self) -> int:
        return len(self.routes)

    def outputs(self, request: int) -> int:
        return len(self.routes[request]) - self.prompts[request]

    def trace(self) -> RoutingTrace:
        pairs = [
            (routes[:prompt].tolist(), routes[prompt:].tolist())
            for routes, prompt in zip(self.routes, self.prompts, strict=True)
        ]
        ahead = np.concatenate(self.predicted, axis=1) if self.router == "layerwise" else None
        predicted = None if ahead is None else dict(zip(DISTANCES, ahead, strict=True))
        return trace(pairs, layers=LAYERS, experts=EXPERTS, router=self.router, predicted=predicted)


def draw_routes(rng: random.Random, tokens: int, router: str) -> np.ndarray:
    width = 1 if router == "decoupled" else LAYERS
    return np.array([[rng.randrange(EXPERTS) for _ in range(width)] for _ in range(tokens)], dtype=np.int16)


def draw_predictions(rng: random.Random, tokens: int, router: str) -> np.ndarray:
    found = np.full((len(DISTANCES), tokens, LAYERS, PREDICTED), -1, dtype=np.int16)
    for (number, distance), token in product(enumerate(DISTANCES), range(tokens if router == "layerwise" else 0)):
        for layer in range(LAYERS - distance):
            found[number, token, layer] = rng.sample(range(EXPERTS), PREDICTED)
    return found


def draw_world(rng: random.Random, router: str) -> World:
    """A few requests, more than a step takes, that come over some ten steps or as others leave."""
    requests, users = rng.randint(7, 10), rng.choice([None, 3, 6])
    prompts = tuple(rng.randint(1, 6) for _ in range(requests))
    routes = tuple(draw_routes(rng, prompt + rng.randint(1, 6), router) for prompt in prompts)
    if users is None:
        arrivals = sorted(rng.choice([0, rng.randrange(50_000)]) for _ in range(requests))
    else:
        arrivals = [0] * users + [NOT_YET] * (requests - users)
    predicted = tuple(draw_predictions(rng, len(of), router) for of in routes)
    return World(router, routes, prompts, tuple(arrivals), users, predicted)


class Scripted(Workload):
    """Request r replays sequence r and arrives when the world says."""

    def __init__(self, world: World, made: RoutingTrace) -> None:
        self.world, self.trace = world, made
        self.requests, self.sequences, self.cluster = [], [], 0

    def _draw(self) -> None:
        number, world = len(self.requests), self.world
        output = world.outputs(number)
        made = Request(number, number, "d", world.prompts[number], output, False, arrival=world.arrivals[number])
        self.requests.append(made)
        self.sequences.append(number)


@dataclass
class Run:
    """What a server decided, and when what became visible."""

    server: FreeServer | None = None
    decisions: list[tuple[Instant, str, Any]] = field(default_factory=list)
    step: int = -1

    def until(self, instant: Instant) -> list[tuple[Instant, str, Any]]:
        return [decision for decision in self.decisions if decision[0] <= instant]


@contextmanager
def recording(world: World, listen: Callable[[Policy, Run], Policy] | None = None) -> Iterator[Run]:
    """Runs within are of `world`, and what they decide is written down, by `listen` where it is given."""
    found = Run()
    make, form, init = policy.make, Scheduler.form, FreeServer.__init__
    listen = listen or _listen

    def new_form(self: Scheduler) -> tuple[Part, ...]:
        found.step += 1
        parts = form(self)
        found.decisions.append(((found.step, -1), "batch", parts))
        return parts

    def new_init(self: FreeServer, *args: Any) -> None:
        init(self, *args)
        found.server = self
        self.recording = True

    with (
        patch.object(SIMULATE, "_workload", lambda config, inputs, replication: Scripted(world, inputs.trace)),
        patch.object(policy, "make", lambda *args: listen(make(*args), found)),
        patch.object(Scheduler, "form", new_form),
        patch.object(FreeServer, "__init__", new_init),
    ):
        yield found


def _listen(made: Policy, found: Run) -> Policy:
    """Write down what a cache, prefetch or miss policy answers, at the instant that its view shows."""
    views: list[Any] = []

    def instant() -> Instant:
        return views[0].step, views[0].layer

    if isinstance(made, CachePolicy | PrefetchPolicy | MissPolicy):
        start: Any = made.start

        def listening_start(*args: Any) -> None:
            views.append(args[-1])
            start(*args)

        made.start = listening_start  # type: ignore[method-assign,assignment]
    if isinstance(made, CachePolicy):
        victim = made.victim

        def listening_victim(barred: Any) -> int | None:
            key = victim(barred)
            found.decisions.append((instant(), "victim", key))
            return key

        made.victim = listening_victim  # type: ignore[method-assign]
        admit = made.admit

        def listening_admit(key: int, prefetched: bool) -> bool:
            admitted = admit(key, prefetched)
            found.decisions.append((instant(), "admit", (key, admitted)))
            return admitted

        made.admit = listening_admit  # type: ignore[method-assign]
    if isinstance(made, PrefetchPolicy):
        plan = made.plan

        def listening_plan() -> Any:
            keys = plan()
            found.decisions.append((instant(), "plan", tuple(keys)))
            return keys

        made.plan = listening_plan  # type: ignore[method-assign]
        cancel = made.cancel

        def listening_cancel(moving: Any) -> Any:
            keys = cancel(moving)
            found.decisions.append((instant(), "cancel", (tuple(moving), tuple(keys))))
            return keys

        made.cancel = listening_cancel  # type: ignore[method-assign]
    if isinstance(made, MissPolicy):
        decide = made.decide

        def listening_decide(missing: Any) -> Any:
            answers = decide(missing)
            found.decisions.append((instant(), "miss", (tuple(missing), tuple(answers))))
            return answers

        made.decide = listening_decide  # type: ignore[method-assign]
    return made


def observe(world: World, listen: Callable[[Policy, Run], Policy] | None = None, **policies: Any) -> Run:
    """Run a server on `world` with these policies: 2 slots a layer, up to 2 requests and 8 tokens a step."""
    batch = policies.pop("batch", "decode-first")
    kind = {"kind": "closed", "concurrency": world.users} if world.users else {"kind": "poisson", "rate": 1.0}
    with recording(world, listen) as found:
        run(
            world.trace(),
            layers=LAYERS,
            experts=EXPERTS,
            traffic={**kind, "requests": world.requests},
            scheduler={"batch": batch, "max_requests": 2, "max_tokens": 8},
            costs=ToyCosts(copy_submit=7, decision=3, router_ns=150, sample=11, cpu=400),
            **policies,
        )
    return found


def scrambled(world: World, seen: Run, instant: Instant, level: str, rng: random.Random) -> World:
    """`world` with all that `level` does not show at `instant` drawn anew."""
    server = seen.server
    assert server is not None
    step, layer = instant
    start = int(server.log.rows[step][1])
    reached, sampled, visible = _progress(server, step)
    running = {part.request: part for part in server.frames[step].work.parts}
    arrived = [r for r in range(world.requests) if 0 <= _arrival(server, r) <= start]
    assert arrived == list(range(len(arrived)))
    prompts = list(world.prompts[: len(arrived)])
    routes: list[np.ndarray] = []
    predicted: list[np.ndarray] = []
    for r in arrived:
        over = sampled.get(r, 0) == world.outputs(r)
        output = world.outputs(r) if over else sampled.get(r, 0) + 1 + rng.randint(0, 4)
        fresh = draw_routes(rng, prompts[r] + output, world.router)
        known = max(reached.get(r, 0), visible.get(r, 0) if level == "queue" else 0)
        fresh[:known] = world.routes[r][:known]
        ahead = draw_predictions(rng, len(fresh), world.router)
        if level == "predicted":
            ahead[:, :known] = world.predicted[r][:, :known]
        if r in running:
            rows = slice(running[r].start, running[r].start + running[r].tokens)
            shown = LAYERS if level in ("step", "queue") or (world.router == "decoupled" and layer >= 0) else layer + 1
            fresh[rows, :shown] = world.routes[r][rows, :shown]
            if level == "predicted":
                ahead[:, rows, :shown] = world.predicted[r][:, rows, :shown]
        routes.append(fresh)
        predicted.append(ahead)
    # Once the users of a closed loop have nothing more to send, that has been seen.
    more = rng.randint(0, 5) if world.users is None or len(arrived) < world.requests else 0
    arrivals = [*world.arrivals[: len(arrived)], *sorted(start + 1 + rng.randrange(30_000) for _ in range(more))]
    if world.users:
        arrivals[len(arrived) :] = [NOT_YET] * more
    for _ in range(more):
        prompts.append(rng.randint(1, 6))
        routes.append(draw_routes(rng, prompts[-1] + rng.randint(1, 6), world.router))
        predicted.append(draw_predictions(rng, len(routes[-1]), world.router))
    return replace(
        world, routes=tuple(routes), prompts=tuple(prompts), arrivals=tuple(arrivals), predicted=tuple(predicted)
    )


def _arrival(server: FreeServer, request: int) -> int:
    requests = server.workload.requests
    return requests[request].arrival if request < len(requests) else NOT_YET


def _progress(server: FreeServer, step: int) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """Per request, when `step` is formed: tokens that have run, tokens sampled, tokens whose routes are visible."""
    reached: dict[int, int] = {}
    sampled: dict[int, int] = {}
    visible: dict[int, int] = {}
    for number, frame in enumerate(server.frames[: step + 1]):
        for r in frame.visible:
            visible[r] = visible[r] + 1 if r in visible else server.workload[r].prompt
        if number < step:
            for part in frame.work.parts:
                before, end = reached.get(part.request, 0), part.start + part.tokens
                reached[part.request] = max(before, end)
                # What was preempted runs again, and yields a token only where it gets farther than it was.
                if end > before and end >= server.workload[part.request].prompt:
                    sampled[part.request] = sampled.get(part.request, 0) + 1
    return reached, sampled, visible


def differences(
    level: str, *, router: str = "decoupled", worlds: int = 4, instants: int = 5, **policies: Any
) -> list[str]:
    """Where a server whose policies know `level` decided otherwise because of what that level does not show.

    Up to `worlds` runs, each scrambled at so many `instants`; the first run with a difference is the last.
    """
    assert level in LEVELS[:-1]
    for number in range(worlds):
        rng = random.Random(f"{number}/{router}")
        world = draw_world(rng, router)
        seen = observe(world, **policies)
        # What the link does after the last layer depends on when the next step starts, which nobody knows yet.
        last = LAYERS - 1 if policies.get("prefetch", "none") == "none" else LAYERS - 2
        chosen = [(rng.randrange(seen.step + 1), rng.randint(-1, last)) for _ in range(instants)]
        found = [
            difference for instant in chosen for difference in _compare(world, seen, instant, level, rng, policies)
        ]
        if found:
            return [f"world {number}, {difference}" for difference in found]
    return []


def _compare(
    world: World, seen: Run, instant: Instant, level: str, rng: random.Random, policies: dict[str, Any]
) -> Iterator[str]:
    """The first decision up to `instant` that is another one if what is not visible then is scrambled."""
    other = observe(scrambled(world, seen, instant, level, rng), **policies)
    for before, after in zip_longest(seen.until(instant), other.until(instant)):
        if before != after:
            hidden = f"what {level!r} does not show after step {instant[0]}, layer {instant[1]} was drawn anew"
            yield f"{hidden}, and {_told(before)} became {_told(after)}"
            return


def _told(decision: tuple[Instant, str, Any] | None) -> str:
    """A decision in words."""
    if decision is None:
        return "nothing"
    (step, layer), what, answer = decision
    return f"{what} {answer} of step {step}, layer {layer}"
