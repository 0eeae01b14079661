"""How fast the simulator is on the shipped trace: `pytest -m bench -s tests/bench`. It reports and judges nothing."""

from __future__ import annotations

import statistics
import time

import pytest

from moesim.experiment import Experiment
from moesim.files import shipped
from moesim.hardware.costs import load_costs
from moesim.hardware.link import load_link
from moesim.hardware.shape import load_shape
from moesim.sim import Inputs, simulate
from moesim.trace.routing import read_routing

pytestmark = pytest.mark.bench

MODEL, DEVICE = "smollm2-135m-readme-int4", "h100-pcie5"
STEPS, ROUNDS = 2000, 3
POLICIES = {
    "lru": "lru",
    "lookahead queue": {"name": "lookahead", "level": "queue", "unknown": "persist"},
    "lookahead oracle": {"name": "lookahead", "level": "oracle"},
}


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    shape = load_shape(MODEL)
    trace = read_routing(shipped("traces", "routing", "smollm2-135m-decoupled.parquet"))
    return Inputs(trace, shape, load_costs(f"{DEVICE}-{MODEL}", shape=shape), load_link(DEVICE))


@pytest.mark.parametrize("slots", [4, 6])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("policy", POLICIES)
def test_steps_per_second(policy: str, scope: str, slots: int, inputs: Inputs) -> None:
    """Cache, link and batching on: a closed loop of 8 requests, decode first, demand loading, free schedule."""
    config = Experiment(
        name="bench",
        trace="shipped",
        model=MODEL,
        costs=DEVICE,
        link=DEVICE,
        memory={"slots": slots, "scope": scope},  # type: ignore[arg-type]
        traffic={"kind": "closed", "concurrency": 8, "requests": 10**6},  # type: ignore[arg-type]
        cache=POLICIES[policy],  # type: ignore[arg-type]
        steps=STEPS,
    )
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        result = simulate(config, inputs, 0)
        times.append(time.perf_counter() - begin)
    counters, median = result.counters, statistics.median(times)
    tokens = counters["prefill_tokens"] + counters["decode_tokens"]
    misses = counters["miss_keys_prefill"] + counters["miss_keys_decode"]
    print(
        f"\n{policy:17} {scope:6} {slots} slots: {STEPS / median:7,.0f} steps/s {tokens / median:8,.0f} tokens/s, "
        f"{misses / STEPS:5.1f} misses a step (median of {ROUNDS}, {min(times):.2f}-{max(times):.2f} s)"
    )
    assert counters["steps"] == STEPS
