"""Random toy cases: a configuration, a trace, costs and a link, small enough that everything happens often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from moesim import policy
from moesim.check import toy
from moesim.experiment import Experiment, PolicySpec
from moesim.hardware.costs import CostTable
from moesim.hardware.files import ARGUMENTS, CostFile
from moesim.hardware.shape import ModelShape
from moesim.policy import NEAR_VIEWS
from moesim.sim import Inputs
from moesim.trace.arrivals import Arrivals


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

    host = {name: getattr(costs, name) for name in ("launch", "sync", "copy_submit", "decision", "forming", "planning")}
    components = [name for name in ARGUMENTS if name != "cpu_expert" or costs.has_cpu]
    axes = {name: {argument: [1, 2] for argument in arguments} for name, arguments in ARGUMENTS.items()}
    file = {
        "format": "moesim-costs", "version": 1, "name": "toy", "label": "ESTIMATED", "device": "none",
        "command": "none", "formula": {"all": "see Costs"}, "shape": toy.shape().model_dump(mode="json"),
        "constants": [{"name": "ns", "value": 1, "unit": "ns", "source": "this test"}], "host_ns": host,
        "components": {name: {"axes": axes[name], "ns": times(name)} for name in components},
    }  # fmt: skip
    return CostTable(CostFile.model_validate(file), repr(costs), allow_extrapolation=True)


@dataclass(frozen=True)
class Link(toy.ToyLink):
    """Copies to the host cost something else, and both directions get in each other's way."""

    both_ways: tuple[Fraction, Fraction] = (Fraction(1), Fraction(1))  # type: ignore[assignment]
    lacks: tuple[str, ...] = ()

    def to_host(self, bytes: int) -> int:
        return 2 * self.fixed + bytes + bytes // 4


@dataclass(frozen=True)
class Guesses:
    """What gates predict of later layers: `places` experts for each of `distances`, right ones as often as not."""

    distances: int
    places: int
    seed: int

    def make(self, sequences: tuple[Any, ...], experts: int) -> dict[int, list[Any]]:
        """By distance: a list [tokens][layers][places], -1 where there is none."""
        rng = Random(self.seed)
        tokens = [token for prompt, output in sequences for token in (*prompt, *output)]

        def guess(token: list[list[int]], layer: int) -> list[int]:
            if layer >= len(token):
                return [-1] * self.places
            others = rng.sample(range(experts), experts)
            likely = [expert for expert in token[layer] if expert >= 0 and rng.random() < 0.6]
            named = [*dict.fromkeys([*likely, *others])][: rng.randint(1, self.places)]
            return named + [-1] * (self.places - len(named))

        return {
            distance: [[guess(token, layer + distance) for layer in range(len(token))] for token in tokens]
            for distance in range(1, self.distances + 1)
        }


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
    kv_values: int = 0
    both_ways: tuple[str, str] = ("1", "1")
    guesses: Guesses | None = None
    replication: int = 0
    weights: int | None = None
    """seed of gate weights; None: all the same"""
    arrivals: tuple[tuple[int, int, int], ...] = ()
    """of a file: instant, prompt and output tokens of each request"""

    def build(self) -> tuple[Experiment, Inputs]:
        predicted = self.guesses and self.guesses.make(self.sequences, self.experts)
        trace = toy.trace(
            list(self.sequences), layers=self.layers, experts=self.experts, router=self.router, k=self.k,
            predicted=predicted, weights=self._weights(),
        )  # fmt: skip
        sizes = toy.shape(self.layers, self.experts).model_dump() | {"top_k": self.k, "kv_values": self.kv_values}
        shape = ModelShape(**sizes | {"key_map": self.key_map, "key_sizes": self.key_sizes})
        to_device, to_host = map(Fraction, self.both_ways)
        link = Link(self.fixed, both_ways=(to_device, to_host))
        arrivals = None
        if self.arrivals:
            at, prompts, outputs = (np.array(column) for column in zip(*self.arrivals, strict=True))
            arrivals = Arrivals(at.astype(np.int64), prompts.astype(np.int32), outputs.astype(np.int32))
        inputs = Inputs(trace, shape, table(self.costs), link, arrivals)  # type: ignore[arg-type]
        return toy.config(**dict(self.changes)), inputs

    def _weights(self) -> list[Any] | None:
        if self.weights is None:
            return None
        rng = Random(self.weights)
        tokens = sum(len(prompt) + len(output) for prompt, output in self.sequences)
        rows = 1 if self.router == "decoupled" else self.layers
        return [rng.choice([0.0, 0.125, 0.3, 0.5, 1.0]) for _ in range(tokens * rows * self.k)]


