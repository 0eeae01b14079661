"""What is outside a small server, drawn at random: requests, their routes, predictions and arrivals."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product

import numpy as np

from moesim.check.toy import trace
from moesim.sim.workload import NOT_YET, Request, Workload
from moesim.trace.reveal import AT_GATE, at_gate
from moesim.trace.routing import RoutingTrace

EXPERTS, LAYERS = 5, 3
DISTANCES, PREDICTED = (1, 2), 2


@dataclass(frozen=True)
class World:
    """What is outside the server: per request its routes [tokens, R], the length of its prompt, and its arrival.

    A layer-wise router has predictions as well, [distances, tokens, R, PREDICTED], which have nothing to do with the
    routes; router `at-gate` is a decoupled one whose routes are revealed at each layer's gate. In a closed loop of
    `users`, arrivals after the first `users` are NOT_YET: they come as others leave.
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
        router = "layerwise" if self.router == "layerwise" else "decoupled"
        made = trace(pairs, layers=LAYERS, experts=EXPERTS, router=router, predicted=predicted)
        return at_gate(made, LAYERS) if self.router == AT_GATE else made


def draw_routes(rng: random.Random, tokens: int, router: str) -> np.ndarray:
    width = LAYERS if router == "layerwise" else 1
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
        self.requests, self.sequences = [], []
        self.cluster = 0

    def _draw(self) -> None:
        number, world = len(self.requests), self.world
        output = world.outputs(number)
        made = Request(number, number, "d", world.prompts[number], output, False, arrival=world.arrivals[number])
        self.requests.append(made)
        self.sequences.append(number)
