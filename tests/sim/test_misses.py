"""What becomes of missing keys, to the nanosecond. Attention 10, kernel 100 an expert, a key 1000 bytes = 1000 ns.

A token of an expert takes the CPU 300; its activations are 2 bytes, which take 2 ns each way.
"""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.toy import ToyCosts, ToyLink, classes, config, ends, run, shape, trace
from moesim.errors import InputError
from moesim.policy import (
    CachePolicy,
    Handling,
    Missing,
    MissPolicy,
    Pool,
    PrefetchPolicy,
    StepView,
    View,
    register,
    registry,
)
from moesim.sim import Inputs, RunResult, check
from moesim.sim.cache import ABSENT, ExpertCache
from moesim.sim.gate_weights import weigh
from tests.sim.test_patterns import cases

CPU = ToyCosts(cpu=300)
FIDDLER = {"name": "cpu-when-cheaper", "fill": False}
SMALL = {"name": "smaller-copy", "ratio": 0.25}


class FromTheGate(PrefetchPolicy):
    """Plans the next layer from the first gate on."""

    level = "step"
    view: StepView

    def plan(self) -> Sequence[int]:
        following = self.view.layer + 1
        return self.view.needed(following) if 0 < following < self.view.layers else ()


class Lowest(CachePolicy):
    """Evicts the lowest key."""

    def start(self, pool: Pool, view: View) -> None:
        self.there: set[int] = set()

    def inserted(self, key: int, prefetched: bool) -> None:
        self.there.add(key)

    def evicted(self, key: int) -> None:
        self.there.remove(key)

    def victim(self, barred: Container[int]) -> int | None:
        return min((key for key in self.there if key not in barred), default=None)


@pytest.fixture(autouse=True)
def _own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    register("from-the-gate")(FromTheGate)


def plant(*answers: Handling, **attributes: Any) -> str:
    """A miss policy that gives these answers for experts 0, 1, ... of a layer."""

    def decide(self: MissPolicy, missing: Sequence[Missing]) -> list[Handling]:
        asked.append([m.key for m in missing])
        return [answers[m.key % len(answers)] for m in missing]

    asked: list[list[int]] = []
    given = {"uses_cpu": True, "small_ratio": 0.25, "asked": asked, "decide": decide}
    register("planted")(type("Planted", (MissPolicy,), given | attributes))
    return "planted"


# ---- on the CPU


def test_the_cpu_computes_what_it_would_take_longer_to_copy() -> None:
    # At 10 the miss is handed over: 2 there, 300, 2 back. It is never copied, so that the next token goes there too.
    result = run([([0], [0, 0])], costs=CPU, miss=FIDDLER)
    assert ends(result) == [314, 628]
    assert classes(result) == {"miss": 2}
    counters = result.counters
    assert counters["cpu_stall_ns"] == counters["cpu_busy_ns"] == 608
    assert (counters["cpu_keys"], counters["cpu_tokens"], counters["demand_bytes"]) == (2, 2, 0)
    assert counters["degraded_tokens"] == 0


def test_an_empty_cache_fills_before_the_cpu_is_used() -> None:
    # Two slots: 0 and 1 are copied, 2 is computed by the CPU each time.
    result = run([([0, 1, 2], [2, 0])], costs=CPU, miss="cpu-when-cheaper")
    assert (result.counters["demand_bytes"], result.counters["cpu_keys"]) == (2000, 2)
    assert result.counters["evictions"] == 0


def test_host_timeline_of_an_expert_on_the_cpu() -> None:
    # Decision 5, launch 3, attention -18. The host decides -23 and submits -25: the CPU is done at 329. Until 25 the
    # stream waits for the host, then for the CPU. Sampling -342 (its launch is hidden), read back 7.
    costs = ToyCosts(launch=3, sync=7, copy_submit=2, decision=5, sample=13, cpu=300)
    result = run([([0], [0])], costs=costs, miss=FIDDLER)
    assert ends(result) == [349]
    assert result.counters["host_ns"] == 8 + 7 + 7
    assert result.counters["cpu_stall_ns"] == 304


