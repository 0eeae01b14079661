"""Where simulator and reference are known to differ: one example of each, as small as found.

The reference marks the situation when it meets it (`Machine.contested`) and the agreement test stops comparing there.
Whoever settles one takes its example out of here and its mark out of the reference.
"""

from __future__ import annotations

from typing import Any

from tests.reference.cases import Case, Costs


def _case(sequence: tuple[Any, Any], layers: int, experts: int, costs: Costs, **changes: Any) -> Case:
    plain = {"cache": "lru", "scheduler": {"max_requests": 1}, "traffic": {"kind": "all", "requests": 1}}
    return Case((sequence,), layers, experts, "decoupled", costs, 0, tuple((plain | changes).items()))


def _machine(order: str, chunk: int, in_flight: int) -> dict[str, Any]:
    return {"expert_start": order, "chunk_bytes": chunk, "copies_in_flight": in_flight}


ONE_SLOT = {"slots": 1, "scope": "layer"}

EXAMPLES: dict[str, Case] = {
    # Key 1 is under way, one of its two chunks submitted, when 0 and 1 are demanded in this order; 1 holds the only
    # slot. Reference: its second chunk goes although the first demand waits for room. Simulator: AssertionError.
    "promoted key behind a demand without room": _case(
        ([1, 0], [0]), 1, 2, Costs(), prefetch="next-layer", memory=ONE_SLOT, machine=_machine("index", 500, 1),
    ),
    # The prefetcher is asked at a gate. Before it has answered the link falls idle. Reference: the answer counts, then
    # the prefetcher is asked again. Simulator: the second question is put inside the first, so that the answer to the
    # first waits for both decisions.
    "link idle while the prefetcher decides": Case(
        (([0], [0]), ([0], [0]), ([0], [0]), ([1], [0])), 3, 2, "decoupled",
        Costs(launch=30, decision=150, attention=400, expert=1, gate_ns=1, rest=0), 0,
        (("memory", ONE_SLOT), ("traffic", {"kind": "all", "requests": 5}),
         ("scheduler", {"max_tokens": 3, "max_requests": 2}), ("cache", "lru"), ("prefetch", "next-layer"),
         ("machine", _machine("eager", 1000, 1))),
    ),
    # The host is submitting a demand while the link falls idle. Reference: the demand enters when it is submitted, then
    # the prefetcher is asked. Simulator: the prefetcher is asked first, and the demand waits for the decision.
    "link idle while demands are submitted": _case(
        ([0, 0, 0, 1], [0]), 3, 2, Costs(launch=30, copy_submit=50, decision=150, attention=400, expert=1500),
        prefetch="step-ahead", memory=ONE_SLOT, machine=_machine("index", 500, 2),
    ),
    # The first demand would find no room, nothing is under way in its pool, but a prefetch in another one is. What is
    # ready runs as a wave. The simulator has let the link go on to its end before, so that the demand comes behind
    # chunks that were submitted later than it could have been.
    "wave while the link is busy with prefetches": _case(
        ([0, 1], [0]), 4, 2, Costs(attention=1, expert=1, gate_ns=1, rest=0),
        prefetch="step-ahead", memory=ONE_SLOT, machine=_machine("barrier", 500, 3),
    ),
}  # fmt: skip
