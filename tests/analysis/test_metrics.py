"""Every derived number against one worked out by hand."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.analysis import metrics

REQUESTS = {
    "arrival_ns": [0, 100, 200, 300, 400],
    "visible_ns": [10, 110, 210, 310, 410],
    "started_ns": [10, 150, 410, 320, -1],
    "first_token_ns": [50, 200, 600, 400, -1],
    "finished_ns": [250, 200, 900, -1, -1],
    "output_tokens": [5, 1, 4, 9, 2],
    "measured": [True, True, True, True, False],
    "left_measured": [False, True, True, False, False],
}

COUNTERS = {
    "steps": 4, "layer_events": 8, "output_tokens": 10, "span_ns": 2000, "unique_keys": 40, "attention_ns": 100,
    "rest_ns": 200, "gate_ns": 0, "router_ns": 50, "experts_ns": 250, "host_ns": 400, "miss_stall_ns": 700,
    "late_stall_ns": 200, "cpu_stall_ns": 0, "idle_ns": 100, "prefill_tokens": 30, "decode_tokens": 10,
    "degraded_tokens": 40, "degraded_weight": 20_000_000, "reuse_keys_prefill": 6, "reuse_keys_decode": 10,
    "prefetch_keys_prefill": 1, "prefetch_keys_decode": 3, "late_keys_prefill": 2, "late_keys_decode": 3,
    "miss_keys_prefill": 10, "miss_keys_decode": 5, "reuse_tokens_prefill": 60, "reuse_tokens_decode": 20,
    "prefetch_tokens_prefill": 5, "prefetch_tokens_decode": 5, "late_tokens_prefill": 0,
    "late_tokens_decode": 10, "miss_tokens_prefill": 50, "miss_tokens_decode": 10, "late_bytes_prefill": 20,
    "late_bytes_decode": 30, "miss_bytes_prefill": 100, "miss_bytes_decode": 50, "demand_bytes": 170,
    "prefetch_bytes": 90, "link_busy_ns": 1500, "bound_resident_ns": 900, "bound_transfer_ns": -1, "min_miss_keys": 12,
    "min_bytes": 120,
}  # fmt: skip


def test_shares_of_borrowed_routing_are_of_the_measured_tokens() -> None:
    counts = {"prompt_tokens": [5, 9, 6, 1, 8], "stitched_tokens": [4, 0, 2, 0, 9], "recycled_tokens": [0, 10, 2, 0, 9],
              "borrowed_tokens": [4, 10, 3, 0, 9]}  # fmt: skip
    # 21 prompt and 19 output tokens are measured; the last request is not.
    expected = {"stitched_share": 6 / 40, "recycled_share": 12 / 40, "borrowed_share": 17 / 40}
    assert metrics.borrowed(REQUESTS | counts) == expected
    assert expected.items() <= metrics.summarize(COUNTERS, REQUESTS | counts).items()
    assert metrics.borrowed(REQUESTS) == {}


def test_latencies_of_each_request() -> None:
    got = metrics.request_metrics(pd.DataFrame(REQUESTS))
    assert got["ttft_ns"].tolist() == [50, 100, 400, 100, pd.NA]
    assert got["e2e_ns"].tolist()[:3] == [250, 100, 700] and got["e2e_ns"].isna().tolist() == [False] * 3 + [True] * 2
    assert got["queueing_ns"].tolist() == [0, 40, 200, 10, pd.NA]
    assert got["tpot_ns"].tolist()[::2][:2] == [50.0, 100.0]
    assert got["tpot_ns"].isna().tolist() == [False, True, False, True, True]
    assert got["normalized_ns"].tolist()[:3] == [50.0, 100.0, 175.0]


def test_times_keep_every_nanosecond() -> None:
    late = 2**53 + 1  # a float64 has no such number
    row = {name: [0] for name in REQUESTS} | {"finished_ns": [late], "output_tokens": [1], "measured": [True]}
    assert metrics.request_metrics(pd.DataFrame(row))["e2e_ns"].tolist() == [late]
    assert metrics.latencies(row)["e2e_p99_ns"] == late


def test_latencies_over_measured_finished_requests() -> None:
    got = metrics.latencies(REQUESTS)
    assert (got["measured_requests"], got["finished_requests"]) == (4, 3)
    assert [got[f"ttft_{s}_ns"] for s in ("mean", "p50", "p95", "p99")] == [pytest.approx(550 / 3), 100, 400, 400]
    assert [got[f"tpot_{s}_ns"] for s in ("mean", "p50", "p95", "p99")] == [75.0, 50.0, 100.0, 100.0]
    assert [got[f"e2e_{s}_ns"] for s in ("mean", "p50", "p95")] == [350.0, 250, 700]
    assert [got[f"normalized_{s}_ns"] for s in ("mean", "p50", "p95")] == [pytest.approx(325 / 3), 100.0, 175.0]
    assert all(isinstance(got[f"{n}_p50_ns"], int) for n in ("ttft", "e2e"))


def test_frame_and_columns_give_the_same() -> None:
    assert metrics.summarize(COUNTERS, pd.DataFrame(REQUESTS)).items() >= metrics.latencies(REQUESTS).items()


def test_nothing_finished_leaves_nan() -> None:
    got = metrics.latencies(REQUESTS | {"measured": [False] * 5})
    assert got["finished_requests"] == 0
    assert all(math.isnan(v) for k, v in got.items() if k.endswith("_ns")) and len(got) == 2 + 5 * 4


def test_rates_per_token_step_and_event() -> None:
    assert metrics.per_token(COUNTERS) == {
        "misses_per_output_token": 2.0,
        "full_misses_per_output_token": 1.5,
        "miss_bytes_per_output_token": 20.0,
        "moved_bytes_per_output_token": 26.0,
        "ns_per_output_token": 200.0,
        "ns_per_step": 500.0,
        "unique_experts_per_event": 5.0,
        "unique_experts_per_step": 10.0,
    }


def test_shares_by_keys_tokens_and_time() -> None:
    assert metrics.shares(COUNTERS) == {
        "reuse_rate": 0.4, "prefetch_rate": 0.1, "late_rate": 0.125, "miss_rate": 0.375,
        "reuse_token_rate": 0.5, "prefetch_token_rate": 0.0625, "late_token_rate": 0.0625, "miss_token_rate": 0.375,
        "compute_share": 0.3, "host_share": 0.2, "miss_stall_share": 0.35, "late_stall_share": 0.1, "idle_share": 0.05,
        "cpu_stall_share": 0.0, "kv_stall_share": 0.0, "link_share": 0.75,
    }  # fmt: skip


def test_what_got_less_than_its_expert() -> None:
    # 40 of 160 tokens by key; the gate weight of 20 of 40 tokens x 2 layers, the counter being in millionths.
    assert metrics.degraded(COUNTERS) == {"degraded_token_share": 0.25, "degraded_weight_share": 0.25}
    nothing = COUNTERS | {"steps": 0, "layer_events": 0, "prefill_tokens": 0, "decode_tokens": 0}
    assert math.isnan(metrics.degraded(nothing)["degraded_weight_share"])


def test_bounds_are_blank_where_the_run_has_none() -> None:
    got = metrics.bounds(COUNTERS)
    assert got["bound_resident_ns_per_output_token"] == 90.0 and got["min_misses_per_output_token"] == 1.2
    assert got["min_bytes_per_output_token"] == 12.0 and math.isnan(got["bound_transfer_ns_per_output_token"])
    assert all(math.isnan(v) for v in metrics.bounds({"output_tokens": 5}).values())


def test_no_output_token_gives_nan_not_an_error() -> None:
    got = metrics.per_token(COUNTERS | {"output_tokens": 0})
    assert math.isnan(got["ns_per_output_token"]) and got["ns_per_step"] == 500.0


def test_throughput_is_of_the_span() -> None:
    got = metrics.throughput(COUNTERS, REQUESTS)
    assert got == {"throughput_tokens_per_s": 5e6, "throughput_requests_per_s": 1e6}, "two left in 2000 ns"
    nothing = metrics.throughput(COUNTERS | {"span_ns": 0}, REQUESTS | {"left_measured": [False] * 5})
    assert all(math.isnan(value) for value in nothing.values())


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1000)), max_size=60), st.sets(st.integers(0, 5)))
def test_gaps_are_those_of_each_counted_request_by_itself(tokens: list[tuple[int, int]], counted: set[int]) -> None:
    order = sorted(tokens, key=lambda token: token[1])
    of = {r: [at for request, at in order if request == r] for r in sorted(counted)}
    table = {"request": range(6), "measured": [r in counted for r in range(6)], "finished_ns": [0] * 6}
    columns = {"request": [r for r, _ in order], "at_ns": [at for _, at in order]}
    got = metrics.gaps(table, columns).tolist()
    assert got == [later - at for times in of.values() for at, later in pairwise(times)]
    unfinished = metrics.gaps(table | {"finished_ns": [-1] * 6}, columns)
    assert not len(unfinished)



@given(st.lists(st.integers(0, 10**15), min_size=1, max_size=60), st.sampled_from([1, 50, 95, 99, 100]))
def test_percentile_is_the_smallest_that_covers_its_share(values: list[int], p: int) -> None:
    ranked = sorted(values)
    got = metrics.percentile(ranked, p)
    covers = {v: Fraction(sum(x <= v for x in values), len(values)) >= Fraction(p, 100) for v in values}
    assert got == min(v for v, enough in covers.items() if enough)