HERE = Path(__file__).parent
WHIM = str(HERE / "misses" / "whim.py")
PICKY = str(HERE / "caches" / "picky.py")
GUESS, SOONEST, WANDERER = (str(HERE / "prefetchers" / f"{name}.py") for name in ("guess", "soonest", "wanderer"))
BY_A_RULE = ("lru", "fifo", "lfu", "lookahead")
"""cache policies that the simulator knows how to run as compiled code"""
PATIENT = ("cache-aware", "chunked-prefill", "decode-first", "expert-aware-aged", "first-come", "prefill-first")
"""batch policies with an age limit, beyond the length of most cases unless they set it"""
FAR_LEVELS = ("step", "queue", "oracle")


@lru_cache
def shipped(kind: str, decoupled: bool) -> list[str]:
    """Policies that take no parameters and know no more than a router of that kind can tell."""
    found = []
    for name in policy.names(kind):
        level = policy.make(kind, PolicySpec(name=name)).level
        if level == "predicted":
            continue
        if level in NEAR_VIEWS or level == "oracle" or (decoupled and level in FAR_LEVELS):
            found.append(name)
    return found


def cases() -> st.SearchStrategy[Case]:
    """Random cases. Each comes from one seed: near-copies of one another, which shrink well, would show less."""
    return st.randoms(use_true_random=True).map(case)


def case(rng: Random) -> Case:
    layers, experts = rng.randint(1, 4), rng.randint(1, 5)
    router = rng.choice(["decoupled", "layerwise"])
    decoupled = router == "decoupled"
    k = rng.randint(1, min(2, experts))
    tight = rng.random() < 0.3
    # Several requests at once, and tokens enough to grow out of a small memory.
    most = (rng.choice([1, 2, 8, 8]), 9) if tight else (6, 4)
    sequences = routes(rng, experts, 1 if decoupled else layers, k, *most)
    # Some cases are such that the simulator may run them as compiled code.
    plain = rng.random() < 0.15
    key_map, key_sizes = ((), ()) if plain else keys(rng, layers, experts)
    count = 1 + max(key for row in key_map for key in row) if key_map else layers * experts
    schedule = rng.choice(["free", "frozen"])
    # A frozen schedule knows no cache that a batcher could look at.
    batches = [name for name in shipped("batch", decoupled) if schedule == "free" or name != "cache-aware"]
    batch = {"name": "chunked-prefill" if tight and rng.random() < 0.4 else rng.choice(batches)}
    if batch["name"] in PATIENT and rng.random() < 0.5:
        batch["patience"] = rng.randint(0, 2)
    guesses = None
    if not decoupled and rng.random() < 0.5:
        guesses = Guesses(rng.randint(1, 3), rng.randint(1, experts), rng.getrandbits(32))
    changes: dict[str, Any] = {
        "memory": memory(rng, layers, experts, key_sizes or (1000,) * count, bool(key_map), plain),
        "traffic": traffic(rng, len(sequences), tight),
        "scheduler": {
            "batch": batch,
            "max_tokens": rng.choice([3, 4, 3 if tight else 64, 64]),
            "max_requests": rng.choice([1, 2, 2, 3, 4, 5]) if tight else rng.randint(1, 3),
        },
        "cache": cache(rng, decoupled, plain),
        "prefetch": "none" if plain else prefetch(rng, decoupled, count, guesses),
        "machine": {
            "chunk_bytes": rng.choice([300, 500, 90, 300, 1000, 2000]),
            "copies_in_flight": rng.randint(1, 3),
            "expert_start": rng.choice(["eager", "barrier"] if plain else ["eager", "barrier", "index"]),
            "router": rng.choice(["critical", "side", "side" if tight else "critical"]),
        },
        "schedule": schedule,
        "replications": rng.choice([1, 1, 3]),
    }
    fixed, kernels = rng.choice([0, 50]), costs(rng)
    weights = None
    if not plain and rng.random() < 0.2:
        kernels = replace(kernels, cpu=rng.choice([20, 300]))
        changes["miss"], weights = miss(rng), rng.choice([None, rng.getrandbits(32)])
    values = rng.choice([5, 30, 150])
    both_ways = rng.choice(["1", "1.25", "1.1"]), rng.choice(["1", "2", "1.7"])
    arrivals = a_file(rng) if changes["traffic"]["kind"] == "trace" else ()
    if tight:
        lengths = arrivals or "prompt" in changes["traffic"] or "output" in changes["traffic"]
        changes["memory"]["kv"] = kv(rng, 15 if lengths else longest(sequences), 2 * values * layers)
    return Case(
        sequences, layers, experts, router, kernels, fixed, tuple(changes.items()), k, key_map, key_sizes, values,
        both_ways, guesses, rng.randrange(changes["replications"]), weights, arrivals,
    )  # fmt: skip


