"""What occurred in a case, so that the agreement test can say what it has seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.reference.cases import Case
from tests.reference.server import Run

REQUIRED = {
    # the link
    "promotions": 130, "late without promotion": 165, "planned and demanded": 130, "landed before its demand": 10,
    "prefetch_cancelled": 40, "cancelled in flight": 35, "wasted_bytes": 95, "prefetch_dropped": 120,
    "promoted chunks behind a demand that waits": 10, "prefetched chunks behind a demand that waits": 10,
    "chunks with a rest": 365, "several copies in flight": 295, "demands that wait for room": 145,
    # the cache
    "evictions": 320, "victims that had run": 160, "several victims at once": 65, "bypasses": 95, "too large": 40,
    "pushed out of staging": 10, "demands that wait for a slot": 20, "waves run": 70, "waves": 175,
    "pushed out before its turn": 20, "reloads": 20, "index": 125, "barrier": 165, "eager": 155,
    "unequal sizes": 205, "shared keys": 90, "staging": 250, "global": 295, "layer": 150,
    # classes
    "late_keys_prefill": 240, "late_keys_decode": 120, "prefetch_keys_prefill": 130, "prefetch_keys_decode": 80,
    "miss_keys_decode": 230, "late_stall": 240, "miss_stall": 395,
    # the prefetcher
    "asked for an idle link": 155, "asked across a step's start": 10, "asked between steps": 35,
    "fickle": 110, "guess.py": 120, "soonest.py": 60, "wanderer.py": 70,
    # the host and the server
    "launch": 290, "sync": 290, "copy_submit": 295, "decision": 300, "decoupled": 225, "layerwise": 220,
    "side": 105, "critical": 115, "free": 220, "frozen": 225,
    "closed": 85, "all": 85, "trace": 60, "poisson": 90, "gamma": 85, "prompts in parts": 195,
    "prefill and decode together": 70, "waiting between steps": 105, "two experts a token": 185, "bound lengths": 125,
    # policies
    "history": 50, "step": 50, "queue": 35, "oracle": 160, "persist": 20, "picky.py": 100, "lookahead": 130,
    "compiled": 70,
    # predictions of later layers
    "speculative": 50,
    # misses
    "cpu_keys": 55, "waits in the CPU's line": 17, "cpu beside experts": 45, "cpu_stall": 30, "small_keys": 45,
    "smaller copies used again": 24, "smaller copies that will not do": 24, "skipped_keys": 40,
    "on the CPU in spite of a smaller copy": 20, "struck off the plan": 23,
    # KV memory: who is let in, who has to go
    "watermark decides": 15, "let in below the watermark": 15, "reserve decides": 40, "nobody to show": 8,
    "one behind that does not fit would": 12, "spared as a step takes no more": 2, "nobody to preempt": 4,
    "several preempted at once": 3, "preemptions_recompute": 20, "preempted again": 2, "preemptions_swap": 25,
    "swapped out again": 3, "waits for one that is preempted": 2, "KV memory of compiled steps": 15,
    # and its copies
    "several swapped in at once": 7, "swapped in behind a prefetch under way": 2, "chunks beside a swap": 2,
    "swapped out beside a prefetch under way": 2, "asked beside a swap": 8,
}  # fmt: skip
"""in how many of 900 cases something must have occurred, at least: half of what was seen, a quarter of what is rare"""
PER = 900


def occurred(case: Case, run: Run, compiled: bool) -> set[str]:
    """Names of all that occurred in a case."""
    found = {name for name, number in run.counts.items() if number > 0}
    for _, outcome in run.steps:
        found |= {name for name, ns in outcome.parts.items() if ns}
    if compiled:
        found |= {"compiled", "KV memory of compiled steps"} if run.memory else {"compiled"}
    return found | set(_of_the_case(case)) | set(_of_the_steps(run))


def _of_the_case(case: Case) -> Iterator[str]:
    changes = dict(case.changes)
    machine, memory, traffic = changes["machine"], changes["memory"], changes["traffic"]
    yield from (case.router, machine["expert_start"], memory["scope"], changes["schedule"], traffic["kind"])
    if case.router == "decoupled":
        yield machine["router"]
    yield from (name for name in ("launch", "sync", "copy_submit", "decision") if getattr(case.costs, name))
    sizes = set(case.key_sizes) or {1000}
    traits = {
        "unequal sizes": len(sizes) > 1,
        "shared keys": len({key for row in case.key_map for key in row}) < sum(map(len, case.key_map)),
        "staging": memory["staging"] > 0,
        "two experts a token": case.k > 1,
        "chunks with a rest": any(size % machine["chunk_bytes"] for size in sizes),
        "several copies in flight": machine["copies_in_flight"] > 1,
        "bound lengths": "prompt" in traffic or "output" in traffic,
    }
    yield from (name for name, there in traits.items() if there)
    yield from _policy("batch", changes["scheduler"]["batch"])
    yield from _policy("cache", changes["cache"])
    yield from _policy("prefetch", changes["prefetch"])
    yield from _policy("miss", changes.get("miss", "wait"))


def _policy(kind: str, spec: Any) -> Iterator[str]:
    spec = {"name": spec} if isinstance(spec, str) else spec
    yield f"{kind} {spec['name'].rsplit('/')[-1]}"
    yield spec["name"].rsplit("/")[-1]
    yield from (spec[name] for name in ("level", "unknown") if name in spec)
    if spec.get("fickle"):
        yield "fickle"
    if kind == "cache" and spec["name"] in ("lru", "fifo", "lfu"):
        yield "history"


def _of_the_steps(run: Run) -> Iterator[str]:
    last = None
    for parts, outcome in run.steps:
        if last is not None and outcome.start > last:
            yield "waiting between steps"
        last = outcome.end
        if len({part.prefill for part in parts}) > 1:
            yield "prefill and decode together"
        if any(part.prefill and part.start for part in parts):
            yield "prompts in parts"
