"""What occurred in a case, so that the agreement test can say what it has seen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.reference.cases import Case
from tests.reference.server import Run

REQUIRED = {
    # the link
    "promotions": 60, "late without promotion": 60, "planned and demanded": 60, "landed before its demand": 4,
    "prefetch_cancelled": 15, "cancelled in flight": 12, "wasted_bytes": 60, "prefetch_dropped": 80,
    "promoted chunks behind a demand that waits": 4, "prefetched chunks behind a demand that waits": 6,
    "chunks with a rest": 60, "several copies in flight": 150, "demands that wait for room": 60,
    # the cache
    "evictions": 200, "victims that had run": 40, "several victims at once": 15, "bypasses": 30, "too large": 15,
    "pushed out of staging": 6, "demands that wait for a slot": 4, "waves run": 40, "waves": 40,
    "pushed out before its turn": 6, "reloads": 6, "index": 80, "barrier": 100, "eager": 100,
    "unequal sizes": 120, "shared keys": 40, "staging": 60, "global": 150, "layer": 150,
    # classes
    "late_keys_prefill": 60, "late_keys_decode": 25, "prefetch_keys_prefill": 50, "prefetch_keys_decode": 25,
    "miss_keys_decode": 100, "late_stall": 40, "miss_stall": 200,
    # the prefetcher
    "asked for an idle link": 80, "asked across a step's start": 4, "asked between steps": 4,
    "fickle": 25, "guess.py": 40, "soonest.py": 40, "wanderer.py": 40,
    # the host and the server
    "launch": 150, "sync": 150, "copy_submit": 150, "decision": 150, "decoupled": 150, "layerwise": 100,
    "side": 80, "critical": 80, "free": 200, "frozen": 150, "closed": 60, "all": 60, "poisson": 50, "gamma": 40,
    "prompts in parts": 15, "prefill and decode together": 40, "waiting between steps": 40, "two experts a token": 100,
    "bound lengths": 40,
    # policies
    "history": 100, "step": 40, "queue": 40, "oracle": 60, "persist": 25, "picky.py": 40, "lookahead": 80,
    "compiled": 60,
}  # fmt: skip
"""in how many of 600 cases something must have occurred, at least"""
PER = 600


def occurred(case: Case, run: Run, compiled: bool) -> set[str]:
    """Names of all that occurred in a case."""
    found = {name for name, number in run.counts.items() if number > 0}
    for _, outcome in run.steps:
        found |= {name for name, ns in outcome.parts.items() if ns}
    return found | set(_of_the_case(case)) | set(_of_the_steps(run)) | ({"compiled"} if compiled else set())


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
        "shared keys": len({key for row in case.key_map for key in row}) < case.layers * case.experts * bool(case.key_map),
        "staging": memory["staging"] > 0,
        "two experts a token": case.k > 1,
        "chunks with a rest": any(size % machine["chunk_bytes"] for size in sizes),
        "several copies in flight": machine["copies_in_flight"] > 1,
        "bound lengths": "prompt" in traffic or "output" in traffic,
    }
    yield from (name for name, there in traits.items() if there)
    yield from _policy("cache", changes["cache"])
    yield from _policy("prefetch", changes["prefetch"])


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