def test_the_policys_own_time_is_paid_when_it_is_asked() -> None:
    # Decided at 10-60. In the second step nothing is missing, and nobody asks.
    result = run([([0], [0, 0])], miss=plant(Handling.WAIT, cost_ns=50))
    assert ends(result) == [1160, 1270]
    assert result.counters["host_ns"] == 50


def test_many_tokens_are_worth_a_copy() -> None:
    # Four tokens would take the CPU 8 + 1200 + 8. Then expert 0 is there: it runs 1120-1220, beside expert 1 on the
    # CPU, 1120-1424.
    two = {"kind": "all", "requests": 2}
    result = run([([0] * 4, [0]), ([0, 1], [0])], costs=CPU, traffic=two, miss=FIDDLER)
    assert ends(result) == [1110, 1424]
    assert classes(result) == {"reuse": 1, "miss": 2}
    assert result.counters["miss_stall_ns"] == 1000
    assert result.counters["cpu_stall_ns"] == 204


@pytest.mark.parametrize(("rule", "end", "on_cpu"), [("sum", 10 + 2 * 604, 2), ("max", 1110, 1)])
def test_sum_and_max(rule: str, end: int, on_cpu: int) -> None:
    # Either takes the CPU 604, which is less than a copy. By the sum both go there, one after the other. By the later
    # of the two, one is copied meanwhile: 10-1010, kernel -1110.
    result = run([([0, 1], [0])], costs=ToyCosts(cpu=600), miss=FIDDLER | {"rule": rule})
    assert ends(result) == [end]
    assert result.counters["cpu_keys"] == on_cpu


def test_the_cpu_has_a_line() -> None:
    # Submitted at 11, 12, 13 (1 each): done at 315, 619 and 923.
    result = run([([2, 0, 1], [0])], costs=ToyCosts(cpu=300, copy_submit=1), miss=plant(Handling.CPU))
    assert ends(result) == [923]
    assert result.counters["host_ns"] == 3
    assert result.counters["cpu_stall_ns"] == 923 - 13


def test_copies_and_the_cpu_go_side_by_side() -> None:
    # Expert 1 is on the CPU 12-316; 0 and 2 are submitted at 14 and 16 and copied -1014, -2014; kernels -1114, -2114.
    costs = ToyCosts(cpu=300, copy_submit=2)
    result = run([([0, 1, 2], [0])], costs=costs, memory={"slots": 3}, miss=plant(Handling.WAIT, Handling.CPU))
    assert ends(result) == [2114]
    assert result.counters["cpu_stall_ns"] == 0
    assert result.counters["demand_bytes"] == 2000


def test_the_prefetcher_is_asked_while_the_cpu_computes() -> None:
    # Expert 0 of layer 0 is on the CPU 10-314. Nothing runs; the prefetcher is asked at 10 all the same, and key 4 of
    # layer 1 is copied 10-1010. Attention -324, late, kernel 1010-1110.
    result = run([([0], [0])], layers=2, costs=CPU, prefetch="from-the-gate", miss=plant(Handling.CPU))
    assert ends(result) == [1110]
    assert classes(result) == {"miss": 1, "late": 1}
    assert result.counters["cpu_stall_ns"] == 304


def test_a_key_that_is_under_way_is_waited_for() -> None:
    # Planned at 0 and started, it is late at 10: nobody is asked.
    result = run([([0], [0])], costs=CPU, prefetch="step-ahead", miss=plant(Handling.CPU))
    assert ends(result) == [1100]
    assert classes(result) == {"late": 1}
    assert result.counters["cpu_keys"] == 0


# ---- smaller copies

WEIGHTS = [0.75, 0.25]
"""of two experts a token; 0.75 of the gate weight comes before the second one"""


def two_a_token(*tokens: list[int], **changes: Any) -> RunResult:
    """One prompt token and outputs, each of two experts, the first of which weighs more."""
    pairs = [(list(tokens[:1]), list(tokens[1:]))]
    made = trace(pairs, k=2, weights=[WEIGHTS] * len(tokens))
    return run(made, **{"miss": SMALL, **changes})


