"""The contract of batch policies: what each must do with any queue."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from moesim.check.broken import Calls, listed, require, whole
from moesim.policy import BatchPolicy, Limits, Queued

FIELDS = ("request", "position", "prompt_left", "known", "skipped")
Chosen = list[tuple[Queued, int]]


def draw_queue(rng: random.Random, router: str) -> list[Queued]:
    """One to eight requests, some of which decode and the others wait with their whole prompt."""
    queue = []
    for request in range(rng.randint(1, 8)):
        tokens = 1 if rng.random() < 0.5 else rng.randint(1, 12)
        decoding = tokens == 1 and rng.random() < 0.8
        routes = np.array([rng.randrange(4) for _ in range(tokens)], dtype=np.int16)
        position = 3 if decoding else rng.choice((0, 3))
        left = 0 if decoding else tokens
        queue.append(Queued(request, position, left, tokens, routes if router == "decoupled" else None))
        queue[-1].skipped = rng.randint(0, 6)
    return queue


def snapshot(queue: list[Queued]) -> list[tuple[Any, ...]]:
    """What a policy must leave as it is."""
    return [(*(getattr(q, name) for name in FIELDS), _routes(q)) for q in queue]


def _routes(queued: Queued) -> tuple[int, ...] | None:
    given = queued._given()
    return None if given is None else tuple(given.tolist())


def form(made: BatchPolicy, queue: list[Queued], limits: Limits, calls: Calls) -> Chosen:
    """One step of a policy, checked. `Broken` where it breaks a rule."""
    before = snapshot(queue)
    chosen = listed(calls(made.form, queue, limits), calls, "(Queued, tokens) pairs")
    for pair in chosen:
        pairs = isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], Queued) and whole(pair[1])
        require(pairs, calls, f"chose {pair!r}, which is no pair of a Queued and a number of its tokens")
    text = f"chose {[(q.request, n) for q, n in chosen]} of {[(q.request, q.known) for q in queue]}"
    require(snapshot(queue) == before, calls, "changed the queue, which it must not")
    require(bool(chosen), calls, "chose nothing although requests wait: no server would go on")
    require(all(any(q is known for known in queue) for q, _ in chosen), calls, f"{text}: not all of them are queued")
    require(len({q.request for q, _ in chosen}) == len(chosen), calls, f"{text}: a request is there twice")
    require(all(1 <= n <= q.known for q, n in chosen), calls, f"{text}: from 1 token to all that are known may run")
    require(len(chosen) <= limits.max_requests, calls, f"{text}: more than {limits.max_requests} requests")
    tokens = sum(n for _, n in chosen)
    require(tokens <= limits.max_tokens, calls, f"{text}: {tokens} tokens, more than {limits.max_tokens}")
    again = listed(calls(made.form, [q.copy() for q in queue], limits), calls, "(Queued, tokens) pairs")
    same = [(q.request, n) for q, n in again] == [(q.request, n) for q, n in chosen]
    require(same, calls, f"{text}, and then {[(q.request, n) for q, n in again]} of a copy: it must be a pure function")
    if made.in_order and (few := _few(queue, limits)) != queue:
        same = [(q.request, n) for q, n in calls(made.form, few, limits)] == [(q.request, n) for q, n in chosen]
        require(same, calls, f"{text}: it is not in_order, as other prompts that wait behind change what it chooses")
    return chosen


def _few(queue: list[Queued], limits: Limits) -> list[Queued]:
    """The queue as a policy that is `in_order` may be shown it."""
    waiting = [q for q in queue if q.prompt_left and not q.position]
    gone = {q.request for q in waiting[limits.max_requests :]}
    return [q for q in queue if q.request not in gone]


def forms(made: BatchPolicy, router: str, count: int = 300) -> None:
    """`count` random queues and limits."""
    rng, calls = random.Random(4), Calls()
    for _ in range(count):
        queue = draw_queue(rng, router)
        form(made, queue, Limits(rng.randint(1, 16), rng.randint(1, 5)), calls)


def drains(made: BatchPolicy, router: str, steps: int = 2000) -> None:
    """Whatever waits is served in the end where nothing more comes: twenty queues, each run dry."""
    rng, calls = random.Random(6), Calls()
    for _ in range(20):
        queue, limits = draw_queue(rng, router), Limits(rng.randint(1, 8), rng.randint(1, 3))
        for _ in range(steps):
            if not queue:
                break
            chosen = form(made, queue, limits, calls)
            for queued, tokens in chosen:
                queued.advance(tokens)
            queue = [queued for queued in queue if queued.known]
        require(not queue, calls, f"{len(queue)} requests still wait after {steps} steps although nothing more came")
