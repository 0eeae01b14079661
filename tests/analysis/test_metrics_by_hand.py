"""Every metric of docs/metrics.md, from servers so small that their times are worked out in the comments.

Attention takes 10 ns a part, an expert's kernel 100, a copy 1000; one layer, decode-first, two requests a step.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moesim.analysis.metrics import gaps, request_metrics, summarize
from moesim.analysis.objective import keeps
from moesim.check import toy
from moesim.experiment import Objective
from moesim.sim import Inputs, RunResult, simulate
from moesim.trace.arrivals import Arrivals, ArrivalsMeta

DOCS = Path(__file__).parents[2] / "docs"

# Four requests, each of a domain of its own so that its routing is known; prompt, output, ns of arrival.
SEQUENCES = [([0], [0, 0, 0]), ([1], [1, 1]), ([0], [0]), ([2], [2, 2])]
ARRIVE = [0, 500, 2000, 5000]
# step  starts  ends  what
#    0       0  1110  A's prompt: attention -10, copy of expert 0 -1010, its kernel -1110
#    1    1110  2230  A's token and B's prompt: attention -20 (1130), kernel of 0 -1230, copy of 1 -2130, its kernel
#    2    2230  2440  A's and B's last: attention -10, both kernels. C has come at 2000; the step is full
#    3    2440  2550  C's prompt, one token: attention, kernel of 0
#    4    5000  6110  D's prompt: attention, copy of expert 2 -6010, kernel
#    5    6110  6220  D's last
TOKENS = {"A": [1110, 2230, 2440], "B": [2230, 2440], "C": [2550], "D": [6110, 6220]}


def served(costs: toy.ToyCosts | None = None, **changes: Any) -> RunResult:
    """The four requests on a server with four slots."""
    count = len(SEQUENCES)
    lengths = [np.array([len(s[part]) for s in SEQUENCES], np.int32) for part in (0, 1)]
    arrivals = Arrivals(
        arrival=np.array(ARRIVE, np.int64), prompt=lengths[0], output=lengths[1],
        meta=ArrivalsMeta(name="four", label="synthetic", requests=count), domains=tuple("abcd"),
    )  # fmt: skip
    trace = toy.trace(SEQUENCES, domains=tuple("abcd"))
    inputs = Inputs(trace, toy.shape(), costs or toy.ToyCosts(), toy.ToyLink(), arrivals)  # type: ignore[arg-type]
    plain: dict[str, Any] = {
        "traffic": {"kind": "trace", "arrivals": "four.parquet", "requests": count},
        "scheduler": {"batch": "decode-first", "max_tokens": 64, "max_requests": 2},
        "memory": {"slots": 4, "scope": "layer"},
    }
    return simulate(toy.config(**(plain | changes)), inputs, 0, check=True)


def measured(result: RunResult, objective: Objective | None = None) -> dict[str, Any]:
    return summarize(result.counters, result.requests, result.tokens, objective)


@pytest.fixture(scope="module")
def run() -> RunResult:
    return served()


@pytest.fixture(scope="module")
def found(run: RunResult) -> dict[str, Any]:
    return measured(run)


def statistics(found: dict[str, Any], name: str) -> list[float]:
    return [found[f"{name}_{statistic}_ns"] for statistic in ("mean", "p50", "p95", "p99")]


def test_the_server_is_the_one_of_the_comments(run: RunResult) -> None:
    assert run.steps["start_ns"].tolist() == [0, 1110, 2230, 2440, 5000, 6110]
    assert run.steps["end_ns"].tolist() == [1110, 2230, 2440, 2550, 6110, 6220]
    assert run.requests["first_token_ns"].tolist() == [times[0] for times in TOKENS.values()]
    assert run.requests["finished_ns"].tolist() == [times[-1] for times in TOKENS.values()]
    tokens = zip(run.tokens["request"].tolist(), run.tokens["at_ns"].tolist(), strict=True)
    assert sorted(tokens) == [(number, at) for number, times in enumerate(TOKENS.values()) for at in times]


# ---- latencies: of four values the median is the second, the 95th and 99th percentile the fourth


def test_ttft(found: dict[str, Any]) -> None:
    # 1110 - 0, 2230 - 500, 2550 - 2000, 6110 - 5000
    assert statistics(found, "ttft") == [(1110 + 1730 + 550 + 1110) / 4, 1110, 1730, 1730]


def test_tpot(found: dict[str, Any]) -> None:
    # A (2440 - 1110) / 2 = 665, B 210, D 110; C has one token and none of it. Of three values the second is the median.
    assert statistics(found, "tpot") == [pytest.approx((665 + 210 + 110) / 3), 210, 665, 665]


def test_inter_token_latency(run: RunResult, found: dict[str, Any]) -> None:
    # A 2230 - 1110 = 1120 and 2440 - 2230 = 210, B 210, D 110: B's prompt in A's step shows, as no mean of A does.
    assert gaps(run.requests, run.tokens).tolist() == [1120, 210, 210, 110]
    assert statistics(found, "itl") == [(110 + 210 + 210 + 1120) / 4, 210, 1120, 1120]


def test_end_to_end(found: dict[str, Any]) -> None:
    # 2440 - 0, 2440 - 500, 2550 - 2000, 6220 - 5000
    assert statistics(found, "e2e") == [(2440 + 1940 + 550 + 1220) / 4, 1220, 2440, 2440]


def test_normalized_latency(found: dict[str, Any]) -> None:
    # 2440 / 3, 1940 / 2, 550 / 1, 1220 / 2
    assert statistics(found, "normalized") == [pytest.approx((2440 / 3 + 970 + 550 + 610) / 4), 610, 970, 970]


def test_queueing(run: RunResult, found: dict[str, Any]) -> None:
    # From when it could run to its first step: 0 - 0, 1110 - 500, 2440 - 2000, 5000 - 5000.
    assert statistics(found, "queueing") == [(610 + 440) / 4, 0, 610, 610]
    # With a router of 40 ns a prompt, A can run from 40 on and does: being routed is no queueing.
    routed = served(toy.ToyCosts(router_ns=40)).requests
    assert (int(routed["visible_ns"][0]), int(routed["started_ns"][0])) == (40, 40)
    assert request_metrics(pd.DataFrame(routed))["queueing_ns"].tolist()[0] == 0


def test_the_table_of_requests_has_the_same(run: RunResult) -> None:
    table = request_metrics(pd.DataFrame(run.requests))
    assert table["ttft_ns"].tolist() == [1110, 1730, 550, 1110]
    assert table["tpot_ns"].tolist()[:2] == [665.0, 210.0] and math.isnan(table["tpot_ns"][2])
    assert table["e2e_ns"].tolist() == [2440, 1940, 550, 1220]
    assert table["queueing_ns"].tolist() == [0, 610, 440, 0]


# ---- rates: 8 tokens and 4 requests in a span of 6220 ns


def test_throughput(found: dict[str, Any]) -> None:
    assert found["throughput_tokens_per_s"] == 8 * 10**9 / 6220
    assert found["throughput_requests_per_s"] == 4 * 10**9 / 6220


@pytest.mark.parametrize(
    ("limits", "good"),
    [
        # TTFT of A 1110, B 1730, C 550, D 1110; TPOT 665, 210, none, 110; end-to-end 2440, 1940, 550, 1220
        ({"ttft": 1110e-9}, "ACD"),
        ({"ttft": 1109e-9}, "C"),
        ({"tpot": 665e-9}, "ABCD"),
        ({"tpot": 664e-9}, "BCD"),
        ({"ttft": 1110e-9, "tpot": 300e-9}, "CD"),
        ({"e2e": 1940e-9}, "BCD"),
        ({"ttft": 1110e-9, "e2e": 1220e-9}, "CD"),
    ],
)
def test_goodput_and_attainment(run: RunResult, limits: dict[str, float], good: str) -> None:
    got = measured(run, Objective(**limits, share=0.5))
    each = keeps(run.requests, Objective(**limits))
    assert list(each) == [name for name in ("ttft", "tpot", "e2e") if name in limits]
    assert [n for n, *kept in zip("ABCD", *each.values(), strict=True) if all(kept)] == list(good)
    assert (got["good_requests"], got["attainment"]) == (len(good), len(good) / 4)
    assert got["goodput_requests_per_s"] == len(good) * 10**9 / 6220
    assert got["meets_objective"] is (len(good) >= 2)
    assert [got[f"objective_{n}_s"] for n in limits] == list(limits.values()) and got["objective_share"] == 0.5


def test_attainment_of_each_limit_by_itself(run: RunResult) -> None:
    # TTFT: A, C and D; TPOT: B, C and D; both: C and D.
    got = measured(run, Objective(ttft=1110e-9, tpot=300e-9))
    assert (got["attainment_ttft"], got["attainment_tpot"], got["attainment"]) == (0.75, 0.75, 0.5)
    assert math.isnan(got["attainment_e2e"])


def test_without_an_objective_there_is_no_goodput(found: dict[str, Any]) -> None:
    assert not [name for name in found if "good" in name or "objective" in name or "attainment" in name]


# ---- who did what: 6 steps of attention, 8 kernels, 3 copies


def test_gpu_and_link(found: dict[str, Any]) -> None:
    assert found["compute_share"] == (10 + 20 + 10 + 10 + 10 + 10 + 8 * 100) / 6220
    assert found["link_share"] == 3 * 1000 / 6220


def test_stall_by_cause(found: dict[str, Any]) -> None:
    # The copies of 0 and of 2 are waited for whole, that of 1 but for the kernel of 0: 1000 + 1000 + 900. Nothing to do
    # from 2550 to 5000.
    assert found["miss_stall_share"] == 2900 / 6220
    assert found["idle_share"] == 2450 / 6220
    assert found["late_stall_share"] == found["cpu_stall_share"] == found["host_share"] == 0


def test_late_stall() -> None:
    # Two layers; a prefetcher that knows the step submits both copies when attention begins, -1000 and -2000. Layer 0:
    # attention -10, its key is under way (990 of late stall), kernel -1100. Layer 1: attention -1110, then 890, -2100.
    run = toy.run([([0], [0])], layers=2, prefetch="step-ahead", memory={"slots": 4, "scope": "layer"})
    got = measured(run)
    assert (got["miss_stall_share"], got["late_stall_share"]) == (0, (990 + 890) / 2100)
    assert got["compute_share"] == 220 / 2100 and got["link_share"] == 2000 / 2100


def test_host_share() -> None:
    # The host needs 7 a launch. Attention: 7 to 17. The demand goes out then, and the copy ends at 1017, when the host
    # launches the kernel: 1024 to 1124. The launch of the step's rest was over long before.
    run = toy.run([([0], [0])], costs=toy.ToyCosts(launch=7), memory={"slots": 4, "scope": "layer"})
    assert measured(run)["host_share"] == (7 + 7) / 1124


def test_cpu_stall() -> None:
    # The CPU computes the missing expert's token: from 10 on, 2 there, 300, 2 back, while the stream waits.
    miss = {"name": "cpu-when-cheaper", "fill": False}
    run = toy.run([([0], [0])], costs=toy.ToyCosts(cpu=300), miss=miss, memory={"slots": 4, "scope": "layer"})
    assert measured(run)["cpu_stall_share"] == 304 / 314


def test_unique_experts(found: dict[str, Any]) -> None:
    # 1, 2, 2, 1, 1 and 1 experts in the layer of each step
    assert found["unique_experts_per_step"] == found["unique_experts_per_event"] == 8 / 6
    twice = measured(toy.run([([0], [0])], layers=2, memory={"slots": 4, "scope": "layer"}))
    assert (twice["unique_experts_per_step"], twice["unique_experts_per_event"]) == (2, 1)


# ---- preempted

# Two prompts of two tokens, room for three blocks of two tokens. Both first tokens are there at 1120. Then both need a
# second block: the later request gives its own back, waits until the other one has gone (1340), and runs again.
TWO = {"sequences": toy.as_requests([([0, 0], [0, 0, 0])] * 2), "traffic": {"kind": "all", "requests": 2}}
SCHEDULER = {"max_requests": 2, "max_tokens": 400}


def preempted(how: str) -> RunResult:
    memory = {"slots": 4, "kv": {"blocks": 3, "block_tokens": 2, "watermark": 0.0, "preempt": how}}
    return toy.run(**TWO, scheduler=SCHEDULER, memory=memory)


def test_a_preempted_request_is_computed_again_while_its_clocks_go_on() -> None:
    # The other has its tokens at 1120, 1230 and 1340. This one, at 1120; its three tokens are computed again by 1450,
    # which makes the second; the third comes at 1560.
    run = preempted("recompute")
    assert gaps(run.requests, run.tokens).tolist() == [110, 110, 330, 110]
    got = measured(run, Objective(tpot=200e-9))
    assert statistics(got, "itl") == [660 / 4, 110, 330, 330]
    assert statistics(got, "tpot")[:3] == [(110 + 220) / 2, 110, 220]
    assert statistics(got, "ttft")[0] == 1120 and got["queueing_p99_ns"] == 0, "it had begun before"
    assert got["e2e_p95_ns"] == 1560 and got["normalized_p95_ns"] == 520
    assert got["throughput_tokens_per_s"] == 6 * 10**9 / 1560, "what is computed again is no output"
    assert got["attainment"] == 0.5


def test_kv_stall() -> None:
    # Swapped: the stream waits 8 for the block to go (1120 to 1128), and 8 for it to come back (1348 to 1356).
    run = preempted("swap")
    assert gaps(run.requests, run.tokens).tolist() == [118, 110, 346, 110]
    got = measured(run)
    assert (got["kv_stall_share"], got["idle_share"]) == (16 / 1576, 0)
    assert got["link_share"] == (1000 + 8) / 1576
    assert measured(preempted("recompute"))["kv_stall_share"] == 0


# ---- what has not finished, and the warm-up


def test_a_run_that_ends_early() -> None:
    """After three steps A and B are answered, and C still waits; D has not come."""
    run = served(steps=3)
    got = measured(run, Objective(e2e=1))
    assert run.requests["request"].tolist() == [0, 1, 2]
    assert (got["finished_requests"], got["e2e_mean_ns"]) == (2, (2440 + 1940) / 2), "latencies: of what has finished"
    assert got["queueing_p99_ns"] == 610
    assert (got["good_requests"], got["attainment"]) == (2, 2 / 3), "objective: C counts, and did not keep it"
    assert got["throughput_requests_per_s"] == 2 * 10**9 / 2440


def test_after_two_steps() -> None:
    """After two steps A has two tokens and B one: nothing has finished, and no gap is of a finished request."""
    run = served(steps=2)
    got = measured(run, Objective(ttft=1))
    assert got["attainment"] == 0 == got["good_requests"]
    assert all(math.isnan(value) for name in ("itl", "ttft", "queueing") for value in statistics(got, name))


def test_the_warm_up_is_not_in_any_of_them() -> None:
    """Of steps 3 on: C and D, whose first steps these are."""
    got = measured(served(warmup_steps=3), Objective(ttft=1e-6, share=0.5))
    assert statistics(got, "ttft")[:2] == [(550 + 1110) / 2, 550]
    assert statistics(got, "itl") == [110] * 4
    assert (got["attainment"], got["meets_objective"]) == (0.5, True)
    assert got["goodput_requests_per_s"] == 10**9 / (6220 - 2440)


def test_rates_are_of_whoever_left_in_the_measured_steps() -> None:
    """Of steps 1 on (1110 to 6220): B, C and D begin there and are measured, but A leaves there as well."""
    run = served(warmup_steps=1)
    assert run.requests["measured"].tolist() == [False, True, True, True]
    assert run.requests["left_measured"].tolist() == [True] * 4
    # TPOT of A is 665, of B 210, of D 110; C has none.
    got = measured(run, Objective(tpot=210e-9))
    assert got["throughput_requests_per_s"] == 4 * 10**9 / 5110
    assert (got["good_requests"], got["attainment"]) == (3, 1)
    assert got["goodput_requests_per_s"] == 3 * 10**9 / 5110, "A was too slow"
    assert measured(run, Objective(tpot=665e-9))["goodput_requests_per_s"] == 4 * 10**9 / 5110


def test_rates_of_a_window_of_requests() -> None:
    """B alone is measured: steps 1 and 2, 1110 to 2440, with two tokens each. A leaves with it."""
    run = served(window={"requests": 1, "warmup": 1})
    assert run.requests["measured"].tolist()[:3] == [False, True, False]
    got = measured(run, Objective(ttft=1200e-9))
    assert got["throughput_tokens_per_s"] == 4 * 10**9 / 1330
    assert got["throughput_requests_per_s"] == 2 * 10**9 / 1330
    # TTFT of A is 1110, of B 1730.
    assert (got["attainment"], got["goodput_requests_per_s"]) == (0, 10**9 / 1330)


def test_who_left_as_the_measured_steps_began_is_of_the_step_before() -> None:
    """From step 3 on (2440): A and B had left at 2440."""
    run = served(warmup_steps=3)
    assert run.requests["left_measured"].tolist() == [False, False, True, True]
    assert measured(run)["throughput_requests_per_s"] == 2 * 10**9 / 3780


def test_a_run_within_its_warm_up_measures_nothing() -> None:
    got = measured(served(warmup_steps=9, steps=10), Objective(ttft=1))
    assert math.isnan(got["attainment"]) and not got["meets_objective"]


# ---- in one place


def test_every_derived_column_is_defined_on_the_page(run: RunResult) -> None:
    text = (DOCS / "metrics.md").read_text(encoding="utf-8")
    defined = set(re.findall(r"`([a-z0-9_{},]+)`", text))
    spelt = {one for pattern in defined for one in spellings(pattern)}
    columns = measured(run, Objective(ttft=1))
    assert len(columns) > 60
    assert [name for name in columns if name not in spelt] == []


def spellings(pattern: str) -> list[str]:
    """`a_{b,c}_d` is a_b_d and a_c_d."""
    found = re.fullmatch(r"(.*?)\{([^}]*)\}(.*)", pattern)
    return [t for each in found[2].split(",") for t in spellings(found[1] + each + found[3])] if found else [pattern]
