"""Routes revealed only at each layer's gate: the same choices, the same steps, and what knowing them late costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from moesim import policy
from moesim.check.toy import ToyCosts, ToyLink, config, ends, run, shape, trace
from moesim.experiment import PolicySpec
from moesim.sim import Inputs, RunResult, check, simulate
from moesim.trace.reveal import at_gate
from moesim.trace.routing import RoutingTrace
from moesim.trace.synthetic import synthetic

LAYERS, EXPERTS = 4, 6
SLOW = ToyCosts(launch=3, sync=40, copy_submit=2, decision=5, gate_ns=7, router_ns=90, sample=11)
HISTORY = [name for name in policy.names("cache") if policy.make("cache", PolicySpec(name=name)).level == "history"]


def routed(**changes: Any) -> RoutingTrace:
    given = {"sequences": 16, "prompt_tokens": 5, "output_tokens": 9, "k": 2, "persistence": 0.6} | changes
    return synthetic("sticky", layers=LAYERS, experts=EXPERTS, key_bytes=1000, seed=7, **given)


def served(made: RoutingTrace, **changes: Any) -> RunResult:
    """Served frozen, three at a time in a closed loop, with caches of three slots a layer."""
    plain: dict[str, Any] = {
        "traffic": {"kind": "closed", "concurrency": 4, "requests": 12},
        "scheduler": {"batch": "decode-first", "max_tokens": 16, "max_requests": 3},
        "memory": {"slots": 3, "scope": "layer"},
        "schedule": "frozen",
    }
    inputs = Inputs(made, shape(LAYERS, EXPERTS), SLOW, ToyLink(fixed=50))  # type: ignore[arg-type]
    return simulate(config(**plain | changes), inputs, 0, check=True)


def missed(result: RunResult) -> list[int]:
    return result.steps["miss_keys"].tolist()


# ---- by hand


def test_a_token_waits_for_each_gate_and_its_synchronisation() -> None:
    """One token a step, its expert there: 7 + 40 ns more a layer, and no router with its synchronisation."""
    tokens = [([0], [0, 0, 0])]
    costs = ToyCosts(sync=40, gate_ns=7, router_ns=90)
    known = ends(run(tokens, layers=3, costs=costs, memory={"slots": 4}))
    late = ends(run(at_gate(trace(tokens, layers=3), 3), layers=3, costs=costs, memory={"slots": 4}))
    assert known[1] - known[0] == 3 * (10 + 100) + 40 + 90 + 40
    assert late[1] - late[0] == 3 * (10 + 7 + 40 + 100) + 40


# ---- what stays the same


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("name", HISTORY)
def test_history_policies_miss_the_same_in_the_same_steps(name: str, scope: str) -> None:
    made = routed()
    memory = {"slots": 3, "scope": scope}
    known, late = (served(t, cache=name, memory=memory) for t in (made, at_gate(made, LAYERS)))
    assert sum(missed(known)) > 50
    assert missed(late) == missed(known)
    for column in ("prefill_tokens", "decode_tokens", "unique_keys"):
        assert known.steps[column].tolist() == late.steps[column].tolist()
    assert late.counters["min_miss_keys"] == known.counters["min_miss_keys"]
    assert late.steps["end_ns"][-1] != known.steps["end_ns"][-1]


def test_the_oracle_misses_the_same_too() -> None:
    made = routed(k=1, prompt_tokens=2)
    fitting = {"batch": "decode-first", "max_tokens": 3, "max_requests": 3}
    cache = {"name": "lookahead", "level": "oracle"}
    known, late = (served(t, cache=cache, scheduler=fitting) for t in (made, at_gate(made, LAYERS)))
    assert missed(late) == missed(known)
    assert sum(missed(late)) == late.counters["min_miss_keys"] > 0


@pytest.mark.parametrize("traffic", [
    {"kind": "poisson", "rate": 1e6, "requests": 12},
    {"kind": "all", "requests": 12, "prompt": {"kind": "uniform", "min": 2, "max": 9}, "output": 7},
])  # fmt: skip
def test_so_with_other_traffic_and_lengths_that_are_put_together(traffic: dict[str, Any]) -> None:
    made = routed()
    known, late = (served(t, traffic=traffic) for t in (made, at_gate(made, LAYERS)))
    assert missed(late) == missed(known)


@pytest.mark.parametrize("preempt", ["recompute", "swap"])
def test_so_where_kv_memory_is_short(preempt: str) -> None:
    made = routed()
    memory = {"slots": 3, "kv": {"blocks": 9, "block_tokens": 3, "watermark": 0.0, "preempt": preempt}}
    known, late = (served(t, memory=memory) for t in (made, at_gate(made, LAYERS)))
    assert known.requests["preemptions"].sum() > 0
    assert missed(late) == missed(known)
    assert late.requests["preemptions"].tolist() == known.requests["preemptions"].tolist()


def test_free_it_is_the_server_of_a_layer_wise_trace() -> None:
    """The same routes written out for every layer, by hand, and served as they run: nothing differs."""
    made = routed()
    tiled = replace(
        made,
        meta=made.meta.model_copy(update={"router": "layerwise"}),
        experts=np.repeat(made.experts, LAYERS, axis=1),
        weights=np.repeat(made.weights, LAYERS, axis=1),
    )
    late, written = (served(t, schedule="free") for t in (at_gate(made, LAYERS), tiled))
    assert {name: column.tolist() for name, column in late.steps.items()} == {
        name: column.tolist() for name, column in written.steps.items()
    }


def test_its_bound_is_that_of_the_server_that_waits_for_its_gates() -> None:
    made = at_gate(routed(), LAYERS)
    whole = served(made, memory={"slots": EXPERTS})
    small = served(made)
    assert small.counters["bound_resident_ns"] == whole.counters["bound_resident_ns"]
    filled = served(made, memory={"slots": EXPERTS}, warmup_steps=len(whole.steps["end_ns"]) - 4)
    assert not filled.steps["miss_keys"][-4:].any()
    assert filled.counters["bound_resident_ns"] == filled.steps["end_ns"][-1] - filled.steps["start_ns"][-4]
    known = served(routed())
    assert known.counters["bound_resident_ns"] != small.counters["bound_resident_ns"]


# ---- what may be asked


def test_what_needs_to_know_more_is_refused() -> None:
    made = at_gate(routed(k=1), LAYERS)
    inputs = Inputs(made, shape(LAYERS, EXPERTS), SLOW, ToyLink())  # type: ignore[arg-type]
    asked = config(
        cache={"name": "lookahead", "level": "step"}, prefetch="speculative",
        scheduler={"batch": "expert-aware", "max_tokens": 8, "max_requests": 2},
    )  # fmt: skip
    texts = [str(problem) for problem in check(asked, inputs)]
    late = "trace.reveal is at-gate: a layer's experts are known at its gate and no sooner"
    none = "trace.reveal is at-gate, and a decoupled router has recorded no guesses; take one of level 'layer'"
    assert texts == [
        f"cache: 'lookahead' needs level 'step': {late}",
        f"prefetch: 'speculative' needs level 'predicted': {none}",
        f"scheduler.batch: 'expert-aware' needs level 'queue': {late}",
    ]
    assert check(config(cache={"name": "lookahead", "level": "oracle"}, prefetch="edgemoe"), inputs) == []


def test_results_say_when_routes_were_known() -> None:
    assert "(synthetic, revealed at each gate)" in served(at_gate(routed(), LAYERS)).labels["routing"]
    assert "revealed" not in served(routed()).labels["routing"]
