"""Hand-computed timelines. Unless said otherwise: attention 10, expert kernel 100, a key 1000 bytes = 1000 ns."""

from __future__ import annotations

import pytest

from moesim.check.toy import ToyCosts, ToyLink, classes, ends, run


def test_a_miss_waits_for_its_copy_and_a_hit_does_not() -> None:
    # attention 10, copy 1000, kernel 100; then 10 + 100.
    result = run([([0], [0, 0])])
    assert ends(result) == [1110, 1220]
    assert classes(result) == {"reuse": 1, "miss": 1}
    assert result.counters["miss_stall_ns"] == 1000


def test_parts_of_a_step_add_up() -> None:
    costs = ToyCosts(launch=3, sync=7, copy_submit=2, decision=5, router_ns=11, sample=13)
    result = run([([0, 1], [0, 1, 2])], costs=costs, layers=2)
    parts = sum(result.steps[f"{p}_ns"] for p in
                ("attention", "rest", "gate", "router", "experts", "host", "miss_stall", "late_stall"))  # fmt: skip
    assert parts.tolist() == (result.steps["end_ns"] - result.steps["start_ns"]).tolist()


def test_host_timeline_of_a_decoupled_step() -> None:
    # The prompt's route is visible at 11 (router). Then: decision 5, launch 3, attention 10 -> 29; the miss is
    # submitted 2 later and copied until 1031; launch 3, kernel 100 -> 1134; launch hidden, sampling 13 -> 1147;
    # read back 7 -> 1154. The request has one token and goes.
    costs = ToyCosts(launch=3, sync=7, copy_submit=2, decision=5, router_ns=11, sample=13)
    result = run([([0], [0])], costs=costs)
    assert result.steps["start_ns"].tolist() == [11]
    assert ends(result) == [1154]
    assert result.requests["first_token_ns"].tolist() == [1154]
    assert result.counters["host_ns"] == 5 + 3 + 2 + 3 + 7
    assert result.counters["miss_stall_ns"] == 1000


def test_sampled_tokens_are_routed_on_the_critical_path() -> None:
    costs = ToyCosts(router_ns=11, sample=13)
    result = run([([0], [0, 0])], costs=costs)
    # 11 visible; 10 + 1000 + 100 + 13 = token at 1134; routed until 1145; 10 + 100 + 13 = 1268, nothing to route.
    assert ends(result) == [1145, 1268]
    assert result.requests["first_token_ns"].tolist() == [1134]


def test_a_side_router_keeps_the_token_but_not_the_step() -> None:
    costs = ToyCosts(router_ns=11, sample=13)
    result = run([([0], [0, 0])], costs=costs, machine={"chunk_bytes": 1000, "router": "side"})
    assert result.steps["start_ns"].tolist() == [11, 1145]
    assert ends(result) == [1134, 1268]
    assert result.counters["idle_ns"] == 11


def test_a_layerwise_gate_comes_back_to_the_host_before_anything_is_demanded() -> None:
    costs = ToyCosts(launch=3, sync=7)
    result = run([([[0, 1]], [[0, 1]])], layers=2, router="layerwise", costs=costs)
    # Each layer: launch 3 + attention 10, gate 5 (launch hidden), sync 7, copy 1000, launch 3, kernel 100 = 1128;
    # in the second layer the launch of attention is hidden behind the kernel before it: 1125. Last sync 7.
    assert ends(result) == [1128 + 1125 + 7]
    assert result.counters["gate_ns"] == 10


def test_eager_runs_what_is_there_while_the_rest_is_copied() -> None:
    # The first prompt loads 0 and 1: copies end at 1010 and 2010, kernels end at 1110 and 2110.
    # The second needs 1 and 2: attention -2120, 1 runs -2220 while 2 is copied 2120-3120, kernel -3220.
    result = run([([0, 1], [0]), ([1, 2], [1])], traffic={"kind": "all", "requests": 2})
    assert ends(result) == [2110, 3220]
    assert classes(result) == {"reuse": 1, "miss": 3}
    assert result.counters["miss_stall_ns"] == 1000 + 900 + 900


