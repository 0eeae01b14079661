"""KV memory of the reference, in servers small enough to add up by hand; the simulator does the same.

A step takes 10 ns of attention for each prompt, 10 for its decode tokens and 100 for its one expert, the first step
1000 more for the copy of that. A token's keys and values are 50 bytes; n bytes take n ns to the device and 1.25 n to
the host.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from moesim.check import toy
from moesim.hardware.shape import ModelShape
from moesim.sim import Inputs
from tests.reference.cases import GUESS, Link
from tests.reference.compare import differences, referred, simulated
from tests.reference.replay import serve
from tests.reference.server import Run

COSTS = toy.ToyCosts()
KV = {"blocks": 4, "block_tokens": 2, "preempt": "recompute", "watermark": 0.0}


def ran(
    kv: dict[str, Any],
    *lengths: tuple[int, int],
    experts: int = 1,
    values: int = 25,
    costs: toy.ToyCosts = COSTS,
    **changes: Any,
) -> Run:
    """All of these requests (prompt and output tokens) at time 0, in this order; every token uses expert 0."""
    sequences = [([0] * prompt, [0] * output) for prompt, output in lengths]
    trace = toy.trace(toy.as_requests(sequences), experts=experts)
    shape = ModelShape(**toy.shape(1, experts).model_dump() | {"kv_values": values})
    inputs = Inputs(trace, shape, costs, Link(both_ways=(Fraction(3, 2), Fraction(2))))  # type: ignore[arg-type]
    plain = {
        "traffic": {"kind": "all", "requests": len(lengths)},
        "scheduler": {"batch": "decode-first", "max_tokens": 64, "max_requests": 4},
        "memory": {"slots": experts},
    }
    merged = plain | changes
    merged["memory"] = merged["memory"] | {"kv": KV | kv}
    config = toy.config(**merged)
    run = serve(config, inputs)
    assert not differences(simulated(config, inputs, "direct"), referred(run))
    return run


def steps(run: Run) -> list[tuple[int, int, int, int, list[tuple[int, int, int, bool]]]]:
    """Start, end, kv_stall, blocks used and parts of each step."""
    return [
        (done.start, done.end, done.counts["kv_stall_ns"], done.counts["kv_blocks_used"], list(map(tuple, parts)))
        for parts, done in run.steps
    ]


def test_the_last_of_a_step_computes_its_tokens_anew() -> None:
    for schedule in ("free", "frozen"):
        run = ran({}, (3, 3), (3, 3), schedule=schedule)
        assert steps(run) == [
            (0, 1120, 0, 4, [(0, 0, 3, True), (1, 0, 3, True)]),
            (1120, 1230, 0, 4, [(0, 3, 1, False), (1, 3, 1, False)]),
            # both need a third block and none is free: request 1 gives up two
            (1230, 1340, 0, 3, [(0, 4, 1, False)]),
            (1340, 1450, 0, 3, [(1, 0, 5, True)]),
        ]
        assert run.requests == {0: (0, 0, 1120, 1340, 0), 1: (0, 0, 1120, 1450, 1)}
        assert run.counts["recomputed_tokens"] == 4


def test_a_request_takes_its_blocks_along_and_brings_them_back() -> None:
    for schedule in ("free", "frozen"):
        run = ran({"preempt": "swap"}, (3, 3), (3, 3), schedule=schedule)
        assert steps(run)[2:] == [
            # two blocks of 100 bytes each: 250 ns to the host, 200 back
            (1480, 1590, 250, 3, [(0, 4, 1, False)]),
            (1790, 1900, 200, 3, [(1, 4, 1, False)]),
        ]
        assert run.counts["swap_out_bytes"] == run.counts["swap_in_bytes"] == 200
        assert run.counts["recomputed_tokens"] == 0


def test_one_that_does_not_fit_keeps_others_waiting() -> None:
    """Request 1 needs 3 blocks, and 2 are free; request 2 would need one."""
    run = ran({}, (3, 1), (5, 1), (1, 1))
    assert [parts for *_, parts in steps(run)] == [[(0, 0, 3, True)], [(1, 0, 5, True), (2, 0, 1, True)]]


def test_a_watermark_stays_free_beside_others() -> None:
    """Of 4 blocks one stays free: not for request 0, as nobody holds any; request 1 waits until it is gone."""
    run = ran({"watermark": 0.2}, (8, 1), (1, 1))
    assert [used for _, _, _, used, _ in steps(run)] == [4, 1]
    run = ran({"watermark": 0.2}, (5, 2), (1, 1))
    # Request 1 would leave none. With nobody there at the start, both had been let in.
    assert [parts for *_, parts in steps(run)] == [[(0, 0, 5, True), (1, 0, 1, True)], [(0, 5, 1, False)]]


def test_a_watermark_is_the_decimal_number_that_was_given() -> None:
    """0.07 of 100 blocks are 7, though 0.07 x 100 is more to a computer: request 1 leaves as many, and runs."""
    prompts_first = {"batch": "prefill-first", "max_tokens": 100, "max_requests": 1}
    run = ran({"blocks": 100, "block_tokens": 1, "watermark": 0.07}, (1, 2), (91, 1), scheduler=prompts_first)
    assert [(used, parts) for *_, used, parts in steps(run)] == [
        (1, [(0, 0, 1, True)]),
        (92, [(1, 0, 91, True)]),
        (2, [(0, 1, 1, False)]),
    ]


def test_who_is_in_the_middle_of_a_prompt_goes_first() -> None:
    """Requests run 3 tokens a step. Request 1 has the blocks of its whole prompt when request 0 needs one."""
    run = ran({"preempt": "swap"}, (2, 4), (6, 1), scheduler={"batch": "chunked-prefill", "max_tokens": 3})
    assert [(stall, used, parts) for _, _, stall, used, parts in steps(run)] == [
        (0, 4, [(0, 0, 2, True), (1, 0, 1, True)]),
        # one block of one token leaves: 125 ns; the token of request 0 takes one of the three that are free now
        (125, 2, [(0, 2, 1, False)]),
        (0, 2, [(0, 3, 1, False)]),
        (0, 3, [(0, 4, 1, False)]),
        (100, 3, [(1, 1, 3, True)]),
        (0, 3, [(1, 4, 2, True)]),
    ]


def test_who_has_to_go_may_have_to_go_again() -> None:
    """Request 2 processes one token of its prompt of three, then two of them, then all."""
    chunks = {"batch": "chunked-prefill", "max_tokens": 3}
    run = ran({"blocks": 6, "block_tokens": 1}, (1, 2), (1, 4), (3, 1), scheduler=chunks)
    assert [(used, parts) for *_, used, parts in steps(run)] == [
        (5, [(0, 0, 1, True), (1, 0, 1, True), (2, 0, 1, True)]),
        (4, [(0, 1, 1, False), (1, 1, 1, False)]),
        (6, [(1, 2, 1, False), (2, 0, 2, True)]),
        (4, [(1, 3, 1, False)]),
        (3, [(2, 0, 3, True)]),
    ]
    assert run.requests[2][-1] == 2
    assert run.counts["recomputed_tokens"] == 1 + 2


def test_copies_wait_for_the_host() -> None:
    """At 6100 request 0 lacks a block, and there is nobody else to go: request 1's token is being routed until 6700.

    Then it goes. But a prefetch has landed at 6400, and until 6800 the host has asked for another: only then are its
    two blocks on their way, 125 ns for 100 bytes. Nothing is on the link, as the guess was none.
    """
    for schedule in ("free", "frozen"):
        run = ran(
            {"blocks": 6, "block_tokens": 1, "preempt": "swap"}, (3, 3), (1, 3), experts=8, schedule=schedule,
            costs=toy.ToyCosts(router_ns=600, decision=400), prefetch={"name": GUESS, "keys": 8, "most": 1},
            machine={"router": "side", "chunk_bytes": 1000},
        )  # fmt: skip
        assert steps(run)[3:5] == [
            (4900, 6100, 0, 6, [(1, 1, 1, False)]),
            (6925, 8125, 225, 5, [(0, 4, 1, False)]),
        ]


def test_both_directions_get_in_each_others_way() -> None:
    """Two blocks of 1000 bytes leave at 2210, in two chunks, while the link prefetches what it can, a key at a time.

    The first of its keys takes from 0 to 1000, the demanded one follows, and the next one is under way from 2000 to
    3000. So each chunk to the host takes 2 x 1250, and those that the link submits at 3000 and 4500 take 1.5 x 1000. It
    falls idle at 6000; the guesser, asked then, still guesses from the step before, and all that is there. The gate of
    the step, at 7220, brings it another key.
    """
    guess = {"name": GUESS, "keys": 8, "most": 4}
    machine = {"chunk_bytes": 1000, "copies_in_flight": 1}
    run = ran({"preempt": "swap"}, (3, 3), (3, 3), experts=8, values=250, prefetch=guess, machine=machine)
    assert steps(run)[:3] == [
        (0, 2100, 0, 4, [(0, 0, 3, True), (1, 0, 3, True)]),
        (2100, 2210, 0, 4, [(0, 3, 1, False), (1, 3, 1, False)]),
        (7210, 7320, 5000, 3, [(0, 4, 1, False)]),
    ]
    assert run.steps[2][1].counts["link_busy_ns"] == 1500 + 1500 + 1000
