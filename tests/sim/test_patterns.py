"""Repeating a known pattern equals working it out: every column, to the nanosecond."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.toy import ToyCosts, ToyLink, run


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    experts, layers = draw(st.integers(2, 5)), draw(st.integers(1, 3))
    router = draw(st.sampled_from(["decoupled", "layerwise"]))
    expert = st.integers(0, experts - 1)
    token = expert if router == "decoupled" else st.lists(expert, min_size=layers, max_size=layers)
    sequence = st.tuples(st.lists(token, min_size=1, max_size=4), st.lists(token, min_size=1, max_size=6))
    sequences = draw(st.lists(sequence, min_size=2, max_size=5))
    requests = draw(st.integers(1, 3))
    return {
        "sequences": sequences,
        "router": router,
        "layers": layers,
        "experts": experts,
        "memory": {"slots": draw(st.integers(1, experts)), "scope": draw(st.sampled_from(["layer", "global"]))},
        "traffic": {"kind": "closed", "concurrency": draw(st.integers(1, 4)), "requests": len(sequences)},
        "scheduler": {"max_requests": requests, "max_tokens": draw(st.integers(requests, 8))},
        "machine": {"expert_start": draw(st.sampled_from(["eager", "barrier", "index"])), "chunk_bytes": 300},
        "cache": draw(st.sampled_from(["lru", "fifo", "lfu", "random", {"name": "lookahead", "level": "oracle"}])),
        "schedule": draw(st.sampled_from(["frozen", "free"])),
        "costs": ToyCosts(*draw(st.tuples(*[st.integers(0, 400)] * 6))),
        "link": ToyLink(draw(st.integers(0, 50))),
    }


@settings(max_examples=300, deadline=None, derandomize=True)
@given(cases())
def test_repeated_patterns_equal_direct_work(case: dict[str, Any]) -> None:
    sequences = case.pop("sequences")
    fast, slow = run(sequences, **case), run(sequences, **case, direct=True)
    assert fast.counters == slow.counters
    for name, column in slow.steps.items():
        assert np.array_equal(fast.steps[name], column), name
    for name, column in slow.requests.items():
        assert np.array_equal(fast.requests[name], column), name


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_patterns_are_in_use(scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above compares something: in a repetitive run most layer events are repeats."""
    from moesim.sim.engine import Engine

    learnt, repeated = [], []
    learn, repeat = Engine._learn, Engine._repeat
    monkeypatch.setattr(Engine, "_learn", lambda *a: (learnt.append(1), learn(*a))[1])
    monkeypatch.setattr(Engine, "_repeat", lambda *a: (repeated.append(1), repeat(*a))[1])
    run([([0, 1], [0, 2] * 20)], layers=3, experts=3, memory={"slots": 1, "scope": scope})
    assert len(repeated) > 4 * len(learnt) > 0
