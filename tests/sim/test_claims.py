"""What a frozen schedule lets one claim, on random small servers."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.toy import ToyCosts, run
from moesim.sim import RunResult

HISTORY = ("lru", "fifo", "lfu", "random")
STEP = {"name": "lookahead", "level": "step"}
QUEUE = {"name": "lookahead", "level": "queue", "unknown": "persist"}
ORACLE = {"name": "lookahead", "level": "oracle"}


def misses(result: RunResult) -> int:
    return int(result.steps["miss_keys"].sum())


@st.composite
def servers(draw: st.DrawFn) -> dict[str, Any]:
    experts, layers = draw(st.integers(2, 5)), draw(st.integers(1, 3))
    token = st.integers(0, experts - 1)
    sequence = st.tuples(st.lists(token, min_size=1, max_size=4), st.lists(token, min_size=1, max_size=8))
    sequences = draw(st.lists(sequence, min_size=2, max_size=6))
    requests = draw(st.integers(1, 3))
    return {
        "sequences": sequences,
        "layers": layers,
        "experts": experts,
        "scope": draw(st.sampled_from(["layer", "global"])),
        "traffic": {"kind": "all", "requests": len(sequences)},
        "scheduler": {"max_requests": requests, "max_tokens": draw(st.integers(requests, 6))},
        "schedule": "frozen",
        "costs": ToyCosts(expert=draw(st.sampled_from([0, 1, 100, 3000]))),
    }


def counted(result: RunResult) -> int:
    """Misses of the measured steps."""
    return int(result.steps["miss_keys"][result.steps["measured"]].sum())


def over_slots(case: dict[str, Any], cache: Any) -> list[RunResult]:
    """Results of one policy with 1, 2, ... slots a layer."""
    case = dict(case)
    sequences, scope = case.pop("sequences"), case.pop("scope")
    return [
        run(sequences, cache=cache, memory={"slots": n, "scope": scope}, check=False, **case)
        for n in range(1, case["experts"] + 1)
    ]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(servers())
def test_horizon_zero_is_lru(case: dict[str, Any]) -> None:
    plain = over_slots(case, "lru")
    for level in ("step", "queue", "oracle"):
        near = over_slots(case, {"name": "lookahead", "level": level, "horizon": 0})
        assert [lru.counters for lru in plain] == [lookahead.counters for lookahead in near]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(servers())
def test_nobody_beats_the_oracle_where_sets_fit_and_nobody_beats_the_bound(case: dict[str, Any]) -> None:
    oracle = over_slots(case, ORACLE)
    others = {str(cache): over_slots(case, cache) for cache in (*HISTORY, STEP, QUEUE)} | {"oracle": oracle}
    for slots, best in enumerate(oracle):
        bound = best.counters["min_miss_keys"]
        if not best.counters["waves"]:
            assert misses(best) == bound
        for name, results in others.items():
            assert misses(results[slots]) >= bound, name
            assert results[slots].counters["span_ns"] >= results[slots].counters["bound_transfer_ns"], name
            assert results[slots].counters["span_ns"] >= results[slots].counters["bound_resident_ns"], name


@settings(max_examples=60, deadline=None, derandomize=True)
@given(servers(), st.integers(1, 6))
def test_nobody_beats_the_bound_of_a_part(case: dict[str, Any], warmup: int) -> None:
    for cache in (*HISTORY, STEP, QUEUE, ORACLE):
        for result in over_slots(dict(case, warmup_steps=warmup), cache):
            counters = result.counters
            assert counted(result) >= counters["min_miss_keys"], cache
            assert counters["span_ns"] >= max(counters["bound_transfer_ns"], counters["bound_resident_ns"]), cache


def test_a_policy_that_paid_before_the_warmup_does_not_beat_the_bound() -> None:
    # LFU holds what the last step needs at the end of the warm-up; MIN over the whole run would have let it go.
    result = run([([0], [1, 1, 2, 0, 1, 0])], cache="lfu", schedule="frozen", warmup_steps=5)
    assert counted(result) == result.counters["min_miss_keys"] == 0


@settings(max_examples=60, deadline=None, derandomize=True)
@given(servers())
def test_misses_never_rise_with_the_cache(case: dict[str, Any]) -> None:
    for cache in ("lru", ORACLE):
        counts = [misses(r) for r in over_slots(case, cache)]
        assert counts == sorted(counts, reverse=True), cache


@settings(max_examples=40, deadline=None, derandomize=True)
@given(servers())
def test_decisions_under_demand_loading_do_not_depend_on_time(case: dict[str, Any]) -> None:
    """Where every event's set fits: same misses and evictions on a machine with other times."""
    slow = dict(case, costs=ToyCosts(launch=50, copy_submit=900, decision=7, expert=5000, attention=3))
    for cache in (*HISTORY, ORACLE):
        for one, other in zip(over_slots(case, cache), over_slots(slow, cache), strict=True):
            if not one.counters["waves"]:
                assert misses(one) == misses(other)
                assert one.counters["evictions"] == other.counters["evictions"]


def test_min_by_hand() -> None:
    # Two slots, one layer; uses 0 1 2 0 1 (the last output is never processed). MIN loads 0 and 1, then 2 for 1 (0 is
    # next), then 1 again for 2: four misses. LRU throws out 0, 1, 2 in turn: five.
    sequences = [([0], [1, 2, 0, 1, 1])]
    kwargs: dict[str, Any] = {"experts": 3, "schedule": "frozen"}
    assert misses(run(sequences, cache=ORACLE, **kwargs)) == 4
    assert misses(run(sequences, cache="lru", **kwargs)) == 5
