"""Nothing is lost or counted twice, whatever runs: random small servers with every policy, checked after every step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.toy import run, trace
from moesim.policy import Handling, Missing, MissPolicy, names, register, registry
from moesim.sim import RunResult
from moesim.sim.cache import ExpertCache
from moesim.sim.misses import COUNTS
from moesim.trace.routing import RoutingTrace
from tests.sim.test_patterns import cases


def predicting(draw: st.DrawFn, case: dict[str, Any]) -> RoutingTrace:
    """The case's sequences, with what each gate guesses of the later layers, for a layer-wise router."""
    layers, experts, router = case.pop("layers"), case.pop("experts"), case.pop("router")
    case |= {"layers": layers, "experts": experts}
    sequences = case.pop("sequences")
    guesses = {}
    if router == "layerwise":
        tokens = sum(len(prompt) + len(output) for prompt, output in sequences)
        for distance in (1, 2):
            drawn = draw(st.lists(st.integers(0, experts - 1), min_size=tokens * layers, max_size=tokens * layers))
            guesses[distance] = np.array(drawn, dtype=np.int16).reshape(tokens, layers, 1)
            guesses[distance][:, max(0, layers - distance) :] = -1
    return trace(sequences, layers=layers, experts=experts, router=router, predicted=guesses)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data(), cases(), st.sampled_from(names("prefetch")), st.sampled_from([1, 2, 3]))
def test_every_step_balances(data: st.DataObject, case: dict[str, Any], prefetch: str, in_flight: int) -> None:
    layerwise = ("none", "speculative")
    case["prefetch"] = prefetch if case["router"] == "decoupled" or prefetch in layerwise else "speculative"
    case["machine"] = case["machine"] | {"copies_in_flight": in_flight}
    result = run(predicting(data.draw, case), **case)
    balances(result)
    counters = result.counters
    # Not <= demand_bytes: the planned prefetch of a missing key may start while the host is still submitting.
    absent = sum(counters[f"{c}_bytes_{phase}"] for c in ("miss", "late") for phase in ("prefill", "decode"))
    assert absent <= counters["demand_bytes"] + counters["prefetch_bytes"]
    assert not any(counters[name] for name in (*COUNTS, "cpu_stall_ns"))


class Whim(MissPolicy):
    """Anything may become of a missing key."""

    uses_cpu = True
    small_ratio = 0.35
    unpack_ns = 0.05
    cost_ns = 700

    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)

    def decide(self, missing: Sequence[Missing]) -> Sequence[Handling]:
        return [self.rng.choice(list(Handling)) for _ in missing]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.data(),
    cases(),
    st.sampled_from(names("prefetch")),
    st.sampled_from(["whim", "cpu-when-cheaper", {"name": "smaller-copy", "t1": None}]),
    st.integers(0, 2),
)
def test_every_step_balances_whatever_becomes_of_missing_keys(
    data: st.DataObject, case: dict[str, Any], prefetch: str, miss: Any, staging: int
) -> None:
    layerwise = ("none", "speculative")
    case["prefetch"] = prefetch if case["router"] == "decoupled" or prefetch in layerwise else "speculative"
    case["memory"] |= {"staging": staging}
    case["costs"] = replace(case["costs"], cpu=data.draw(st.integers(0, 900)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_registered", dict(registry._registered))
        register("whim")(Whim)
        result = run(predicting(data.draw, case), **case, miss=miss)
    balances(result)
    counters = result.counters
    handled = counters["cpu_keys"] + counters["small_keys"] + counters["skipped_keys"]
    assert handled <= counters["unique_keys"]
    assert counters["degraded_weight"] == 10**6 * counters["degraded_tokens"], "each token has one expert"
    assert counters["cpu_stall_ns"] <= counters["cpu_busy_ns"]
    assert counters["cpu_busy_ns"] <= counters["span_ns"]
    if miss == "cpu-when-cheaper":
        assert counters["degraded_tokens"] == counters["small_keys"] == 0
    elif miss != "whim":
        assert counters["cpu_keys"] == counters["skipped_keys"] == 0


def balances(result: RunResult) -> None:
    """What holds of every run. That parts and bytes add up is checked as it runs."""
    counters, steps = result.counters, result.steps
    keys = sum(steps[f"{c}_keys"] for c in ("reuse", "prefetch", "late", "miss"))
    assert keys.tolist() == steps["unique_keys"].tolist()
    asked = sum(r for r in (result.requests["prompt_tokens"] + result.requests["output_tokens"] - 1).tolist())
    assert counters["prefill_tokens"] + counters["decode_tokens"] == asked
    assert counters["output_tokens"] == int(result.requests["output_tokens"].sum())
    assert counters["wasted_bytes"] <= counters["prefetch_bytes"]


def test_a_copy_counted_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    make_room = ExpertCache.make_room

    def twice(cache: ExpertCache, key: int, demanded: bool) -> bool:
        cache.count.demand_loads += 1
        return make_room(cache, key, demanded)

    monkeypatch.setattr(ExpertCache, "make_room", twice)
    with pytest.raises(AssertionError, match="do not balance"):
        run([([0], [1])], check=False)
