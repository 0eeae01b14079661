"""The life of requests by hand; a replay against the server that it was recorded from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.toy import ToyCosts, ToyLink, as_requests, config, run, trace
from moesim.policy import Queued
from moesim.sim import RunResult
from moesim.sim.forecast import Forecaster
from moesim.sim.work import Part
from moesim.sim.workload import Workload

TIMES = ("arrival_ns", "visible_ns", "started_ns", "first_token_ns", "finished_ns")
PARTS = ("attention", "rest", "gate", "router", "experts", "host", "miss_stall", "late_stall", "cpu_stall")


@dataclass(frozen=True)
class InstantLink(ToyLink):
    """Copies take no time: nothing depends on what the cache holds."""

    def copy(self, bytes: int) -> int:
        return 0


def lives(result: RunResult) -> list[tuple[int, ...]]:
    """Arrival, visible, started, first token, finished of each request."""
    return list(zip(*(result.requests[name].tolist() for name in TIMES), strict=True))


# ---- by hand: attention 10, an expert kernel 100, a copy 1000


def test_all_at_once() -> None:
    # One request a step. Prompt 0: 10 + 1000 + 100 = 1110, its second token 110 later; then the prompt of request 1.
    result = run(as_requests([([0], [0, 0]), ([1], [1])]), traffic={"kind": "all", "requests": 2})
    assert lives(result) == [(0, 0, 0, 1110, 1220), (0, 0, 1220, 2330, 2330)]
    assert result.counters["requests_finished"] == 2
    assert result.counters["output_tokens"] == 3
    assert result.steps["decode_tokens"].tolist() == [0, 1, 0]


def test_a_closed_loop_sends_the_next_request_when_one_is_answered() -> None:
    # Two users, two requests a step. Prompts of 0 and 1 together: attention 20, copies -1020 and -2020, kernels -1120
    # and -2120. Request 0 has one token and goes; request 2 comes then and runs beside the decode of 1: attention 20,
    # 1 runs -2240 while 2 is copied -3140, kernel -3240: both are done.
    result = run(
        as_requests([([0], [3]), ([1], [1, 3]), ([2], [3])]),
        traffic={"kind": "closed", "concurrency": 2, "requests": 3},
        scheduler={"max_requests": 2},
    )
    assert lives(result) == [(0, 0, 0, 2120, 2120), (0, 0, 0, 2120, 3240), (2120, 2120, 2120, 3240, 3240)]


def test_poisson_arrivals_far_apart_are_served_one_by_one_and_the_waits_are_idle_time() -> None:
    traffic = {"kind": "poisson", "rate": 1.0, "requests": 3}
    sequences = as_requests([([0], [0, 0])] * 3)
    drawn = Workload(trace(sequences), config(traffic=traffic).traffic, 0, 0, 1)
    at = [drawn[n].arrival for n in range(3)]
    result = run(sequences, traffic=traffic, costs=ToyCosts(router_ns=7, sample=13))
    # Routed 7 after it came. The first misses: 10 + 1000 + 100 + 13 is its first token, 7 to route the next, then 123.
    later = [(a, a + 7, a + 7, a + 7 + 123, a + 7 + 123 + 7 + 123) for a in at[1:]]
    assert lives(result) == [(at[0], at[0] + 7, at[0] + 7, at[0] + 1130, at[0] + 1260), *later]
    assert result.counters["idle_ns"] == at[2] + 7 - (at[0] + 7) - 1253 - 253
    assert result.counters["router_ns"] == 3 * 7


def test_a_prompt_is_schedulable_once_it_is_routed_in_order_of_arrival() -> None:
    # The router takes 40 a prompt, one after another. The step of request 0 begins at 40, without request 1.
    result = run(
        as_requests([([0], [0]), ([0], [0])]),
        traffic={"kind": "all", "requests": 2},
        scheduler={"max_requests": 2},
        costs=ToyCosts(router_ns=40),
    )
    assert lives(result) == [(0, 40, 40, 1150, 1150), (0, 80, 1150, 1260, 1260)]


def test_a_layerwise_router_does_not_route_in_advance() -> None:
    result = run(
        as_requests([([0], [0]), ([0], [0])]),
        traffic={"kind": "all", "requests": 2},
        scheduler={"max_requests": 2},
        costs=ToyCosts(router_ns=40),
        router="layerwise",
    )
    assert lives(result) == [(0, 0, 0, 1125, 1125)] * 2  # 2 * 10, gate 5, 1000, 100


def test_a_prompt_in_chunks_gives_its_first_token_after_the_last() -> None:
    result = run([([0] * 5, [0])], scheduler={"max_requests": 1, "max_tokens": 2})
    assert result.steps["prefill_tokens"].tolist() == [2, 2, 1]
    assert lives(result) == [(0, 0, 0, 1330, 1330)]
    assert result.counters["output_tokens"] == 1


def test_the_run_ends_after_the_steps_it_may_take() -> None:
    result = run([([0], [0] * 9)], steps=4, traffic={"kind": "closed", "concurrency": 1, "requests": 5})
    assert result.counters["steps"] == 4
    assert lives(result) == [(0, 0, 0, 1110, -1)]
    assert result.counters["requests_finished"] == 0
    assert result.counters["output_tokens"] == 4


def test_the_warm_up_is_not_counted() -> None:
    # Steps: prompt of 0 (miss), its decode, prompt of 1 (miss), its decode. After two steps: one miss, two tokens.
    result = run(as_requests([([0], [0, 0]), ([1], [1, 1])]), traffic={"kind": "all", "requests": 2}, warmup_steps=2)
    counters = result.counters
    assert (counters["steps"], counters["layer_events"], counters["output_tokens"]) == (2, 2, 2)
    assert (counters["miss_keys_prefill"], counters["reuse_keys_decode"], counters["demand_bytes"]) == (1, 1, 1000)
    assert (counters["span_ns"], counters["miss_stall_ns"]) == (1220, 1000)
    assert counters["requests_finished"] == 1
    assert result.requests["measured"].tolist() == [False, True]
    assert result.steps["measured"].tolist() == [False, False, True, True]
    assert len(result.steps["step"]) == 4


def test_a_run_shorter_than_its_warm_up_measures_nothing() -> None:
    result = run([([0], [0])], warmup_steps=5)
    assert {result.counters[name] for name in ("steps", "span_ns", "output_tokens", "demand_bytes", "idle_ns")} == {0}
    assert not result.requests["measured"].any()


@pytest.mark.parametrize("schedule", ["free", "frozen"])
def test_progress_is_told_every_hundred_steps(schedule: str) -> None:
    told: list[int] = []
    run([([0], [0] * 250)], schedule=schedule, progress=told.append)
    assert told == [100, 200]


# ---- oracles


@pytest.mark.parametrize("unknown", ["farthest", "persist"])
@pytest.mark.parametrize(("schedule", "label"), [("free", "oracle, not a bound"), ("frozen", "oracle")])
def test_an_oracle_runs_and_is_labelled(schedule: str, label: str, unknown: str) -> None:
    cache = {"name": "lookahead", "level": "oracle", "unknown": unknown}
    # Uses 0 1 2 0 1: MIN misses four times, LRU five (test_claims).
    result = run([([0], [1, 2, 0, 1, 1])], cache=cache, schedule=schedule)
    assert result.labels["oracle"] == label
    assert int(result.steps["miss_keys"].sum()) == 4
    lru = run([([0], [1, 2, 0, 1, 1])], cache="lru", schedule=schedule)
    assert (lru.labels["oracle"], int(lru.steps["miss_keys"].sum())) == ("", 5)


def test_two_oracles_of_a_free_run_see_the_same(tmp_path: Any) -> None:
    """A cache and a prefetcher, with assumptions of their own about what an oracle knows anyway."""
    path = tmp_path / "knowing.py"
    path.write_text(
        "from moesim.policy import PrefetchPolicy, register\n\n\n"
        '@register("knowing")\nclass Knowing(PrefetchPolicy):\n    """."""\n\n    level = "oracle"\n\n'
        "    def plan(self):\n        return ()\n"
    )
    sequences = [([0, 1], [1, 2, 0, 1, 1, 2, 3, 0]), ([3], [2, 1, 0, 3, 3])]
    traffic = {"kind": "all", "requests": 2}
    alone, beside = (
        run(sequences, cache={"name": "lookahead", "level": "oracle", "unknown": "persist"}, traffic=traffic, **other)
        for other in ({}, {"prefetch": str(path)})
    )
    assert alone.steps["miss_keys"].tolist() == beside.steps["miss_keys"].tolist()


# ---- a replay does what the server did, where nothing depends on what the cache holds


@st.composite
def servers(draw: st.DrawFn) -> dict[str, Any]:
    token = st.integers(0, 3)
    sequence = st.tuples(st.lists(token, min_size=1, max_size=7), st.lists(token, min_size=1, max_size=5))
    sequences = draw(st.lists(sequence, min_size=1, max_size=7))
    requests = draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["all", "closed", "poisson"]))
    extra = {"closed": {"concurrency": draw(st.integers(1, 4))}, "poisson": {"rate": draw(st.sampled_from([1e6, 4e6]))}}
    return {
        "sequences": sequences,
        "layers": draw(st.integers(1, 2)),
        "traffic": {"kind": kind, "requests": len(sequences), **extra.get(kind, {})},
        "scheduler": {
            "batch": draw(st.sampled_from(["decode-first", "prefill-first", "expert-aware", "expert-aware-aged"])),
            "max_requests": requests,
            "max_tokens": draw(st.integers(1, 8)),
        },
        "machine": {"chunk_bytes": 1000, "router": draw(st.sampled_from(["critical", "side"]))},
        "costs": ToyCosts(router_ns=draw(st.sampled_from([0, 35, 400])), sample=draw(st.sampled_from([0, 13]))),
        "link": InstantLink(),
    }


@settings(max_examples=150, deadline=None, derandomize=True)
@given(servers(), st.one_of(st.just(1000), st.integers(1, 8)))
def test_a_replay_is_the_server_itself_where_nothing_depends_on_time(case: dict[str, Any], steps: int) -> None:
    sequences = case.pop("sequences")
    free, frozen = (run(sequences, schedule=schedule, steps=steps, **case) for schedule in ("free", "frozen"))
    for table, other in ((free.steps, frozen.steps), (free.requests, frozen.requests)):
        for name, column in table.items():
            assert column.tolist() == other[name].tolist(), name
    bounds = ("bound_resident_ns", "min_miss_keys", "min_bytes", "bound_transfer_ns")
    assert {n: c for n, c in free.counters.items() if n not in bounds} == {
        n: c for n, c in frozen.counters.items() if n not in bounds
    }


@settings(max_examples=150, deadline=None, derandomize=True)
@given(servers(), st.booleans())
def test_level_queue_sees_the_same_queue_in_a_replay(case: dict[str, Any], persist: bool) -> None:
    """Requests and tokens in the order in which they became visible, and nothing that was not yet."""
    sequences = case.pop("sequences")
    unknown = "persist" if persist else "farthest"
    cache = {"name": "lookahead", "level": "queue", "unknown": unknown}
    seen: list[list[Any]] = []
    steps = Forecaster.steps

    def spy(self: Forecaster, queue: list[Queued], running: tuple[Part, ...], persist: bool) -> Any:
        seen[-1].append(([(q.request, q.position, q.known, q.skipped) for q in queue], running))
        return steps(self, queue, running, persist)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forecaster, "steps", spy)
        for schedule in ("free", "frozen"):
            seen.append([])
            run(sequences, schedule=schedule, cache=cache, **case)
    assert seen[0] == seen[1]
    assert len(seen[0]) > 0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(servers(), st.integers(0, 3), st.booleans())
def test_every_request_and_every_nanosecond_is_accounted_for(case: dict[str, Any], warmup: int, slow: bool) -> None:
    sequences = case.pop("sequences")
    case["link"] = ToyLink() if slow else case["link"]
    result = run(sequences, warmup_steps=warmup, **case)
    counters, steps = result.counters, result.steps
    assert sum(counters[f"{part}_ns"] for part in PARTS) + counters["idle_ns"] == counters["span_ns"]
    assert np.array_equal(sum(steps[f"{part}_ns"] for part in PARTS), steps["end_ns"] - steps["start_ns"])
    assert (steps["start_ns"][1:] >= steps["end_ns"][:-1]).all()
    for arrival, visible, started, first, finished in lives(result):
        assert 0 <= arrival <= visible <= started < first <= finished
    assert sorted(result.requests["request"]) == list(range(len(sequences)))
    assert int(steps["prefill_tokens"].sum()) == int(result.requests["prompt_tokens"].sum())
    assert int(steps["decode_tokens"].sum()) == int(result.requests["output_tokens"].sum()) - len(sequences)
