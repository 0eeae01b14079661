"""Random toy cases: a configuration, a trace, costs and a link, small enough that everything happens often."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from moesim.experiment import Experiment
from moesim.sim import Inputs
from tests.sim import toy


@dataclass(frozen=True)
class Costs(toy.ToyCosts):
    """Kernel times that tell every argument apart."""

    rest: int = 4
    per_token: int = 3
    per_largest: int = 7

    def attention_prefill(self, tokens: int, context: int) -> int:
        return self.attention + tokens + context

    def attention_decode(self, batch: int, context: int) -> int:
        return self.attention + 2 * batch + context

    def layer_rest(self, tokens: int) -> int:
        return self.rest

    def router(self, tokens: int) -> int:
        return self.router_ns + tokens

    def experts(self, tokens: int, active: int, largest: int) -> int:
        return self.expert * active + self.per_token * tokens + self.per_largest * largest

    def step_rest(self, tokens: int) -> int:
        return self.sample + tokens


@dataclass(frozen=True)
class Case:
    """One toy experiment; `build` makes what the simulator and the reference read."""

    sequences: tuple[Any, ...]
    layers: int
    experts: int
    router: str
    costs: Costs
    fixed: int
    changes: tuple[tuple[str, Any], ...]

    def build(self) -> tuple[Experiment, Inputs]:
        trace = toy.trace(list(self.sequences), layers=self.layers, experts=self.experts, router=self.router)
        inputs = Inputs(trace, toy.shape(self.layers, self.experts), self.costs, toy.ToyLink(self.fixed))  # type: ignore[arg-type]
        return toy.config(**dict(self.changes)), inputs


CACHES = ("lru", "fifo", "lfu", "random")
HERE = Path(__file__).parent / "prefetchers"
OWN_PREFETCHERS = (str(HERE / "soonest.py"), str(HERE / "guess.py"))
PREFETCHERS = ("next-layer", "step-ahead", *OWN_PREFETCHERS)
BATCHES = ("decode-first", "prefill-first")
AWARE = ("expert-aware", "expert-aware-aged")


@st.composite
def cases(draw: st.DrawFn) -> Case:
    layers, experts = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    router = draw(st.sampled_from(["decoupled", "layerwise"]))
    decoupled = router == "decoupled"
    expert = st.integers(0, experts - 1)
    token = expert if decoupled else st.lists(expert, min_size=layers, max_size=layers)
    sequence = st.tuples(st.lists(token, min_size=1, max_size=6), st.lists(token, min_size=1, max_size=4))
    sequences = draw(st.lists(sequence, min_size=1, max_size=4))
    costs = Costs(
        launch=draw(st.sampled_from([0, 3, 30])),
        sync=draw(st.sampled_from([0, 7, 60])),
        copy_submit=draw(st.sampled_from([0, 2, 50])),
        decision=draw(st.sampled_from([0, 5, 150])),
        attention=draw(st.sampled_from([1, 10, 400])),
        expert=draw(st.sampled_from([1, 100, 1500])),
        gate_ns=draw(st.sampled_from([1, 5])),
        router_ns=draw(st.sampled_from([0, 11])),
        sample=draw(st.sampled_from([0, 13])),
        rest=draw(st.sampled_from([0, 4])),
    )
    machine = {
        "chunk_bytes": draw(st.sampled_from([1000, 500, 300, 90, 2000])),
        "copies_in_flight": draw(st.integers(1, 3)),
        "expert_start": draw(st.sampled_from(["eager", "barrier", "index"])),
        "router": draw(st.sampled_from(["critical", "side"])),
    }
    changes = {
        "memory": {"slots": draw(st.integers(1, experts)), "scope": draw(st.sampled_from(["layer", "global"]))},
        "traffic": draw(traffic(len(sequences))),
        "scheduler": {
            "batch": draw(st.sampled_from(BATCHES + AWARE if decoupled else BATCHES)),
            "max_tokens": draw(st.sampled_from([3, 4, 64])),
            "max_requests": draw(st.integers(1, 3)),
        },
        "cache": draw(cache(decoupled)),
        "prefetch": draw(st.just("none") | st.sampled_from(PREFETCHERS if decoupled else OWN_PREFETCHERS)),
        "machine": machine,
        "schedule": draw(st.sampled_from(["free", "frozen"])),
    }
    fixed = draw(st.sampled_from([0, 50]))
    return Case(tuple(sequences), layers, experts, router, costs, fixed, tuple(changes.items()))


@st.composite
def traffic(draw: st.DrawFn, sequences: int) -> dict[str, Any]:
    kind = draw(st.sampled_from(["all", "closed", "poisson"]))
    found: dict[str, Any] = {"kind": kind, "requests": draw(st.integers(1, sequences + 1))}
    if kind == "closed":
        found["concurrency"] = draw(st.integers(1, 3))
    if kind == "poisson":
        found["rate"] = 1e6
    return found


@st.composite
def cache(draw: st.DrawFn, decoupled: bool) -> Any:
    if draw(st.booleans()):
        return draw(st.sampled_from(CACHES))
    level = draw(st.sampled_from(["step", "queue", "oracle"] if decoupled else ["oracle"]))
    return {
        "name": "lookahead",
        "level": level,
        "horizon": draw(st.sampled_from([None, 0, 1, 3, 20])),
        # An oracle has nothing to assume.
        "unknown": draw(st.sampled_from(["farthest", "persist"] if level != "oracle" else ["farthest"])),
    }
