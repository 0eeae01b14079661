"""Policies that decide by a secret: a number read off the server behind the view's back, or an honest one.

Python cannot keep a policy from walking up the stack to the server, or along whatever else can be reached; so the
scramble test must find those who do. One generic policy of each kind turns its secret into decisions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Sequence
from typing import Any

import numpy as np

from moesim.policy import (
    FAR,
    BatchPolicy,
    CachePolicy,
    Handling,
    Limits,
    Missing,
    MissPolicy,
    Pool,
    PrefetchPolicy,
    Queued,
)
from moesim.policy.batch import fill
from moesim.sim.server import FreeServer

Secret = Callable[[Any], int]
"""of a view or, for a batcher, of the queue"""


def server() -> FreeServer:
    """The server on whose stack we are."""
    frame = sys._getframe()
    while frame is not None:
        found = frame.f_locals.get("self")
        if isinstance(found, FreeServer):
            return found
        frame = frame.f_back  # type: ignore[assignment]
    raise LookupError("no server on the stack")


def routes_from(request: int, position: int) -> np.ndarray:
    """Recorded routes of a request from a position on, whether anybody has seen them or not."""
    made = server().trace
    sequence = server().workload[request].sequence
    return made.experts[made.offsets[sequence] + position : made.offsets[sequence + 1]]


def present() -> list[Any]:
    return list(server().frames[-1].work.parts)


# ---- what nobody below `oracle` knows


def next_token_of_the_running(view: Any) -> int:
    return sum(int(routes_from(p.request, p.start + p.tokens)[0].sum()) for p in present())


def second_token_of_the_waiting(of: Any) -> int:
    """Of each that waits, the one after those that are known."""
    waiting = server().scheduler.queue.values()
    return sum(int(routes_from(q.request, q.position + q.known)[:1].sum()) for q in waiting)


def tokens_still_to_come(of: Any) -> int:
    """Remaining output of all that have arrived."""
    workload = server().workload
    return sum(r.output - r.produced for r in workload.requests if r.visible >= 0)


def next_arrival(of: Any) -> int:
    """In us, and the length of its prompt (all there is in a closed loop)."""
    coming = [r for r in server().workload.requests if r.visible < 0]
    return coming[0].arrival // 1000 + coming[0].prompt if coming else 0


def prompts_that_have_not_come(of: Any) -> int:
    workload = server().workload
    return sum(int(routes_from(n, 0)[:3].sum()) for n in range(server().arrived, len(workload.world.routes)))  # type: ignore[attr-defined]


# ---- what lower levels do not know


def routes_in_the_queue(view: Any) -> int:
    return sum(int(q.experts.sum()) for q in server().scheduler.queue.values())


def rest_of_the_step(view: Any) -> int:
    work = server().setup.engine.work
    return sum(sum(of.experts) for of in work.layers[view.layer + 1 :])


def keys_before_the_first_gate(view: Any) -> int:
    """What the first layer will use: known ahead by a decoupled router, and by nobody where it is revealed at gates."""
    work = server().setup.engine.work
    return sum(work.layers[max(view.layer, 0)].experts)


def predictions_of_the_next_gate(view: Any) -> int:
    """What the step's tokens will be predicted to choose when the gate of the layer after this one has run."""
    made, offsets, workload = server().trace, server().trace.offsets, server().workload
    rows = [offsets[workload[p.request].sequence] + p.start for p in present()]
    return sum(int(made.predicted[1][row, (view.layer + 1) % view.layers].sum()) for row in rows)


# ---- honest secrets, each of its level


def steps(view: Any) -> int:
    return int(view.step)


def keys_of_the_event(view: Any) -> int:
    return sum(view.current)


def keys_of_the_step(view: Any) -> int:
    return sum(sum(view.needed(layer)) for layer in range(view.layers))


def shown_predictions(view: Any) -> int:
    return sum(key * votes for distance in (1, 2) for key, votes in view.predicted(distance))


def shown_uses(view: Any) -> int:
    return int(view.next_uses[view.next_uses < FAR].sum())


def lengths(queue: Sequence[Queued]) -> int:
    return sum(q.known for q in queue)


def experts(queue: Sequence[Queued]) -> int:
    return sum(int(q.experts.sum()) for q in queue)


# ---- what they do with it


class SecretCache(CachePolicy):
    """Evicts by the secret."""

    secret: Secret

    def start(self, pool: Pool, view: Any) -> None:
        self.view = view
        self.resident: list[int] = []

    def inserted(self, key: int, prefetched: bool) -> None:
        self.resident.append(key)

    def evicted(self, key: int) -> None:
        self.resident.remove(key)

    def victim(self, barred: Container[int]) -> int | None:
        free = [key for key in self.resident if key not in barred]
        return free[type(self).secret(self.view) % len(free)] if free else None


class SecretPrefetch(PrefetchPolicy):
    """Plans one key of the next layer, or of the layer after it, by the secret."""

    secret: Secret

    def plan(self) -> Sequence[int]:
        following = (self.view.layer + 1) % self.view.layers
        return [following * self.view.experts + type(self).secret(self.view) % self.view.experts]


class SecretMiss(MissPolicy):
    """Answers by the secret."""

    secret: Secret
    uses_cpu = True
    small_ratio = 0.3

    def decide(self, missing: Sequence[Missing]) -> Sequence[Handling]:
        answers, secret = list(Handling), type(self).secret(self.view)
        return [answers[(secret + m.key) % len(answers)] for m in missing]


class SecretBatch(BatchPolicy):
    """Takes the queue from a place that the secret says."""

    secret: Secret

    def form(self, queue: Sequence[Queued], limits: Limits) -> list[tuple[Queued, int]]:
        first = type(self).secret(queue) % len(queue)
        return fill([*queue[first:], *queue[:first]], limits)
