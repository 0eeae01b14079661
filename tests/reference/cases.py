"""Random toy cases: a configuration, a trace, costs and a link, small enough that everything happens often."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from moesim import policy
from moesim.experiment import Experiment, PolicySpec
from moesim.hardware.costs import CostTable
from moesim.hardware.files import ARGUMENTS, CostFile
from moesim.hardware.shape import ModelShape
from moesim.policy import NEAR_VIEWS
from moesim.sim import Inputs
from tests.sim import toy


@dataclass(frozen=True)
class Costs(toy.ToyCosts):
    """Kernel times, linear in their arguments, that tell every argument apart."""

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


@lru_cache
def table(costs: Costs) -> CostTable:
    """The same times as a cost table: they are linear, so that two points of each argument say all."""

    def times(name: str, chosen: tuple[int, ...] = ()) -> Any:
        if len(chosen) < len(ARGUMENTS[name]):
            return [times(name, (*chosen, point)) for point in (1, 2)]
        if name == "attention_prefill":
            chosen = chosen[0], sum(chosen)
        return getattr(costs, name)(*chosen)

    host = {name: getattr(costs, name) for name in ("launch", "sync", "copy_submit", "decision")}
    axes = {name: dict.fromkeys(arguments, [1, 2]) for name, arguments in ARGUMENTS.items()}
    file = {
        "format": "moesim-costs", "version": 1, "name": "toy", "label": "ESTIMATED", "device": "none",
        "command": "none", "formula": {"all": "see Costs"}, "shape": toy.shape().model_dump(mode="json"),
        "constants": [{"name": "ns", "value": 1, "unit": "ns", "source": "this test"}], "host_ns": host,
        "components": {name: {"axes": axes[name], "ns": times(name)} for name in ARGUMENTS},
    }  # fmt: skip
    return CostTable(CostFile.model_validate(file), repr(costs), allow_extrapolation=True)


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
    k: int = 1
    key_map: tuple[tuple[int, ...], ...] = ()
    key_sizes: tuple[int, ...] = ()

    def build(self) -> tuple[Experiment, Inputs]:
        trace = toy.trace(
            list(self.sequences), layers=self.layers, experts=self.experts, router=self.router, k=self.k
        )
        sizes = toy.shape(self.layers, self.experts).model_dump() | {"top_k": self.k}
        shape = ModelShape(**sizes | {"key_map": self.key_map, "key_sizes": self.key_sizes})
        link = toy.ToyLink(self.fixed)
        inputs = Inputs(trace, shape, table(self.costs), link)  # type: ignore[arg-type]
        return toy.config(**dict(self.changes)), inputs


HERE = Path(__file__).parent
PICKY = str(HERE / "caches" / "picky.py")
GUESS, SOONEST, WANDERER = (str(HERE / "prefetchers" / f"{name}.py") for name in ("guess", "soonest", "wanderer"))
BY_A_RULE = ("lru", "fifo", "lfu", "lookahead")
"""cache policies that the simulator knows how to run as compiled code"""
FAR_LEVELS = ("step", "queue", "oracle")


def shipped(kind: str, decoupled: bool) -> list[str]:
    """Policies that take no parameters and know no more than a router of that kind can tell."""
    found = []
    for name in policy.names(kind):
        level = policy.make(kind, PolicySpec(name=name)).level
        if level in NEAR_VIEWS or level == "oracle" or (decoupled and level in FAR_LEVELS):
            found.append(name)
    return found


@st.composite
def cases(draw: st.DrawFn) -> Case:
    layers, experts = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    router = draw(st.sampled_from(["decoupled", "layerwise"]))
    decoupled = router == "decoupled"
    k = draw(st.integers(1, min(2, experts)))
    sequences = draw(routes(experts, 1 if decoupled else layers, k))
    # Some cases are such that the simulator may run them as compiled code.
    plain = draw(st.integers(0, 4)) == 0
    key_map, key_sizes = ((), ()) if plain else draw(keys(layers, experts))
    count = 1 + max(key for row in key_map for key in row) if key_map else layers * experts
    schedule = draw(st.sampled_from(["free", "frozen"]))
    # A frozen schedule knows no cache that a batcher could look at.
    batches = [name for name in shipped("batch", decoupled) if schedule == "free" or name != "cache-aware"]
    changes = {
        "memory": draw(memory(layers, experts, key_sizes or (1000,) * count, shared=bool(key_map), plain=plain)),
        "traffic": draw(traffic(len(sequences))),
        "scheduler": {
            "batch": draw(st.sampled_from(batches)),
            "max_tokens": draw(st.sampled_from([3, 4, 64])),
            "max_requests": draw(st.integers(1, 3)),
        },
        "cache": draw(cache(decoupled, plain)),
        "prefetch": "none" if plain else draw(prefetch(decoupled, count)),
        "machine": {
            "chunk_bytes": draw(st.sampled_from([1000, 500, 300, 90, 2000])),
            "copies_in_flight": draw(st.integers(1, 3)),
            "expert_start": draw(st.sampled_from(["eager", "barrier"] if plain else ["eager", "barrier", "index"])),
            "router": draw(st.sampled_from(["critical", "side"])),
        },
        "schedule": schedule,
    }
    return Case(
        sequences, layers, experts, router, draw(COSTS), draw(st.sampled_from([0, 50])), tuple(changes.items()),
        k, key_map, key_sizes,
    )  # fmt: skip


COSTS = st.builds(
    Costs,
    launch=st.sampled_from([0, 3, 30]),
    sync=st.sampled_from([0, 7, 60]),
    copy_submit=st.sampled_from([0, 2, 50]),
    decision=st.sampled_from([0, 5, 150]),
    attention=st.sampled_from([1, 10, 400]),
    expert=st.sampled_from([1, 100, 1500]),
    gate_ns=st.sampled_from([1, 5]),
    router_ns=st.sampled_from([0, 11, 300]),
    sample=st.sampled_from([0, 13]),
    rest=st.sampled_from([0, 4]),
)


@st.composite
def routes(draw: st.DrawFn, experts: int, rows: int, k: int) -> tuple[Any, ...]:
    """Sequences of (prompt, output); a token is a list of `k` experts for each of `rows` layers, -1 being none."""
    some = st.permutations(range(experts)).map(lambda order: order[:k])
    fewer = some.map(lambda chosen: chosen[:1] + [-1] * (k - 1))
    token = st.lists(some | some | fewer, min_size=rows, max_size=rows)
    sequence = st.tuples(st.lists(token, min_size=1, max_size=6), st.lists(token, min_size=1, max_size=4))
    return tuple(draw(st.lists(sequence, min_size=1, max_size=4)))


@st.composite
def keys(draw: st.DrawFn, layers: int, experts: int) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """The map of keys (empty: each layer has its own) and their sizes (empty: all the same)."""
    key_map: tuple[tuple[int, ...], ...] = ()
    count = layers * experts
    if draw(st.integers(0, 3)) == 0:
        count = draw(st.integers(experts, layers * experts))
        rows = [draw(st.permutations(range(count)))[:experts] for _ in range(layers)]
        dense = {key: number for number, key in enumerate(sorted({key for row in rows for key in row}))}
        key_map = tuple(tuple(dense[key] for key in row) for row in rows)
        count = len(dense)
    if draw(st.booleans()):
        return key_map, ()
    size = st.sampled_from([100, 350, 600, 1000, 1700])
    return key_map, tuple(draw(st.lists(size, min_size=count, max_size=count)))


@st.composite
def memory(draw: st.DrawFn, layers: int, experts: int, sizes: tuple[int, ...], shared: bool, plain: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"scope": "global" if shared else draw(st.sampled_from(["layer", "global"]))}
    found["staging"] = 0 if plain else draw(st.sampled_from([0, 0, 1, 2, 3]))
    if draw(st.booleans()):
        return found | {"slots": draw(st.integers(1, experts))}
    # Room for one key to all of them; with staging slots, a key need not fit its pool.
    pools = layers if found["scope"] == "layer" else 1
    largest = max(sizes)
    least = largest if not found["staging"] else largest // 2
    room = draw(st.integers(least, max(least, sum(sizes) // pools)))
    return found | {"bytes": pools * room + found["staging"] * largest}


@st.composite
def traffic(draw: st.DrawFn, sequences: int) -> dict[str, Any]:
    kind = draw(st.sampled_from(["all", "closed", "poisson", "gamma"]))
    found: dict[str, Any] = {"kind": kind, "requests": draw(st.integers(1, sequences + 1))}
    if kind == "closed":
        found["concurrency"] = draw(st.integers(1, 3))
    if kind in ("poisson", "gamma"):
        found["rate"] = draw(st.sampled_from([1e5, 1e6]))
    if kind == "gamma":
        found["cv"] = 2.0
    for part in ("prompt", "output"):
        if draw(st.integers(0, 5)) == 0:
            found[part] = {"kind": "uniform", "min": 1, "max": 7}
    return found


@st.composite
def cache(draw: st.DrawFn, decoupled: bool, plain: bool) -> Any:
    kind = draw(st.sampled_from(["shipped", "lookahead"] if plain else ["shipped", "shipped", "picky", "lookahead"]))
    if kind == "shipped":
        names = BY_A_RULE if plain else shipped("cache", decoupled)
        return draw(st.sampled_from([name for name in names if name != "lookahead"]))
    if kind == "picky":
        return {"name": PICKY, "every": draw(st.integers(1, 4))}
    level = draw(st.sampled_from(FAR_LEVELS if decoupled else ["oracle"]))
    return {
        "name": "lookahead",
        "level": level,
        "horizon": draw(st.sampled_from([None, 0, 1, 3, 20])),
        # An oracle has nothing to assume.
        "unknown": draw(st.sampled_from(["farthest", "persist"] if level != "oracle" else ["farthest"])),
    }


@st.composite
def prefetch(draw: st.DrawFn, decoupled: bool, keys: int) -> Any:
    kind = draw(st.sampled_from(["none", "shipped", "shipped", "guess", "soonest", "wanderer"]))
    fickle = draw(st.booleans())
    if kind == "shipped":
        return draw(st.sampled_from(shipped("prefetch", decoupled)))
    if kind == "guess":
        return {"name": GUESS, "keys": keys, "most": draw(st.integers(1, 4)), "fickle": fickle}
    level = draw(st.sampled_from(FAR_LEVELS if decoupled else ["oracle"]))
    if kind == "soonest":
        return {"name": SOONEST, "level": level, "most": draw(st.integers(1, 4)), "fickle": fickle}
    return {"name": WANDERER, "level": level} if kind == "wanderer" else "none"
