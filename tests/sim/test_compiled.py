"""Compiled steps equal what the engine works out layer event by layer event: every column, to the nanosecond."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim import policy
from moesim.check import toy
from moesim.errors import InputError
from moesim.experiment import Experiment
from moesim.files import shipped
from moesim.hardware.costs import CostTable, load_costs
from moesim.hardware.files import ARGUMENTS, CostFile
from moesim.hardware.link import load_link
from moesim.hardware.shape import load_shape
from moesim.policy import CachePolicy
from moesim.policy.rule import Rule, rule_of
from moesim.sim import Inputs, RunResult, simulate
from moesim.sim import compiled as compiled_module
from moesim.sim.compiled import compiled_steps
from moesim.sim.setup import set_up
from moesim.trace.routing import read_routing

pytest.importorskip("numba", reason="needs the fast extra (numba)")
from moesim.sim.kernel import costs as kernel_costs
from moesim.sim.kernel import layout
from moesim.sim.kernel import steps as kernel_steps

BY_A_RULE = ("lru", "fifo", "lfu", "lookahead")


# ---- cost tables


def table(seed: int, *, plain: bool = False, extrapolate: bool = True) -> CostTable:
    """A cost table of random times on a few uneven points, so that most times are interpolated and rounded.

    `plain`: host times are 0 and kernels take longer with more tokens, so that copies are what matters.
    """
    rng = random.Random(seed)

    def points() -> list[int]:
        return sorted(rng.sample([1, 2, 3, 5, 8, 13, 40], rng.randint(1, 4)))

    def times(axes: list[list[int]]) -> Any:
        return [times(axes[1:]) for _ in axes[0]] if axes else rng.randint(0, 900)

    components = {}
    for name, arguments in ARGUMENTS.items():
        axes = {argument: points() for argument in arguments if rng.random() < 0.85}
        components[name] = {"axes": axes, "ns": times(list(axes.values()))}
    host = {name: 0 if plain else rng.choice([0, 3, 70, 400]) for name in ("launch", "sync", "copy_submit", "decision")}
    document = {
        "format": "moesim-costs",
        "version": 1,
        "name": f"random {seed}",
        "label": "ESTIMATED",
        "device": "none",
        "command": "none",
        "formula": {"all": "random"},
        "constants": [{"name": "seed", "value": seed, "unit": "", "source": "this test"}],
        "shape": toy.shape().model_dump(mode="json"),
        "host_ns": host,
        "components": components,
    }
    return CostTable(CostFile.model_validate(document), f"random {seed}", allow_extrapolation=extrapolate)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.data())
def test_costs_are_those_of_the_table(seed: int, data: st.DataObject) -> None:
    """Interpolated, extrapolated and rounded alike, whatever axes a component has."""
    costs = table(seed)
    for number, component in enumerate(ARGUMENTS):
        asked = data.draw(st.tuples(*[st.integers(0, 60)] * 3))
        assert kernel_costs.cost_of(_table_alone(costs), number, *asked) == costs.at(component, *asked)


def _table_alone(costs: CostTable) -> np.ndarray:
    flat = costs.flat()
    m = np.zeros(layout.START_OF_AREAS + sum(area.size for area in flat), dtype=np.int64)
    at = layout.START_OF_AREAS
    for name, area in zip((layout.GRIDS, layout.POINTS, layout.TIMES), flat, strict=True):
        m[name], m[at : at + area.size] = at, area.reshape(-1)
        at += area.size
    return m


# ---- runs


def run_both(config: Experiment, inputs: Inputs) -> tuple[RunResult, RunResult]:
    assert compiled_steps(config, inputs, set_up(config, inputs, 0), False, True) is not None
    return simulate(config, inputs, 0, compiled=True, check=True), simulate(config, inputs, 0, direct=True)


def assert_equal(fast: RunResult, slow: RunResult) -> None:
    assert fast.counters == slow.counters
    for one, other in ((fast.steps, slow.steps), (fast.requests, slow.requests)):
        assert one.keys() == other.keys()
        for name, column in other.items():
            assert np.array_equal(one[name], column), name


@st.composite
def cases(draw: st.DrawFn) -> tuple[Experiment, Inputs]:
    experts, layers = draw(st.integers(2, 6)), draw(st.integers(1, 5))
    router = draw(st.sampled_from(["decoupled", "layerwise"]))
    k = draw(st.integers(1, min(2, experts)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = 1 if router == "decoupled" else layers

    def tokens(most: int) -> list[Any]:
        chosen = rng.random((rng.integers(1, most + 1), rows, experts)).argsort(axis=-1)[..., :k].astype(np.int16)
        return list(np.where(rng.random(chosen.shape) < 0.1, -1, chosen))  # some slots have no expert

    sequences = [(tokens(5), tokens(6)) for _ in range(draw(st.integers(2, 6)))]
    requests = draw(st.integers(1, 4))
    traffic: dict[str, Any] = {"kind": draw(st.sampled_from(["closed", "all", "poisson"])), "requests": len(sequences)}
    if traffic["kind"] == "closed":
        traffic["concurrency"] = draw(st.integers(1, 4))
    if traffic["kind"] == "poisson":
        traffic["rate"] = 2e5
    scope = draw(st.sampled_from(["layer", "global"]))
    memory: dict[str, Any] = {"slots": draw(st.integers(1, experts)), "scope": scope}
    if draw(st.booleans()):
        longest = max(len(prompt) + len(output) - 1 for prompt, output in sequences)
        preempt = draw(st.sampled_from(["recompute", "swap"]))
        memory["kv"] = {"blocks": longest + draw(st.integers(0, 6)), "block_tokens": 1, "preempt": preempt}
    config = toy.config(
        memory=memory,
        traffic=traffic,
        scheduler={"max_requests": requests, "max_tokens": draw(st.integers(requests, 9))},
        machine={
            "expert_start": draw(st.sampled_from(["eager", "barrier"])),
            "router": draw(st.sampled_from(["critical", "side"])),
            "chunk_bytes": draw(st.sampled_from([90, 300, 500, 1000])),
            "copies_in_flight": draw(st.integers(1, 4)),
        },
        cache=draw(by_a_rule(router)),
        schedule=draw(st.sampled_from(["frozen", "free"])),
        steps=60,
        warmup_steps=draw(st.sampled_from([0, 3])),
    )
    made = toy.trace(sequences, layers=layers, experts=experts, router=router, k=k)
    costs = table(draw(st.integers(0, 300)), plain=draw(st.booleans()))
    return config, Inputs(made, toy.shape(layers, experts), costs, toy.ToyLink(draw(st.integers(0, 80))))  # type: ignore[arg-type]


@st.composite
def by_a_rule(draw: st.DrawFn, router: str) -> Any:
    name = draw(st.sampled_from(BY_A_RULE))
    if name != "lookahead":
        return name
    level = draw(st.sampled_from(["step", "queue", "oracle"] if router == "decoupled" else ["oracle"]))
    unknown = draw(st.sampled_from(["farthest", "persist"])) if level != "oracle" else "farthest"
    return {"name": name, "level": level, "horizon": draw(st.sampled_from([None, 0, 1, 4, 15])), "unknown": unknown}


@settings(max_examples=400, deadline=None, derandomize=True)
@given(cases())
def test_compiled_steps_equal_direct_work(case: tuple[Experiment, Inputs]) -> None:
    assert_equal(*run_both(*case))


@pytest.mark.parametrize("router", ["decoupled", "layerwise"])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("cache", [*BY_A_RULE[:3], {"name": "lookahead", "level": "oracle", "horizon": 40}])
def test_many_experts(cache: Any, scope: str, router: str) -> None:
    """Heaps of more than a few keys, more layers than a power of two, and sets that do and do not fit."""
    rng = np.random.default_rng(5)
    layers, experts, k = 9, 24, 3
    rows = 1 if router == "decoupled" else layers

    def tokens(number: int) -> list[Any]:
        return list(rng.random((number, rows, experts)).argsort(axis=-1)[..., :k].astype(np.int16))

    made = toy.trace([(tokens(12), tokens(9)) for _ in range(8)], layers=layers, experts=experts, router=router, k=k)
    config = toy.config(
        memory={"slots": 9, "scope": scope},
        traffic={"kind": "closed", "concurrency": 4, "requests": 12},
        scheduler={"max_requests": 3, "max_tokens": 16},
        cache=cache,
        steps=50,
    )
    inputs = Inputs(made, toy.shape(layers, experts), table(11), toy.ToyLink(20))  # type: ignore[arg-type]
    fast, slow = run_both(config, inputs)
    assert_equal(fast, slow)
    assert 0 < fast.counters["waves"] < fast.counters["layer_events"] or scope == "global"
    assert fast.counters["evictions"] > 200


SHIPPED = "smollm2-135m-readme-int4"


@pytest.fixture(scope="module")
def inputs() -> Inputs:
    shape = load_shape(SHIPPED)
    trace = read_routing(shipped("traces", "routing", "smollm2-135m-decoupled.parquet"))
    return Inputs(trace, shape, load_costs(f"h100-pcie5-{SHIPPED}", shape=shape), load_link("h100-pcie5"))


def configured(**changes: Any) -> Experiment:
    plain: dict[str, Any] = {
        "name": "shipped",
        "trace": "shipped",
        "model": SHIPPED,
        "costs": "h100-pcie5",
        "link": "h100-pcie5",
        "memory": {"slots": 4, "scope": "layer"},
        "traffic": {"kind": "closed", "concurrency": 8, "requests": 1000},
        "steps": 150,
    }
    return Experiment(**(plain | changes))


@pytest.mark.parametrize("schedule", ["free", "frozen"])
@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("cache", [*BY_A_RULE[:3], {"name": "lookahead", "level": "queue", "unknown": "persist"}])
def test_shipped_trace(cache: Any, scope: str, schedule: str, inputs: Inputs) -> None:
    memory = {"slots": 4, "scope": scope}
    assert_equal(*run_both(configured(cache=cache, memory=memory, schedule=schedule), inputs))


@pytest.mark.parametrize("schedule", ["free", "frozen"])
@pytest.mark.parametrize(
    "changes",
    [
        {"traffic": {"kind": "all", "requests": 60, "prompt": {"kind": "uniform", "min": 3, "max": 900}}},
        {"scheduler": {"batch": "cache-aware"}},
        {"traffic": {"kind": "poisson", "rate": 40, "requests": 300}, "machine": {"router": "side"}},
    ],
    ids=["lengths that nobody captured", "a batcher that looks at the cache", "arrivals while steps run"],
)
def test_other_servers(changes: dict[str, Any], schedule: str, inputs: Inputs) -> None:
    assert_equal(*run_both(configured(cache="lfu", schedule=schedule, **changes), inputs))


# ---- when they are not used


def test_every_policy_that_declares_a_rule_is_compared_here() -> None:
    declared = [name for name in policy.names("cache") if "rule" in vars(policy.find("cache", name))]
    assert sorted(declared) == sorted(BY_A_RULE)


def test_a_rule_holds_for_the_class_that_declares_it() -> None:
    lru = policy.find("cache", "lru")

    class Other(lru):  # type: ignore[valid-type, misc]
        """Does something else."""

    assert rule_of(lru()) == Rule()
    assert rule_of(Other()) is None
    assert rule_of(CachePolicy()) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"cache": "random"},
        {"prefetch": "step-ahead"},
        {"machine": {"expert_start": "index"}},
        {"memory": {"slots": 3, "staging": 1}},
    ],
    ids=["no rule", "prefetches", "one by one", "staging"],
)
def test_what_does_not_fit_runs_on_the_engine(changes: dict[str, Any], inputs: Inputs) -> None:
    config = configured(**changes)
    assert compiled_steps(config, inputs, set_up(config, inputs, 0), False, True) is None


def test_without_numba_results_are_the_same(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(steps=40)
    compiled = simulate(config, inputs, 0, compiled=True)
    monkeypatch.setattr(compiled_module, "find_spec", lambda name: None)
    assert compiled_steps(config, inputs, set_up(config, inputs, 0), False, True) is None
    assert_equal(compiled, simulate(config, inputs, 0, compiled=True))


def test_the_compiler_is_waited_for_once_there_is_enough_to_do(
    inputs: Inputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """30 layers: 4,000 steps are as long as loading the code takes, 83,334 as long as making it."""

    def used(steps: int) -> bool:
        config = configured(steps=steps)
        return compiled_steps(config, inputs, set_up(config, inputs, 0), False, None) is not None

    monkeypatch.setattr(compiled_module, "KEPT", tmp_path)
    monkeypatch.setattr(compiled_module, "_foregone", 0)
    assert used(20)  # it is loaded in this process
    monkeypatch.delitem(sys.modules, "moesim.sim.kernel.steps")
    monkeypatch.setattr(compiled_module, "_loaded", lambda: True)
    monkeypatch.setattr(compiled_module, "Compiled", lambda *args: "compiled")
    monkeypatch.setattr(compiled_module, "_foregone", 0)
    assert [used(3000), used(3000), used(80_000)] == [False, False, True]
    (tmp_path / "steps.run.nbi").touch()
    monkeypatch.setattr(compiled_module, "_foregone", 0)
    assert [used(3000), used(1000)] == [False, True]


def test_a_numba_that_does_not_load_is_none(inputs: Inputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "moesim.sim.kernel.steps", None)
    monkeypatch.delattr("moesim.sim.kernel.steps")
    config = configured()
    assert compiled_steps(config, inputs, set_up(config, inputs, 0), False, True) is None


def test_nowhere_to_keep_what_is_compiled() -> None:
    """A function from no file cannot be cached; it is compiled all the same."""
    namespace: dict[str, Any] = {}
    exec("def doubled(m, a, b, c, d):\n    return 2 * a", namespace)
    doubled = kernel_steps._compiled(kernel_steps.RUNS, namespace["doubled"])
    assert doubled(np.zeros(1, dtype=np.int64), 21, 0, 0, 0) == 42


# ---- what goes wrong


def test_a_cost_that_the_table_does_not_have_is_the_same_error() -> None:
    sequence = ([0, 1, 0, 1], [0, 1])
    tight = table(3, extrapolate=False)
    inputs = Inputs(toy.trace([sequence]), toy.shape(), tight, toy.ToyLink())  # type: ignore[arg-type]
    problems = []
    for how in ({"compiled": True}, {"direct": True}):
        with pytest.raises(InputError) as raised:
            simulate(toy.config(), inputs, 0, **how)  # type: ignore[arg-type]
        problems.append(raised.value.problems)
    assert problems[0] == problems[1]


@pytest.fixture
def broken(inputs: Inputs) -> Iterator[Any]:
    """A machine that has run nothing, to be damaged."""
    config = configured()
    machine = compiled_steps(config, inputs, set_up(config, inputs, 0), True, True)
    assert machine is not None
    yield machine


@pytest.mark.parametrize(
    ("place", "text"), [("HERE", "do not balance"), ("USED", "do not balance"), ("SLOTS", "nothing is on its way")]
)
def test_books_that_do_not_balance_are_found(place: str, text: str, broken: Any) -> None:
    """A key that nobody loaded, a slot that nobody uses, pools without room."""
    at = broken.m[getattr(layout, place)]
    broken.m[at : at + 30] = 0 if place == "SLOTS" else 1
    broken.ask([compiled_module.Part(0, 0, 4, True)], [0])
    with pytest.raises(AssertionError, match=text):
        broken.run(0, 0, 0, 0, None)