def test_an_expert_that_weighs_little_comes_as_a_smaller_copy() -> None:
    # Expert 0 is copied in full, 10-1010, runs -1110; 1 as 250 bytes, 1010-1260, runs -1360.
    result = two_a_token([0, 1], [0, 1])
    assert ends(result) == [1360]
    assert result.counters["demand_bytes"] == 1250
    assert result.counters["miss_stall_ns"] == 1000 + 150
    assert (result.counters["small_keys"], result.counters["degraded_tokens"]) == (1, 1)
    assert result.counters["degraded_weight"] == 250_000


def test_a_smaller_copy_that_is_there_serves_again_what_it_would_serve_anyway() -> None:
    # 1360 + 10, both run in one kernel of 200.
    result = two_a_token([0, 1], [0, 1], [0, 1])
    assert ends(result) == [1360, 1570]
    assert classes(result) == {"reuse": 2, "miss": 2}
    assert (result.counters["small_keys"], result.counters["degraded_tokens"]) == (2, 2)
    assert result.counters["degraded_weight"] == 500_000


def test_a_smaller_copy_that_will_not_do_is_a_miss() -> None:
    # Now expert 1 weighs more: its smaller copy leaves and it is copied in full, 1370-2370, beside the kernel of 0,
    # 1370-1470; runs -2470. Then it is there in full, and nobody is asked: 10 + 200.
    result = two_a_token([0, 1], [1, 0], [0, 1], [0, 1])
    assert ends(result) == [1360, 2470, 2680]
    assert classes(result) == {"reuse": 3, "miss": 3}
    assert result.counters["evictions"] == 1
    assert result.counters["demand_bytes"] == 2250
    assert result.counters["degraded_tokens"] == 1


def test_unpacking_takes_time_at_each_use() -> None:
    # 0.05 ns for each of 1000 bytes: 50 more for each kernel with expert 1 in it.
    result = two_a_token([0, 1], [0, 1], [0, 1], miss=SMALL | {"unpack_ns": 0.05})
    assert ends(result) == [1410, 1670]


def test_an_expert_that_hardly_weighs_is_skipped() -> None:
    result = two_a_token([0, 1], [1, 2], [0, 1], miss=SMALL | {"t2": 0.7})
    # Expert 0 -1110 alone; then 1 is missing and copied in full 1120-2120, runs -2220, and 2 is skipped.
    assert ends(result) == [1110, 2220]
    counters = result.counters
    assert (counters["skipped_keys"], counters["small_keys"], counters["degraded_tokens"]) == (2, 0, 2)
    assert counters["degraded_weight"] == 500_000
    assert counters["demand_bytes"] == 2000
    assert classes(result) == {"miss": 4}


def test_smaller_copies_take_less_room() -> None:
    # One slot holds four of 250 bytes: copied 10-260, -510, -760, -1010, each run after its copy; nobody leaves.
    result = run([([0, 1, 2, 3], [0, 3])], memory={"slots": 1}, miss=SMALL | {"t1": None})
    assert ends(result) == [1110, 1220]
    assert result.counters["waves"] == result.counters["evictions"] == 0
    assert result.counters["degraded_tokens"] == 5


def test_index_loads_again_in_the_size_that_was_chosen() -> None:
    # One slot holds two of 500 bytes: 2 and 3 are there. For 1 the one used longest ago leaves, 2; for 2, when its turn
    # comes, 1, which has run. Each copy is one of 500 bytes.
    result = run([([2, 3], [2]), ([1, 2, 3], [1])], traffic={"kind": "all", "requests": 2},
                 machine={"chunk_bytes": 1000, "expert_start": "index"}, memory={"slots": 1},
                 miss=SMALL | {"t1": None, "ratio": 0.5})  # fmt: skip
    # 1110: both copied -510, -1010 and run -610, -1110. Then attention -1120, 1 copied -1620, runs -1720, 2 copied
    # -2220, runs -2320, 3 runs -2420.
    assert ends(result) == [1110, 2420]
    assert result.steps["demand_bytes"].tolist() == [1000, 1000]


