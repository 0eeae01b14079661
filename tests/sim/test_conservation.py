"""Nothing is lost or counted twice, whatever runs: random small servers with every policy, checked after every step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.toy import run
from moesim.policy import names
from moesim.sim.cache import ExpertCache
from tests.sim.test_patterns import cases


@settings(max_examples=200, deadline=None, derandomize=True)
@given(cases(), st.sampled_from(names("prefetch")), st.sampled_from([1, 2, 3]))
def test_every_step_balances(case: dict[str, Any], prefetch: str, in_flight: int) -> None:
    case["prefetch"] = prefetch if case["router"] == "decoupled" else "none"
    case["machine"] = case["machine"] | {"copies_in_flight": in_flight}
    result = run(case.pop("sequences"), **case)
    counters, steps = result.counters, result.steps
    keys = sum(steps[f"{c}_keys"] for c in ("reuse", "prefetch", "late", "miss"))
    assert keys.tolist() == steps["unique_keys"].tolist()
    asked = sum(r for r in (result.requests["prompt_tokens"] + result.requests["output_tokens"] - 1).tolist())
    assert counters["prefill_tokens"] + counters["decode_tokens"] == asked
    assert counters["output_tokens"] == int(result.requests["output_tokens"].sum())
    # Not <= demand_bytes: the planned prefetch of a missing key may start while the host is still submitting.
    absent = sum(counters[f"{c}_bytes_{phase}"] for c in ("miss", "late") for phase in ("prefill", "decode"))
    assert absent <= counters["demand_bytes"] + counters["prefetch_bytes"]
    assert counters["wasted_bytes"] <= counters["prefetch_bytes"]


def test_a_copy_counted_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    make_room = ExpertCache.make_room

    def twice(cache: ExpertCache, key: int, demanded: bool) -> bool:
        cache.count.demand_loads += 1
        return make_room(cache, key, demanded)

    monkeypatch.setattr(ExpertCache, "make_room", twice)
    with pytest.raises(AssertionError, match="do not balance"):
        run([([0], [1])], check=False)