@pytest.mark.parametrize(("start", "end"), [("eager", 2110), ("barrier", 2210), ("index", 2110)])
def test_expert_start(start: str, end: int) -> None:
    # Two misses: copies end at 1010 and 2010. Eager and index overlap the first kernel with the second copy.
    result = run([([0, 1], [0])], machine={"chunk_bytes": 1000, "expert_start": start})
    assert ends(result) == [end]


def test_one_slot_and_five_experts_run_in_waves() -> None:
    # One key fits. Copy 1000 then kernel 100, five times, and nothing overlaps: 10 + 5 * 1100.
    result = run([([0, 1, 2, 3, 4], [0])], experts=5, memory={"slots": 1, "scope": "layer"})
    assert ends(result) == [10 + 5 * 1100]
    assert result.counters["waves"] == 1
    assert result.counters["evictions"] == 4


def test_waves_overlap_with_two_slots() -> None:
    # Slots A, B. Copies: 0 10-1010, 1 1010-2010; 0 runs 1010-1110 and leaves; 2 copied 2010-3010, 1 runs 2010-2110.
    result = run([([0, 1, 2], [0])])
    assert ends(result) == [3110]


def test_index_order_reloads_what_made_room_for_an_earlier_expert() -> None:
    # Slots hold 2 and 3 (loaded by the prompt). The next step needs 1, 2 and 3 in order: 1 must push one of them out.
    first = run([([2, 3], [2]), ([1, 2, 3], [1])], traffic={"kind": "all", "requests": 2},
                machine={"chunk_bytes": 1000, "expert_start": "index"})  # fmt: skip
    second = first.steps
    assert second["miss_keys"].tolist() == [2, 1]
    assert second["demand_bytes"].tolist() == [2000, 2000]


def test_prefetch_of_the_next_layer_hides_behind_the_kernel() -> None:
    # Asked at step start: the first layer's key is copied 0-1000 and late at 10; kernel -1100. The next layer's key is
    # planned at 10 and copied 1000-2000; its attention ends at 1110: late, kernel 2000-2100.
    result = run([([0], [0])], layers=2, prefetch="next-layer")
    assert ends(result) == [2100]
    assert classes(result) == {"late": 2}
    assert result.counters["late_stall_ns"] == 990 + 890


def test_a_prefetch_that_lands_while_the_host_submits_is_not_loaded_again() -> None:
    # Asked at 0, the first key is submitted until 20 and copied 20-1020. The gate is at 1010 with 10 bytes to go: late.
    # The host takes 20 for its submission, and by 1030 the key is there; kernel -1130.
    costs = ToyCosts(attention=1010, copy_submit=20)
    result = run([([0], [0])], prefetch="next-layer", costs=costs)
    assert classes(result) == {"late": 1}
    assert result.counters["demand_bytes"] + result.counters["prefetch_bytes"] == 1000
    assert ends(result) == [1130]


def test_prefetch_in_time_is_a_prefetch_hit_and_then_a_reuse_hit() -> None:
    costs = ToyCosts(expert=5000)
    result = run([([0], [0, 0])], layers=2, prefetch="next-layer", costs=costs)
    assert classes(result) == {"late": 1, "prefetch": 1, "reuse": 2}
    assert result.counters["prefetch_bytes"] == 2000
    assert result.counters["wasted_bytes"] == 0


def test_chunks_pay_their_fixed_cost() -> None:
    result = run([([0], [0])], link=ToyLink(fixed=50), machine={"chunk_bytes": 300})
    assert ends(result) == [10 + 1000 + 4 * 50 + 100]


def test_a_prefetch_never_evicts_what_is_needed_no_later() -> None:
    # One slot a layer and two experts in each layer event: a prefetch of the second would push out the first.
    result = run([([0, 1], [0])], layers=2, memory={"slots": 1, "scope": "layer"}, prefetch="step-ahead")
    assert result.counters["wasted_bytes"] == 0
    assert result.counters["demand_bytes"] + result.counters["prefetch_bytes"] == 4000
