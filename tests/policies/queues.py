"""Queues written out by hand, and random ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from moesim.policy import BatchPolicy, Limits, Queued, find


def prompt(request: int, *experts: int, skipped: int = 0) -> Queued:
    """A prompt that waits, one expert a token."""
    return _queued(Queued(request, 0, len(experts), len(experts), np.array(experts, dtype=np.int16)), skipped)


def decode(request: int, expert: int, skipped: int = 0) -> Queued:
    """A request whose next token uses `expert`."""
    return _queued(Queued(request, 0, 0, 1, np.array([expert], dtype=np.int16)), skipped)


def _queued(made: Queued, skipped: int) -> Queued:
    made.skipped = skipped
    return made


def form(name: str, queue: list[Queued], tokens: int, requests: int, **params: Any) -> list[tuple[int, int]]:
    """(request, tokens) pairs that the batch policy chooses, in its order."""
    made = find("batch", name)(**params)
    assert isinstance(made, BatchPolicy)
    return [(queued.request, n) for queued, n in made.form(queue, Limits(tokens, requests))]


@st.composite
def queues(draw: st.DrawFn) -> tuple[list[Queued], Limits]:
    expert, skipped = st.integers(0, 3), st.integers(0, 6)
    queue = []
    for request in range(draw(st.integers(1, 8))):
        if draw(st.booleans()):
            queue.append(decode(request, draw(expert), draw(skipped)))
        else:
            queue.append(prompt(request, *draw(st.lists(expert, min_size=1, max_size=12)), skipped=draw(skipped)))
    requests = draw(st.integers(1, 5))
    return queue, Limits(draw(st.integers(1, 16)), requests)
