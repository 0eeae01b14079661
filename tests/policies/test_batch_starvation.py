"""Who waits how long: expert-aware batching starves requests of rare experts, its aged form does not (and how long)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.policy import BatchPolicy, Limits, find
from moesim.sim.scheduler import Scheduler

LIMITS = Limits(max_tokens=4, max_requests=2)


def batcher(name: str, limits: Limits = LIMITS, **params: Any) -> Scheduler:
    made = find("batch", name)(**params)
    assert isinstance(made, BatchPolicy)
    return Scheduler(made, limits)


def admit(scheduler: Scheduler, request: int, experts: Iterable[int]) -> None:
    routes = np.array(list(experts), dtype=np.int16)
    scheduler.admit(request, len(routes), routes)


def steps_until(scheduler: Scheduler, request: int, arrive: Callable[[int], None], most: int) -> int:
    """Steps that pass `request` over before the one that runs it; `arrive(step)` brings others before each step."""
    for step in range(most):
        arrive(step)
        if any(part.request == request for part in scheduler.form()):
            return step
    return most


def rivals(scheduler: Scheduler) -> Callable[[int], None]:
    """Two short prompts of expert 0 before every step, as many as a step takes."""

    def arrive(step: int) -> None:
        for number in (1 + 2 * step, 2 + 2 * step):
            admit(scheduler, number, [0])

    return arrive


def test_plain_expert_aware_starves_a_request_of_a_rare_expert() -> None:
    scheduler = batcher("expert-aware")
    admit(scheduler, 0, [1])
    assert steps_until(scheduler, 0, rivals(scheduler), most=500) == 500
    assert scheduler.longest_pass_over == 500


def test_the_aged_form_runs_it_once_its_patience_is_over() -> None:
    # It is first in the queue: nobody is ahead of it, so patience is all it waits.
    for patience in (0, 1, 8, 40):
        scheduler = batcher("expert-aware-aged", patience=patience)
        admit(scheduler, 0, [1])
        assert steps_until(scheduler, 0, rivals(scheduler), most=500) == patience


def test_decode_first_runs_prompts_in_order_whatever_their_expert() -> None:
    scheduler = batcher("decode-first")
    admit(scheduler, 0, [1])
    assert steps_until(scheduler, 0, rivals(scheduler), most=500) == 0


def test_prefill_first_keeps_decode_tokens_waiting_while_prompts_come() -> None:
    """That is what the policy is (vLLM before chunked prefill), and why longest_pass_over is in the results."""
    scheduler = batcher("prefill-first")
    scheduler.sampled(0, 0, np.array([1], dtype=np.int16))
    assert steps_until(scheduler, 0, rivals(scheduler), most=500) == 500


def bound(scheduler: Scheduler, request: int, patience: int) -> int:
    """Steps in a row that can pass over `request`, which has just joined the queue, under `expert-aware-aged`.

    B = patience + sum over the requests ahead of it in the queue of ceil(known tokens / max_tokens). For: in each step
    after its patience is over, the first in the queue of those whose patience is over is served, either to its last
    known token, or with `max_tokens` of them. That one is ahead of `request` or is `request`, since others join behind.
    """
    ahead = [q for r, q in scheduler.queue.items() if r != request]
    return patience + sum(ceil(q.known / scheduler.limits.max_tokens) for q in ahead)


def test_the_bound_is_reached() -> None:
    """Patience 2, three whole steps ahead in the queue, and a longer expert queue behind until patience is over."""
    scheduler = batcher("expert-aware-aged", patience=2)
    for request in (1, 2, 3):
        admit(scheduler, request, [2] * 4)
    admit(scheduler, 0, [1])
    assert bound(scheduler, 0, patience=2) == 5
    for request in range(4, 12):
        admit(scheduler, request, [0] * 4)
    assert steps_until(scheduler, 0, lambda step: None, most=500) == 5


def test_a_prompt_ahead_counts_as_many_steps_as_it_takes() -> None:
    scheduler = batcher("expert-aware-aged", patience=0)
    admit(scheduler, 1, [2] * 9)
    admit(scheduler, 0, [1])
    assert bound(scheduler, 0, patience=0) == 3
    assert steps_until(scheduler, 0, lambda step: None, most=500) == 2  # the last chunk is one token: both fit


@st.composite
def traffic(draw: st.DrawFn) -> dict[str, Any]:
    requests = draw(st.integers(1, 3))
    prompt = st.lists(st.sampled_from([0, 0, 0, 1, 2]), min_size=1, max_size=10)
    return {
        "limits": Limits(draw(st.integers(1, 6)), requests),
        "patience": draw(st.integers(0, 4)),
        "filing": draw(st.sampled_from(["span", "majority"])),
        "arrivals": draw(st.lists(st.lists(prompt, max_size=3), min_size=5, max_size=25)),
        "outputs": draw(st.integers(1, 5)),
    }


@settings(max_examples=250, deadline=None, derandomize=True)
@given(traffic())
def test_nobody_is_passed_over_more_often_than_the_bound(case: dict[str, Any]) -> None:
    """Random prompts, and decode tokens that come back to the end of the queue, until all is done."""
    patience = case["patience"]
    scheduler = batcher("expert-aware-aged", case["limits"], patience=patience, filing=case["filing"])
    bounds: dict[int, int] = {}
    left: dict[int, int] = {}
    coming = list(case["arrivals"])
    while coming or scheduler.queue:
        for experts in coming.pop(0) if coming else ():
            admit(scheduler, number := len(left), experts)
            left[number] = case["outputs"]
            bounds[number] = bound(scheduler, number, patience)
        parts = scheduler.form()
        for request, queued in scheduler.queue.items():
            assert queued.skipped <= bounds[request]
        for request in [part.request for part in parts if part.request not in scheduler.queue]:
            left[request] -= 1
            if left[request]:
                scheduler.sampled(request, 0, np.array([request % 3], dtype=np.int16))
                bounds[request] = bound(scheduler, request, patience)
    assert not any(left.values())