def test_a_key_is_its_full_size_again_once_its_smaller_copy_has_left() -> None:
    evicts = Lowest()
    evicts.start(Pool(range(3), 1000, [1000] * 3, random.Random(0)), View(1, 3))
    cache = ExpertCache([1000] * 3, [0] * 3, [1000], [evicts])
    for key, nbytes in ((0, 400), (1, 600)):
        cache.shrink(key, nbytes)
        assert cache.make_room(key, True)
        cache.landed(key, True)
        cache.pinned.clear()
    assert cache.used_bytes == [1000]
    cache.verify()
    assert cache.make_room(2, True)
    assert (cache.used_bytes, cache.sizes, cache.small) == ([1000], [1000] * 3, {})
    assert cache.state[0] == cache.state[1] == ABSENT
    cache.verify()
    cache.small[0] = 1000
    with pytest.raises(AssertionError, match="smaller copies of"):
        cache.verify()


def test_a_planned_prefetch_of_what_is_not_waited_for_is_struck_off() -> None:
    # Planned at 0 are 0, 1 and 2; 0 is under way, -1000. At 10, 1 goes to the CPU and 2 is skipped: nothing of them is
    # ever copied, though the host takes 2500 to say so.
    result = run([([0, 1, 2], [0])], costs=CPU, prefetch="step-ahead", memory={"slots": 3},
                 miss=plant(Handling.WAIT, Handling.CPU, Handling.SKIP, cost_ns=2500),
                 machine={"chunk_bytes": 250, "copies_in_flight": 1})  # fmt: skip
    assert result.counters["prefetch_bytes"] + result.counters["demand_bytes"] == 1000
    assert classes(result) == {"late": 1, "miss": 2}
    assert (result.counters["cpu_keys"], result.counters["skipped_keys"]) == (1, 1)


# ---- what a policy is told


def test_what_is_told_of_missing_keys() -> None:
    seen: list[list[Missing]] = []

    def decide(self: MissPolicy, missing: Sequence[Missing]) -> list[Handling]:
        seen.append(list(missing))
        return [Handling.SMALL] * len(missing)

    register("asking")(type("Asking", (MissPolicy,), {"decide": decide, "small_ratio": 0.5}))
    weights = [[0.75, 0.25], [0.5, 0.5], [1, 0]]
    made = trace([([[0, 1], [2, 1]], [[1, 0]])], k=2, weights=weights)
    run(made, miss="asking", costs=CPU, memory={"slots": 4}, link=ToyLink(fixed=7))
    # Expert 1 has 0.25 of one token and 0.5 of the other, which names it second of equals.
    assert seen[0] == [
        Missing(0, 1, 0.75, 0.0, False, 1000, 4000, 1007, 0, 318),
        Missing(1, 2, 0.375, 0.5, False, 1000, 4000, 1007, 0, 622),
        Missing(2, 1, 0.5, 0.0, False, 1000, 4000, 1007, 0, 318),
    ]  # fmt: skip
    seen.clear()
    run(trace([([0], [0, 0])]), miss="asking")
    first = Missing(0, 1, 1.0, 0.0, False, 1000, 2000, 1000, 0, None)
    assert seen == [[first], [replace(first, small=True, free_bytes=1500)]]


def test_what_the_link_has_to_carry_first_is_told() -> None:
    # One chunk of 250 in flight. At 0, key 0 and then 1 are planned. At the gate, 260, the second chunk of key 0 is in
    # flight until 500, and two are left; they are promoted before anything else is copied. Key 1 is missing.
    queued: list[int] = []

    def decide(self: MissPolicy, missing: Sequence[Missing]) -> list[Handling]:
        queued.extend(m.queue_ns for m in missing)
        return [Handling.WAIT] * len(missing)

    register("asking")(type("Asking", (MissPolicy,), {"decide": decide}))
    run([([0, 1], [0])], costs=ToyCosts(attention=260), prefetch="step-ahead", miss="asking",
        machine={"chunk_bytes": 250, "copies_in_flight": 1})  # fmt: skip
    assert queued == [240 + 500]


