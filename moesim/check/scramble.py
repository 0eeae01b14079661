"""The scramble test: change everything that a level does not show yet; every decision stays the same.

A small server runs once (of a frozen schedule: the one that is recorded), and its decisions are written down with
their instants (step, layer). Then, for an instant, all that is not visible at it is drawn anew - routes, predictions,
output lengths, arrivals, how many more requests there will be - and the server runs again: up to that instant it must
decide as it did.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import Any

import numpy as np

from moesim.check.recording import Instant, Run, observe
from moesim.check.world import LAYERS, World, draw_predictions, draw_routes, draw_world
from moesim.policy import LEVELS
from moesim.sim.server import FreeServer
from moesim.sim.workload import NOT_YET


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
            # The first gate shows what a decoupled router decided for all layers, even if nobody is told of the rest.
            shown = LAYERS if level in ("step", "queue") or (world.router != "layerwise" and layer >= 0) else layer + 1
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
