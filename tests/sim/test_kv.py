"""KV memory by hand, and preemption storms: whatever happens, blocks and tokens are all accounted for."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.toy import ToyCosts, ToyLink, as_requests, run, shape
from moesim.experiment import KVMemory
from moesim.policy import Queued, names
from moesim.sim import RunResult
from moesim.sim.kv import Blocks
from moesim.sim.server import FreeServer

PARTS = ("attention", "rest", "gate", "router", "experts", "host", "miss_stall", "late_stall", "cpu_stall")
POLICIES = Path(__file__).parent / "timelines" / "policies"


def memory(blocks: int, tokens: int = 2, **kv: Any) -> dict[str, Any]:
    """Room for all four experts; a block of two tokens has 8 bytes, and takes 8 ns to the host or back."""
    return {"slots": 4, "kv": {"blocks": blocks, "block_tokens": tokens, "watermark": 0.0, **kv}}


def alike(*lengths: tuple[int, int]) -> list[tuple[list[int], list[int]]]:
    """Requests with prompts and outputs of these lengths, all of whose tokens go to expert 0."""
    return as_requests([([0] * prompt, [0] * output) for prompt, output in lengths])


def all_at_once(requests: int, **scheduler: Any) -> dict[str, Any]:
    return {
        "traffic": {"kind": "all", "requests": requests},
        "scheduler": {"max_requests": requests, "max_tokens": 400, **scheduler},
    }


def column(result: RunResult, name: str) -> list[int]:
    return list(result.steps[name].tolist())


# ---- by hand: attention 10 a prompt or for all decode tokens, an expert kernel 100, a key 1000


@pytest.mark.parametrize("schedule", ["free", "frozen"])
def test_growth_preempts_the_latest_which_runs_again_as_one_prompt(schedule: str) -> None:
    # Both prompts take a block each: 20 + 1000 + 100. Then both need a second one and there is one: the later one goes.
    # What it had, two tokens, and the one it was to run are a prompt of three, which needs two blocks: it waits until
    # the other one has its third token (1340), runs (10 + 100) and yields its second token, then decodes the third.
    result = run(alike((2, 3), (2, 3)), memory=memory(3), schedule=schedule, **all_at_once(2))
    frozen = schedule == "frozen"
    ends = column(result, "end_ns")
    assert ends == [1120, 1230, 1340, 1450, 1560]
    assert column(result, "requests") == [2, 1, 1, 1, 1]
    assert column(result, "prefill_tokens") == [4, 0, 0, 3, 0]
    assert column(result, "decode_tokens") == [0, 1, 1, 0, 1]
    assert column(result, "kv_blocks_used") == [2, 2, 2, 2, 2]
    assert column(result, "preemptions_recompute") == [0, 1, 0, 0, 0]
    assert column(result, "recomputed_tokens") == [0, 2, 0, 0, 0]
    assert result.requests["preemptions"].tolist() == [0, 1]
    assert result.requests["started_ns"].tolist() == [0, 0]
    assert result.requests["first_token_ns"].tolist() == [1120, 1120]
    assert result.requests["finished_ns"].tolist() == [1340, 1560]
    assert result.counters["output_tokens"] == 6
    assert result.counters["kv_blocks_peak"] == 2
    assert result.counters["kv_stall_ns"] == 0
    assert frozen == (result.counters["bound_resident_ns"] > 0)


@pytest.mark.parametrize("schedule", ["free", "frozen"])
def test_swapped_out_and_in_again_while_the_server_waits(schedule: str) -> None:
    # The same, swapped: the block of its two tokens goes to the host (1120 to 1128), and comes back (1348 to 1356).
    result = run(alike((2, 3), (2, 3)), memory=memory(3, preempt="swap"), schedule=schedule, **all_at_once(2))
    assert column(result, "start_ns") == [0, 1128, 1238, 1356, 1466]
    assert column(result, "end_ns") == [1120, 1238, 1348, 1466, 1576]
    assert column(result, "decode_tokens") == [0, 1, 1, 1, 1]
    assert column(result, "kv_stall_ns") == [0, 8, 0, 8, 0]
    assert column(result, "swap_out_bytes") == [0, 8, 0, 0, 0]
    assert column(result, "swap_in_bytes") == [0, 0, 0, 8, 0]
    assert result.requests["preemptions"].tolist() == [0, 1]
    counters = result.counters
    assert (counters["preemptions_swap"], counters["preemptions_recompute"], counters["recomputed_tokens"]) == (1, 0, 0)
    assert (counters["kv_stall_ns"], counters["idle_ns"], counters["span_ns"]) == (16, 0, 1576)
    assert counters["link_busy_ns"] == 1000 + 8  # the key, and the block on its way back


def test_what_the_first_measured_step_waited_for_is_not_in_the_span() -> None:
    result = run(alike((2, 3), (2, 3)), memory=memory(3, preempt="swap"), warmup_steps=1, **all_at_once(2))
    assert (result.counters["span_ns"], result.counters["kv_stall_ns"]) == (1576 - 1128, 8)
    assert result.counters["preemptions_swap"] == 1


@pytest.mark.parametrize("schedule", ["free", "frozen"])
def test_a_prefetch_is_slowed_while_blocks_go_to_the_host(schedule: str) -> None:
    # One copy in flight, chunks of 250, blocks of 400 bytes. A prefetch of key 1 begins at 0; the demand of key 0 comes
    # at 20, runs from 250 to 1250, its kernel until 1350. Both requests need a second block then: the later one goes,
    # while the prefetch has a chunk under way until 1500: (250 + 150) x 1.5 = 600, the step starts at 1950. The
    # third chunk is submitted at 1500 and takes twice as long, until 2000; the fourth at 2000, until 2250. The next
    # step ends at 1950 + 110 = 2060; the block comes back behind that chunk, 2250 to 2650: 2650 + 110.
    result = run(
        alike((100, 2), (100, 2)),
        memory=memory(3, 100, preempt="swap"),
        machine={"chunk_bytes": 250, "copies_in_flight": 1},
        prefetch={"name": str(POLICIES / "scripted.py"), "plans": "1"},
        schedule=schedule,
        **all_at_once(2),
    )
    assert column(result, "start_ns") == [0, 1950, 2650]
    assert column(result, "end_ns") == [1350, 2060, 2760]
    assert column(result, "kv_stall_ns") == [0, 600, 590]
    assert result.counters["kv_stall_ns"] == 1190
    # Key 0, key 1 with one chunk twice as long, and the block on its way back.
    assert result.counters["link_busy_ns"] == 1000 + 1250 + 400


def test_a_link_without_anything_to_do_does_not_slow_the_blocks() -> None:
    result = run(
        alike((100, 2), (100, 2)), memory=memory(3, 100, preempt="swap"), machine={"chunk_bytes": 250}, **all_at_once(2)
    )
    assert column(result, "kv_stall_ns") == [0, 400, 400]


def test_a_large_head_holds_up_the_smaller_ones_behind_it() -> None:
    # Four blocks. The first prompt takes two and will need a third; the second, of three, does not fit beside it, and
    # the third, of one, is behind that. When the first is answered both go.
    result = run(alike((4, 2), (6, 1), (1, 1)), memory=memory(4), **all_at_once(3))
    assert column(result, "requests") == [1, 1, 2]
    assert result.requests["started_ns"].tolist() == [0, 1220, 1220]
    assert column(result, "kv_blocks_used") == [2, 3, 4]
    assert result.requests["preemptions"].tolist() == [0, 0, 0]


def test_blocks_stay_free_when_somebody_is_let_in_but_not_for_the_first() -> None:
    # A quarter of four blocks has to stay free: three prompts of one block go together where nobody holds any, ...
    result = run(alike((2, 1), (2, 1), (2, 1), (2, 1)), memory=memory(4, watermark=0.25), **all_at_once(4))
    assert column(result, "requests") == [4]
    # ... but beside the first, of two, there is room for one more only.
    three = alike((4, 3), (2, 1), (2, 1))
    result = run(three, memory=memory(4, watermark=0.25), **all_at_once(3, max_tokens=4))
    assert column(result, "requests") == [1, 1, 1, 2]
    assert result.requests["started_ns"].tolist() == [0, 1330, 1330]


def test_what_the_batcher_does_not_choose_takes_no_blocks() -> None:
    # Both prompts are let in, four tokens are a step: the second waits on without blocks.
    result = run(alike((4, 1), (4, 1)), memory=memory(4), **all_at_once(2, max_tokens=4, max_requests=2))
    assert column(result, "requests") == [1, 1]
    assert column(result, "kv_blocks_used") == [2, 2]


def test_a_prompt_in_chunks_takes_all_its_blocks_with_the_first() -> None:
    result = run(alike((6, 1)), memory=memory(3), **all_at_once(1, max_tokens=2))
    assert column(result, "kv_blocks_used") == [3, 3, 3]


@pytest.mark.parametrize("kind", ["recompute", "swap"])
@pytest.mark.parametrize("schedule", ["free", "frozen"])
def test_nobody_is_preempted_for_a_step_that_cannot_be_formed(kind: str, schedule: str) -> None:
    # The router, on the side, takes 50. When the second prompt has run (1270), the first request needs a block and the
    # second is in the router: to preempt the first would leave nobody. At 1320 the second is there, and goes.
    result = run(
        alike((2, 3), (2, 2)),
        memory=memory(2, preempt=kind),
        machine={"router": "side", "chunk_bytes": 1000},
        costs=ToyCosts(router_ns=50),
        link=FreeKeys(),
        schedule=schedule,
        **all_at_once(2),
    )
    swap = kind == "swap"
    starts = [50, 160, 320 + 8 * swap, 480 + 8 * swap, 590 + 16 * swap]
    assert column(result, "start_ns") == starts
    assert column(result, "end_ns") == [start + 110 for start in starts]
    assert result.requests["preemptions"].tolist() == [0, 1]
    assert column(result, "prefill_tokens") == [2, 2, 0, 0, 0 if swap else 3]
    assert result.counters["idle_ns"] == 100


@dataclass(frozen=True)
class FreeKeys(ToyLink):
    """Keys come at once, and KV memory takes its time: nothing depends on what the expert cache holds."""

    def copy(self, bytes: int) -> int:
        return 0 if bytes == 1000 else bytes


# ---- blocks by themselves


def queued(request: int, position: int, known: int) -> Queued:
    return Queued(request, position, known if known > 1 else 0, known, None)


def blocks_of(total: int, **kv: Any) -> Blocks:
    return Blocks(KVMemory(blocks=total, block_tokens=4, **kv), 64)


def test_needs_are_whole_blocks_of_all_that_is_there_and_what_may_run() -> None:
    made = blocks_of(10)
    assert [made.needs(queued(0, 0, n)) for n in (1, 4, 5)] == [1, 1, 2]
    assert [made.needs(queued(0, n, 1)) for n in (3, 4, 7, 8)] == [1, 2, 2, 3]
    assert made.needs(queued(0, 3, 6)) == 3


def test_the_last_to_come_is_the_first_to_go() -> None:
    made = blocks_of(3)
    queue = {r: queued(r, 4, 1) for r in (2, 0, 1)}
    for r in (0, 1, 2):
        made.take(queued(r, 0, 4))
    assert made.free == 0
    # All three need a second block: two have to go for the first, whatever their place in the queue.
    assert made.victims(queue, 8) == [2, 1]
    # If a step takes one request, one block is enough: that of the last one.
    assert made.victims(queue, 1) == [2]
    gone = made.preempt(queue[2])
    assert (gone.position, gone.prompt, gone.nbytes) == (4, 5, 0)
    assert made.free == 1


def test_swapped_blocks_are_those_that_hold_something() -> None:
    made = blocks_of(3, preempt="swap")
    made.take(queued(0, 0, 12))
    gone = made.preempt(queued(0, 5, 7))  # five of twelve tokens have run
    assert gone.nbytes == 2 * 64
    assert made.take(queued(0, 5, 7)) == 2 * 64
    assert made.held == {0: 3}
    assert made.away == {}


# ---- storms


@st.composite
def storms(draw: st.DrawFn) -> dict[str, Any]:
    """Servers with room for little more than their longest request."""
    router = draw(st.sampled_from(["decoupled", "layerwise"]))
    layers, experts = draw(st.integers(1, 2)), draw(st.integers(2, 4))
    # Drawn evenly: what hypothesis draws itself is mostly too short for a storm.
    rng = random.Random(draw(st.integers(0, 2**32)))

    def routes(most: int) -> list[Any]:
        width = 1 if router == "decoupled" else layers
        return [[rng.randrange(experts) for _ in range(width)] for _ in range(rng.randint(1, most))]

    sequences = [(routes(6), routes(14)) for _ in range(rng.randint(1, 8))]
    tokens = draw(st.integers(1, 3))
    longest = max(len(prompt) + len(output) - 1 for prompt, output in sequences)
    kv = {
        "blocks": -(-longest // tokens) + draw(st.integers(0, 4)),
        "block_tokens": tokens,
        "preempt": draw(st.sampled_from(["recompute", "swap"])),
        "watermark": draw(st.sampled_from([0.0, 0.0, 0.01, 0.3])),
    }
    kind = draw(st.sampled_from(["all", "closed", "poisson"]))
    extra = {"closed": {"concurrency": draw(st.integers(2, 6))}, "poisson": {"rate": draw(st.sampled_from([1e6, 8e6]))}}
    requests = draw(st.integers(2, 6))
    batchers = [name for name in names("batch") if router == "decoupled" or name not in KNOWING]
    costs = draw(st.tuples(*[st.integers(0, 90)] * 6))
    return {
        "sequences": sequences,
        "router": router,
        "layers": layers,
        "experts": experts,
        "memory": {
            "slots": draw(st.integers(1, experts)),
            "scope": draw(st.sampled_from(["layer", "global"])),
            "kv": kv,
        },
        "traffic": {"kind": kind, "requests": len(sequences), **extra.get(kind, {})},
        "scheduler": {
            "batch": draw(st.sampled_from(batchers)),
            "max_requests": requests,
            "max_tokens": draw(st.integers(requests, 12)),
        },
        "machine": {
            "router": draw(st.sampled_from(["critical", "side"])),
            "expert_start": draw(st.sampled_from(["eager", "barrier", "index"])),
            "chunk_bytes": draw(st.sampled_from([10, 300, 1000])),
            "copies_in_flight": draw(st.integers(1, 3)),
        },
        "costs": ToyCosts(*costs, router_ns=draw(st.sampled_from([0, 35, 400])), sample=draw(st.sampled_from([0, 13]))),
        "link": ToyLink(draw(st.integers(0, 50))),
    }


KNOWING = ("expert-aware", "expert-aware-aged", "cache-aware")


PREFETCHERS = ("none", "next-layer", "step-ahead")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(storms(), st.sampled_from(["free", "frozen"]), st.sampled_from(PREFETCHERS))
def test_nothing_is_lost_in_a_storm(case: dict[str, Any], schedule: str, prefetch: str) -> None:
    """Blocks are checked at every formation and end of a step as it runs (`check`)."""
    sequences = case.pop("sequences")
    if case["router"] == "decoupled":
        case["prefetch"] = prefetch
    if case["scheduler"]["batch"] == "cache-aware":
        schedule = "free"
    if case["router"] == "decoupled" and schedule == "frozen":
        case["cache"] = {"name": "lookahead", "level": "queue"}
    result = run(sequences, schedule=schedule, **case)
    counters, requests = result.counters, result.requests
    assert counters["requests_finished"] == len(sequences)
    assert counters["output_tokens"] == int(requests["output_tokens"].sum())
    asked = int((requests["prompt_tokens"] + requests["output_tokens"] - 1).sum())
    assert counters["prefill_tokens"] + counters["decode_tokens"] == asked + counters["recomputed_tokens"]
    parts = sum(counters[f"{part}_ns"] for part in PARTS)
    assert counters["span_ns"] == parts + counters["idle_ns"] + counters["kv_stall_ns"]
    assert counters["idle_ns"] >= 0
    assert int(requests["preemptions"].sum()) == counters["preemptions_recompute"] + counters["preemptions_swap"]
    assert counters["swap_in_bytes"] == counters["swap_out_bytes"]  # who is answered is not on the host
    total = case["memory"]["kv"]["blocks"]
    assert counters["kv_blocks_peak"] <= total
    assert counters["kv_blocks_used"] >= counters["steps"], "whoever runs holds blocks"


def test_there_are_storms() -> None:
    """What is checked above happens: of the servers drawn, many preempt, in both ways, some again and again."""
    seen: list[tuple[str, int, int]] = []

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(storms())
    def look(case: dict[str, Any]) -> None:
        result = run(case.pop("sequences"), **case)
        kind = case["memory"]["kv"]["preempt"]
        most = int(result.requests["preemptions"].max(initial=0))
        seen.append((kind, most, result.counters["recomputed_tokens"]))

    look()
    for kind in ("recompute", "swap"):
        preempted = [most for found, most, _ in seen if found == kind and most]
        assert len(preempted) > 30
        assert max(preempted) > 2


def without_misses(case: dict[str, Any]) -> Any:
    """Let nothing depend on what the expert cache holds; the sequences are taken out."""
    case |= {"link": FreeKeys(), "memory": case["memory"] | {"slots": case["experts"], "scope": "layer"}}
    case["machine"] |= {"expert_start": "eager", "chunk_bytes": 1000}
    case["costs"] = replace(case["costs"], launch=0, sync=0, copy_submit=0, decision=0)
    if case["scheduler"]["batch"] == "cache-aware":
        case["scheduler"]["batch"] = "decode-first"
    return case.pop("sequences")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(storms())
def test_a_replay_is_the_server_itself_where_only_kv_memory_is_copied(case: dict[str, Any]) -> None:
    """The same steps at the same instants, preempted and copied alike."""
    sequences = without_misses(case)
    free, frozen = (run(sequences, schedule=schedule, **case) for schedule in ("free", "frozen"))
    for table, other in ((free.steps, frozen.steps), (free.requests, frozen.requests)):
        for name, found in table.items():
            assert np.array_equal(found, other[name]), name


@settings(max_examples=100, deadline=None, derandomize=True)
@given(storms(), st.booleans())
def test_level_queue_sees_the_same_queue_in_a_replay(case: dict[str, Any], persist: bool) -> None:
    """Requests and tokens in the order in which they became visible, preempted ones before them."""
    from moesim.sim.forecast import Forecaster

    sequences = without_misses(case)
    if case["router"] == "layerwise":
        return
    case["cache"] = {"name": "lookahead", "level": "queue", "unknown": "persist" if persist else "farthest"}
    seen: dict[str, list[Any]] = {"free": [], "frozen": []}
    steps = Forecaster.steps
    for schedule, found in seen.items():

        def noting(self: Any, queue: list[Queued], *others: Any, to: list[Any] = found) -> Any:
            to.append([(q.request, q.position, q.prompt_left, q.known, q.skipped, q.experts.tolist()) for q in queue])
            return steps(self, queue, *others)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Forecaster, "steps", noting)
            run(sequences, schedule=schedule, **case)
    assert seen["free"] == seen["frozen"]


# ---- broken on purpose


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (Blocks, "release", lambda self, request: self.held.pop(request)),
        (Blocks, "victims", lambda self, queue, most: []),
        (Blocks, "take", lambda self, queued: self.held.setdefault(queued.request, self.needs(queued)) and 0),
        (FreeServer, "_release", lambda self, request: None),
    ],
)
def test_the_check_notices_what_is_broken(owner: Any, name: str, broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(AssertionError, match="KV blocks"):
        run(alike((2, 5), (2, 5), (2, 5)), memory=memory(6), **all_at_once(3))


@pytest.mark.parametrize("schedule", ["free", "frozen"])
def test_the_check_adds_up_the_budget(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three experts, one of them in staging, and six blocks of 8 bytes fit; pools that hold more do not."""
    sequences = as_requests([([0, 1, 2], [3, 2, 1])] * 2)
    gpu = shape().static_bytes + 3000 + 48
    sizes = {**memory(6), "staging": 1, "scope": "global", "gpu": gpu, "slots": None, "bytes": 3000}
    run(sequences, memory=sizes, schedule=schedule, **all_at_once(2))
    monkeypatch.setattr(import_module("moesim.sim.setup"), "pools", lambda memory, keys: [(range(keys.count), 4000)])
    with pytest.raises(AssertionError, match=r"4,000 bytes of experts and [1-6] KV blocks are there: [\d,]+, of"):
        run(sequences, memory=sizes, schedule=schedule, **all_at_once(2))
