"""Live runs whose times decide: prefetching, and servers to which requests come by the clock."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.check.toy import config
from moesim.live.engine.differences import CLASSES, compare
from tests.live.engine.small import both, inputs_of
from tests.live.engine.test_agreement import servers

AHEAD = ("next-layer", "step-ahead", "queue-ahead", "stream-everything", "oracle")
SEQUENCES = [([0, 1, 2], [1, 2, 3, 0, 1]), ([3, 1], [2, 0, 1, 1, 2]), ([1], [3, 3, 2, 0])] * 4
LAYERWISE = [([[a, (a + 1) % 4] for a in p], [[a, (a + 2) % 4] for a in o]) for p, o in SEQUENCES]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(servers(), st.sampled_from(AHEAD))
def test_whatever_is_prefetched_every_kernel_has_its_weights_and_the_books_balance(
    server: dict[str, Any], prefetch: str
) -> None:
    if server["inputs"].trace.meta.router == "layerwise":
        prefetch = "stream-everything" if prefetch == "stream-everything" else "oracle"
    simulated, executed = both(**server, prefetch=prefetch)
    steps = executed.steps
    assert (sum(steps[f"{name}_keys"] for name in CLASSES) == steps["unique_keys"]).all()
    assert steps["unique_keys"].tolist() == simulated.steps["unique_keys"].tolist()
    keys = 3 * 8 * 4 * 4
    assert (steps["demand_bytes"] % keys == 0).all() and (executed.counters["wasted_bytes"] >= 0)
    asked = {name: value for name, value in server.items() if name != "inputs"}
    found = compare(config(**asked, prefetch=prefetch), simulated, executed)
    assert found.reasons and not found.broken


@pytest.mark.parametrize("sequences", [SEQUENCES, LAYERWISE], ids=["decoupled", "layerwise"])
@pytest.mark.parametrize("router", ["critical", "side"])
@pytest.mark.parametrize("traffic", [{"kind": "poisson", "rate": 400.0}, {"kind": "closed", "concurrency": 3}])
@pytest.mark.parametrize("schedule", ["free", "frozen"])
def test_requests_come_are_routed_and_answered_in_this_order(
    sequences: Any, router: str, traffic: dict[str, Any], schedule: str
) -> None:
    made = inputs_of(sequences, router="decoupled" if sequences is SEQUENCES else "layerwise")
    simulated, executed = both(
        made,
        schedule=schedule,
        steps=400,
        traffic={**traffic, "requests": 12},
        scheduler={"batch": "prefill-first", "max_requests": 4, "max_tokens": 16},
        machine={"chunk_bytes": 150, "router": router},
        memory={"slots": 3},
    )
    requests, steps = executed.requests, executed.steps
    assert executed.counters["requests_finished"] == simulated.counters["requests_finished"] == 12
    assert executed.counters["output_tokens"] == simulated.counters["output_tokens"]
    order = [requests[f"{name}_ns"] for name in ("arrival", "visible", "started", "first_token", "finished")]
    assert all((one <= other).all() for one, other in pairwise(order))
    assert (requests["first_token_ns"] > requests["visible_ns"]).all()
    if traffic["kind"] == "poisson":
        assert requests["arrival_ns"].tolist() == simulated.requests["arrival_ns"].tolist()
    assert (steps["start_ns"][1:] >= steps["end_ns"][:-1]).all()


def test_a_request_that_gives_up_its_blocks_is_computed_anew() -> None:
    made = inputs_of([([0, 1, 2, 3], [1, 2, 3, 0, 1, 2, 2]), ([3, 1, 0, 0], [2, 0, 1, 1, 2, 0, 0])])
    simulated, executed = both(
        made,
        schedule="frozen",
        steps=60,
        traffic={"kind": "all", "requests": 2},
        scheduler={"max_requests": 2, "max_tokens": 8},
        memory={"slots": 2, "kv": {"blocks": 8, "block_tokens": 2}},
    )
    assert executed.counters["preemptions_recompute"] == simulated.counters["preemptions_recompute"] > 0
    assert executed.counters["requests_finished"] == 2
