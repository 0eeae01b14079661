"""Where timing cannot reorder decisions the live engine counts what the simulator counts, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the live extra (torch)")

from tests.live.engine.small import both, counts, inputs_of

POLICIES = (
    "lru", "fifo", "lfu", "random", "clock", "arc", "s3-fifo", "sieve", "least-stale", "layer-aware-lru",
    "static-popular", "lfu-per-sequence",
)  # fmt: skip
SEEING = tuple({"name": "lookahead", "level": level} for level in ("step", "queue", "oracle"))


@st.composite
def servers(draw: st.DrawFn) -> dict[str, Any]:
    """A small server, and what its machine is asked."""
    router = draw(st.sampled_from(["decoupled", "layerwise"]))
    layers, experts = draw(st.integers(1, 3)), draw(st.integers(2, 4))
    one = st.integers(0, experts - 1)
    token = one if router == "decoupled" else st.lists(one, min_size=layers, max_size=layers)
    sequence = st.tuples(st.lists(token, min_size=1, max_size=4), st.lists(token, min_size=2, max_size=6))
    sequences = draw(st.lists(sequence, min_size=1, max_size=4))
    requests = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["all", "closed"]))
    return {
        "inputs": inputs_of(sequences, layers=layers, experts=experts, router=router),
        "schedule": "frozen",
        "steps": 14,
        "memory": {
            "slots": draw(st.integers(1, experts)),
            "scope": draw(st.sampled_from(["layer", "global"])),
            "staging": draw(st.sampled_from([0, 0, 0, 1])),
        },
        "cache": draw(st.sampled_from(POLICIES if router == "layerwise" else (*POLICIES, *SEEING))),
        "traffic": {"kind": kind, "requests": len(sequences)} | ({"concurrency": 2} if kind == "closed" else {}),
        "scheduler": {
            "batch": draw(st.sampled_from(["decode-first", "prefill-first"])),
            "max_requests": requests,
            "max_tokens": draw(st.integers(requests, 6)),
        },
        "machine": {
            "chunk_bytes": draw(st.sampled_from([150, 10_000])),
            "copies_in_flight": draw(st.integers(1, 3)),
            "expert_start": draw(st.sampled_from(["eager", "barrier", "index"])),
        },
    }


@settings(max_examples=60, deadline=None, derandomize=True)
@given(servers())
def test_demand_loading_counts_the_same(server: dict[str, Any]) -> None:
    simulated, executed = both(**server)
    waves = int(simulated.steps["waves"].sum())
    if not waves or (server["machine"]["expert_start"] == "barrier" and not server["memory"]["staging"]):
        assert counts(executed) == counts(simulated)
    for name in ("unique_keys", "waves"):
        assert executed.steps[name].tolist() == simulated.steps[name].tolist()
    for name in ("prefill_tokens", "decode_tokens", "requests"):
        assert executed.steps[name].tolist() == simulated.steps[name].tolist()
    assert executed.counters["output_tokens"] == simulated.counters["output_tokens"]