def longest(sequences: tuple[Any, ...]) -> int:
    """Tokens of a sequence that are processed, at most."""
    return max(len(prompt) + len(output) - 1 for prompt, output in sequences)


def kv(rng: Random, tokens: int, token_bytes: int) -> dict[str, Any]:
    """Room for a request of so many tokens, and not much more."""
    block = rng.randint(1, 4)
    needed = -(-tokens // block)
    blocks = needed + rng.choice([0, 1, 2, rng.randint(0, needed)])
    found: dict[str, Any] = {"block_tokens": block, "preempt": rng.choice(["recompute", "swap"])}
    found["watermark"] = rng.choice([0.0, 0.0, 0.01, 0.1, 0.3])
    if rng.random() < 0.5:
        return found | {"blocks": blocks}
    size = block * token_bytes
    return found | {"bytes": blocks * size + rng.randrange(size)}


def costs(rng: Random) -> Costs:
    """Forming a step takes something else than a decision of 5, planning a key than a submission of 2."""
    made = Costs(
        launch=rng.choice([0, 3, 30]),
        sync=rng.choice([0, 7, 60]),
        copy_submit=rng.choice([0, 2, 50]),
        decision=rng.choice([0, 5, 150]),
        attention=rng.choice([1, 10, 400]),
        expert=rng.choice([1, 100, 1500]),
        gate_ns=rng.choice([1, 5]),
        router_ns=rng.choice([0, 11, 300]),
        sample=rng.choice([0, 13]),
        rest=rng.choice([0, 4]),
    )
    made = replace(made, formed=11) if made.decision == 5 else made
    return replace(made, planned=9) if made.copy_submit == 2 else made


def routes(rng: Random, experts: int, rows: int, k: int, prompt: int, output: int) -> tuple[Any, ...]:
    """Sequences of (prompt, output), of so many tokens at most.

    A token is a list of `k` experts for each of `rows` layers, -1 being none.
    """

    def token() -> list[list[int]]:
        chosen = [rng.sample(range(experts), k) for _ in range(rows)]
        return [row if rng.random() < 0.7 else row[:1] + [-1] * (k - 1) for row in chosen]

    def tokens(most: int) -> list[Any]:
        return [token() for _ in range(rng.randint(1, most))]

    return tuple((tokens(prompt), tokens(output)) for _ in range(rng.randint(1, 4)))


def keys(rng: Random, layers: int, experts: int) -> tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]:
    """The map of keys (empty: each layer has its own) and their sizes (empty: all the same)."""
    key_map: tuple[tuple[int, ...], ...] = ()
    count = layers * experts
    if rng.random() < 0.3:
        count = rng.randint(experts, count)
        rows = [rng.sample(range(count), experts) for _ in range(layers)]
        dense = {key: number for number, key in enumerate(sorted({key for row in rows for key in row}))}
        key_map = tuple(tuple(dense[key] for key in row) for row in rows)
        count = len(dense)
    if rng.random() < 0.4:
        return key_map, ()
    return key_map, tuple(rng.choices([100, 350, 600, 1000, 1700], k=count))


