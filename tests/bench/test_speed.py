"""How fast the simulator is, compiled and in Python: `pytest -m bench -s tests/bench`. It reports and judges nothing.

Read-ME shape: 30 layers x 7 experts, the shipped decoupled routing. Large shape: 48 layers x 128 experts, top 8 in
every layer (Qwen3-30B-A3B's sizes), routing SYNTHETIC (sticky): a control, as no captured routing of that size is
shipped. Everything on: cache, link, batching, a closed loop, demand loading; a figure is the median of ROUNDS runs.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moesim.experiment import Experiment
from moesim.files import shipped
from moesim.hardware.costs import CostTable, load_costs
from moesim.hardware.files import CostFile
from moesim.hardware.link import load_link
from moesim.hardware.roofline import document
from moesim.hardware.shape import ModelShape, load_shape
from moesim.sim import Inputs, simulate
from moesim.trace.routing import read_routing
from moesim.trace.synthetic import synthetic

pytestmark = pytest.mark.bench

MODEL, DEVICE = "smollm2-135m-readme-int4", "h100-pcie5"
ROUNDS = 3
PLAIN = str(Path(__file__).with_name("plain_lru.py"))
QUEUE = {"name": "lookahead", "level": "queue", "unknown": "persist"}
ORACLE = {"name": "lookahead", "level": "oracle"}
POLICIES: dict[str, Any] = {"lru": "lru", "fifo": "fifo", "lfu": "lfu", "queue": QUEUE, "oracle": ORACLE}


@pytest.fixture(scope="module")
def readme() -> Inputs:
    shape = load_shape(MODEL)
    trace = read_routing(shipped("traces", "routing", "smollm2-135m-decoupled.parquet"))
    return Inputs(trace, shape, load_costs(f"{DEVICE}-{MODEL}", shape=shape), load_link(DEVICE))


@pytest.fixture(scope="module")
def large() -> Inputs:
    shape = ModelShape(
        name="qwen3-30b-a3b", layers=48, d_model=2048, expert_width=768, experts=128, top_k=8, heads=32, kv_heads=4,
        head_dim=128, vocab=151936,
    )  # fmt: skip
    costs = CostTable(CostFile.model_validate(document(shape, DEVICE)), "roofline", allow_extrapolation=True)
    trace = synthetic(
        "sticky", layers=48, experts=128, k=8, router="layerwise", sequences=64, prompt_tokens=32, output_tokens=96,
        persistence=0.5, key_bytes=shape.key_bytes,
    )  # fmt: skip
    return Inputs(trace, shape, costs, load_link(DEVICE))


def config(cache: Any, memory: dict[str, Any], *, users: int = 8, requests: int = 10**6, **changes: Any) -> Experiment:
    plain: dict[str, Any] = {
        "name": "bench",
        "trace": "bench",
        "model": MODEL,
        "costs": DEVICE,
        "link": DEVICE,
        "memory": memory,
        "traffic": {"kind": "closed", "concurrency": users, "requests": requests},
        "scheduler": {"max_requests": users},
        "cache": cache,
    }
    return Experiment(**(plain | changes))


def rate(made: Experiment, inputs: Inputs, compiled: bool) -> tuple[float, float]:
    """Steps per second, the median of ROUNDS; and keys missed a step."""
    if made.schedule == "frozen":
        simulate(made, inputs, 0, compiled=compiled)  # records the schedule and what depends on it alone
    times = []
    for _ in range(ROUNDS):
        gc.collect()
        begin = time.perf_counter()
        counters = simulate(made, inputs, 0, compiled=compiled).counters
        times.append(time.perf_counter() - begin)
    steps = counters["steps"]
    assert steps == made.steps
    return steps / statistics.median(times), (counters["miss_keys_prefill"] + counters["miss_keys_decode"]) / steps


@pytest.fixture(scope="module", autouse=True)
def loaded(readme: Inputs) -> Iterator[None]:
    """The compiled code is there before anything is timed; how long that took is worth a line."""
    begin = time.perf_counter()
    simulate(config("lru", {"slots": 4}, steps=1), readme, 0, compiled=True)
    print(f"\nloading or making the compiled code: {time.perf_counter() - begin:.2f} s")
    yield


def report(name: str, made: Experiment, inputs: Inputs, python_steps: int) -> None:
    """Both ways, `python_steps` of them in Python."""
    fast, misses = rate(made, inputs, True)
    slow, _ = rate(made.model_copy(update={"steps": python_steps}), inputs, False)
    where = f"{made.schedule:6} {made.memory.scope:6} {made.memory.slots or made.memory.share}"
    print(f"\n{name:22} {where}: compiled {fast:9,.1f} steps/s, Python {slow:9,.1f}, {misses:7.1f} misses a step")


@pytest.mark.parametrize("slots", [4, 6])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("schedule", ["free", "frozen"])
@pytest.mark.parametrize("cache", POLICIES)
def test_read_me_shape(cache: str, schedule: str, scope: str, slots: int, readme: Inputs) -> None:
    made = config(POLICIES[cache], {"slots": slots, "scope": scope}, schedule=schedule, steps=4000)
    report(cache, made, readme, 600)


@pytest.mark.parametrize("slots", [4, 6])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("prefetch", ["none", "next-layer", "step-ahead"])
def test_plain_python(prefetch: str, scope: str, slots: int, readme: Inputs) -> None:
    """A cache policy as a user writes it, and prefetchers: all in Python."""
    steps = 1500 if prefetch == "none" else 300
    made = config(PLAIN, {"slots": slots, "scope": scope}, prefetch=prefetch, steps=steps)
    found, misses = rate(made, readme, False)
    print(f"\nplain lru, {prefetch:11} {scope:6} {slots}: {found:9,.1f} steps/s, {misses:7.1f} misses a step")


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(("users", "steps"), [(1, 400), (8, 150), (32, 60)])
@pytest.mark.parametrize("cache", ["lru", "lfu", "oracle"])
def test_large_shape(cache: str, users: int, steps: int, scope: str, large: Inputs) -> None:
    schedule = "frozen" if cache == "oracle" else "free"
    made = config(POLICIES[cache], {"share": 0.5, "scope": scope}, users=users, schedule=schedule, steps=steps)
    report(f"large {cache}, batch {users}", made, large, max(3, steps // 30))


@pytest.mark.parametrize("compiled", [True, False])
def test_memory(compiled: bool, readme: Inputs) -> None:
    """Most memory that Python and numpy hold at once, above what was held before; per step and request."""
    cache = "lru" if compiled else PLAIN
    for steps, requests in ((1000, 100), (1000, 1000), (1000, 10_000), (4000, 10_000)):
        made = config(cache, {"slots": 6}, requests=requests, steps=steps)
        simulate(made.model_copy(update={"steps": 50}), readme, 0, compiled=compiled)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        result = simulate(made, readme, 0, compiled=compiled)
        most = tracemalloc.get_traced_memory()[1] - before
        tracemalloc.stop()
        came = len(result.requests["request"])
        print(
            f"\n{'compiled' if compiled else 'Python':8} {requests:6} requests, {came:5} came, {steps} steps: "
            f"{most / 2**20:6.2f} MiB at most, {most / steps:,.0f} bytes a step"
        )