def test_gate_weights_by_expert() -> None:
    ids = np.array([[3, 0, -1], [0, 3, 1], [1, -1, -1]])
    weights = np.array([[1, 3, 9], [2, 2, 4], [0, 0, 0]], dtype=np.float16)
    shares, before = weigh(ids, weights, 5)
    assert shares.tolist() == [0.75 + 0.25, 0.5 + 1, 0, 0.25 + 0.25, 0]
    assert before.tolist() == [0, 0, 1, 0.75, 1]


@pytest.mark.parametrize(
    ("attributes", "answers", "text"),
    [
        ({"uses_cpu": False}, [Handling.CPU], "answered CPU, but its uses_cpu is False"),
        ({"small_ratio": None}, [Handling.SMALL], "answered SMALL, but it has no small_ratio"),
        ({"decide": lambda self, missing: []}, [Handling.WAIT], "gave 0 answers for 1 keys"),
    ],
)
def test_answers_that_make_no_sense(attributes: dict[str, Any], answers: list[Handling], text: str) -> None:
    with pytest.raises(RuntimeError, match=text):
        run([([0], [0])], costs=CPU, miss=plant(*answers, **attributes))


def test_a_cost_table_without_the_cpu() -> None:
    inputs = Inputs(trace([([0], [0])]), shape(), ToyCosts(), ToyLink())  # type: ignore[arg-type]
    (problem,) = check(config(miss="cpu-when-cheaper"), inputs)
    assert (problem.place, "it has no component cpu_expert" in problem.text) == ("miss", True)
    assert check(config(miss="smaller-copy"), inputs) == []
    known = Inputs(inputs.trace, inputs.shape, CPU, inputs.link)  # type: ignore[arg-type]
    assert check(config(miss="cpu-when-cheaper"), known) == []


def test_a_cache_policys_books_are_those_of_whole_keys() -> None:
    # A key that came as a smaller copy leaves with as many bytes as it came with.
    class Booked(Lowest):
        def start(self, pool: Pool, view: View) -> None:
            super().start(pool, view)
            self.sizes, self.held = pool.sizes, 0

        def inserted(self, key: int, prefetched: bool) -> None:
            super().inserted(key, prefetched)
            self.held += self.sizes[key]

        def evicted(self, key: int) -> None:
            super().evicted(key)
            self.held -= self.sizes[key]
            assert self.held == sum(self.sizes[key] for key in self.there)

    register("booked")(Booked)
    half = plant(Handling.SMALL, small_ratio=0.5)
    result = run([([0, 1], [2, 3, 0, 1])], memory={"slots": 1}, cache="booked", miss=half)
    assert result.counters["evictions"] > 0


# ---- as a whole


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases(), st.sampled_from(["none", "next-layer", "step-ahead"]))
def test_a_policy_that_always_waits_changes_nothing(case: dict[str, Any], prefetch: str) -> None:
    case["prefetch"] = prefetch if case["router"] == "decoupled" else "none"
    costs = case.pop("costs")
    case["costs"] = ToyCosts(costs.launch, costs.sync, costs.copy_submit, 0, costs.attention, costs.expert)
    sequences = case.pop("sequences")
    usual, asked = run(sequences, **case), run(sequences, **case, miss=plant(Handling.WAIT))
    bounds = {"min_miss_keys", "min_bytes", "bound_transfer_ns"}
    assert [n for n in usual.counters if usual.counters[n] != asked.counters[n] and n not in bounds] == []
    assert all(np.array_equal(usual.steps[name], asked.steps[name]) for name in usual.steps)


def test_there_is_no_bound_for_what_is_not_loaded() -> None:
    names = ("min_miss_keys", "min_bytes", "bound_transfer_ns")
    usual = run([([0], [0])], schedule="frozen")
    other = run([([0], [0])], schedule="frozen", costs=CPU, miss=FIDDLER)
    assert [usual.counters[name] for name in names] == [1, 1000, 1000]
    assert [other.counters[name] for name in names] == [-1] * 3
    assert other.counters["bound_resident_ns"] == usual.counters["bound_resident_ns"] == 110


def test_an_unknown_policy_is_told() -> None:
    with pytest.raises(InputError, match="unknown miss policy 'wate'; did you mean 'wait'"):
        run([([0], [0])], miss="wate")