def memory(
    rng: Random, layers: int, experts: int, sizes: tuple[int, ...], shared: bool, plain: bool
) -> dict[str, Any]:
    staging = 0 if plain else rng.choice([0, 0, 1, 1, 2, 3])
    found: dict[str, Any] = {"scope": "global" if shared else rng.choice(["layer", "global"]), "staging": staging}
    if rng.random() < 0.5:
        return found | {"slots": rng.randint(1, experts)}
    # Room for one key to all of them; with staging slots, a key need not fit its pool.
    pools = layers if found["scope"] == "layer" else 1
    largest = max(sizes)
    least = largest // 2 if staging else largest
    room = rng.randint(least, max(least, sum(sizes) // pools))
    return found | {"bytes": pools * room + staging * largest}


def traffic(rng: Random, sequences: int, tight: bool) -> dict[str, Any]:
    kind = rng.choice(["all", "closed", "poisson", "gamma", "trace"])
    found: dict[str, Any] = {"kind": kind, "requests": rng.randint(1, sequences + 1) + 3 * tight}
    if kind == "trace":
        window = {"from": rng.choice([0, 1e-7]), "to": rng.choice([None, 2e-5])}
        return found | {"arrivals": {"file": "toy", "scale": rng.choice([0.5, 1, 3]), "sample": 0.8, **window}}
    if kind == "closed":
        found["concurrency"] = rng.randint(1, 3) + 2 * tight
    if kind in ("poisson", "gamma"):
        found["rate"] = rng.choice([1e5, 1e6])
    if kind == "gamma":
        found["cv"] = 2.0
    for part in ("prompt", "output"):
        if rng.random() < 0.15:
            found[part] = {"kind": "uniform", "min": 1, "max": 7}
    return found


def a_file(rng: Random) -> tuple[tuple[int, int, int], ...]:
    """Requests that come by themselves or in bursts: instant, prompt and output tokens."""
    times = sorted(rng.choice([0, 500, 3000, rng.randint(0, 10**5)]) for _ in range(rng.randint(1, 9)))
    return tuple((at, rng.randint(1, 7), rng.randint(1, 7)) for at in times)


def cache(rng: Random, decoupled: bool, plain: bool) -> Any:
    kind = rng.choice(["shipped", "lookahead"] if plain else ["shipped", "shipped", "picky", "lookahead"])
    if kind == "shipped":
        names = BY_A_RULE if plain else shipped("cache", decoupled)
        return rng.choice([name for name in names if name != "lookahead"])
    if kind == "picky":
        return {"name": PICKY, "every": rng.randint(1, 4)}
    level = rng.choice(FAR_LEVELS if decoupled else ["oracle"])
    # An oracle has nothing to assume.
    unknown = rng.choice(["farthest", "persist"] if level != "oracle" else ["farthest"])
    return {"name": "lookahead", "level": level, "horizon": rng.choice([None, 0, 1, 3, 20]), "unknown": unknown}


def miss(rng: Random) -> Any:
    unpack = rng.choice([0.0, 0.3])
    if rng.random() < 0.6:
        return {"name": WHIM, "ratio": rng.choice([0.1, 0.4, 1.0]), "unpack_ns": unpack, "cost_ns": rng.choice([0, 25])}
    if rng.random() < 0.5:
        return {"name": "cpu-when-cheaper", "rule": rng.choice(["sum", "max"]), "fill": rng.random() < 0.5}
    t1, t2 = rng.choice([(None, 1.0), (0.3, 0.6), (0.5, 1.0)])
    return {"name": "smaller-copy", "ratio": rng.choice([0.25, 0.5]), "t1": t1, "t2": t2, "unpack_ns": unpack}


def prefetch(rng: Random, decoupled: bool, keys: int, guesses: Guesses | None) -> Any:
    kind = rng.choice(["none", "shipped", "guess", "guess", "soonest", "wanderer"])
    fickle = rng.random() < 0.6
    if guesses and rng.random() < 0.5:
        return {
            "name": "speculative", "distance": rng.randint(1, guesses.distances), "width": rng.randint(0, 2),
            "cancel": fickle, "latency_ns": rng.choice([0, 40, 700]),
        }  # fmt: skip
    if kind == "shipped":
        return rng.choice(shipped("prefetch", decoupled))
    if kind == "guess":
        return {"name": GUESS, "keys": keys, "most": rng.randint(1, 4), "fickle": fickle}
    level = rng.choice(FAR_LEVELS if decoupled else ["oracle"])
    if kind == "soonest":
        return {"name": SOONEST, "level": level, "most": rng.randint(1, 4), "fickle": fickle}
    return {"name": WANDERER, "level": level} if kind == "wanderer" else "none"
