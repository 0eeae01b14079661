"""What does not fit between a valid configuration and valid inputs is said, all of it, each with its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moesim.check.toy import ToyCosts, ToyLink, config, keys, shape, trace
from moesim.hardware.budget import pools
from moesim.hardware.keys import Keys
from moesim.policy import FAR_VIEWS, NEAR_VIEWS, PredictedView
from moesim.policy.base import LEVELS
from moesim.sim import Inputs, check
from moesim.sim.setup import keys_of, set_up

DECODED = [([0, 1], [0, 1]), ([1, 1, 1], [0])]
BY_LAYER = [([[0, 1]], [[1, 0]])]


def problems(
    layers: int = 2,
    experts: int = 4,
    *,
    sequences: Any = DECODED,
    router: str = "decoupled",
    meta: dict[str, Any] | None = None,
    **changes: Any,
) -> list[tuple[str, str]]:
    made = trace(sequences, layers=2, router=router, domains=("code", "prose")[: len(sequences)])
    made = replace(made, meta=made.meta.model_copy(update=meta or {}))
    inputs = Inputs(made, shape(layers, experts), ToyCosts(), ToyLink())  # type: ignore[arg-type]
    return [(p.place, p.text) for p in check(config(**changes), inputs)]


def test_what_fits_has_no_problems() -> None:
    assert problems() == []
    assert problems(sequences=BY_LAYER, router="layerwise") == []


def test_experts_of_trace_and_model() -> None:
    assert problems(experts=8) == [("trace", "has 4 experts, but model toy has 8")]


def test_two_measured_tables_are_of_one_machine() -> None:
    def of(label: str, device: str) -> list[tuple[str, str]]:
        costs, link = ToyCosts(label="MEASURED", device="H100"), ToyLink(label=label, device=device)
        inputs = Inputs(trace(DECODED, layers=2), shape(2, 4), costs, link)  # type: ignore[arg-type]
        return [(p.place, p.text) for p in check(config(), inputs)]

    assert of("MEASURED", "H100") == of("ESTIMATED", "A100") == []
    assert of("MEASURED", "A100") == [
        (
            "link",
            "toy was measured on 'A100', and cost table toy on 'H100'; take the link that was measured with it, or an "
            "ESTIMATED one",
        )
    ]


def test_a_measured_link_reaches_as_far_as_the_largest_chunk() -> None:
    def of(most: int | None, **changes: Any) -> list[tuple[str, str]]:
        inputs = Inputs(trace(DECODED, layers=2), shape(2, 4), ToyCosts(), ToyLink(most=most))  # type: ignore[arg-type]
        return [(p.place, p.text) for p in check(config(**changes), inputs)]

    key = max(keys_of(Inputs(trace(DECODED, layers=2), shape(2, 4), ToyCosts(), ToyLink())).sizes)  # type: ignore[arg-type]
    assert of(None) == of(key) == of(key - 1, machine={"chunk_bytes": key - 1}) == []
    assert of(key - 1, allow_extrapolation=True) == []
    ((place, text),) = of(key - 1)
    assert place == "link" and text.startswith(
        f"toy was measured for copies of up to {key - 1:,} bytes, and a chunk here has {key:,}"
    )


def test_layers_of_a_layerwise_router() -> None:
    text = "has a layer-wise router of 2 layers, but model toy has 3"
    assert problems(layers=3, sequences=BY_LAYER, router="layerwise") == [("trace", text)]
    assert problems(layers=3) == []  # a decoupled router's decision serves as many layers as there are


def test_keys_shared_between_layers_need_the_global_scope() -> None:
    shared = {"key_map": [[0, 1, 2, 3], [0, 1, 2, 3]]}
    assert problems(meta=shared, memory={"slots": 2, "scope": "global"}) == []
    text = "is layer, but layers of toy share experts: it must be global"
    assert problems(meta=shared, memory={"slots": 2, "scope": "layer"}) == [("memory.scope", text)]


def test_the_captured_models_key_map_serves_a_shape_of_as_many_layers() -> None:
    made = trace(DECODED, layers=2)
    made = replace(made, meta=made.meta.model_copy(update={"key_map": [[0, 1, 2, 3], [4, 1, 2, 3]]}))
    alike, deeper = (keys_of(Inputs(made, shape(n, 4), ToyCosts(), ToyLink())) for n in (2, 3))  # type: ignore[arg-type]
    assert alike.shared and alike.table[1] == (4, 1, 2, 3)
    assert deeper.plain and not deeper.shared


def test_staging_is_on_top_of_slots_and_taken_off_bytes() -> None:
    made = keys(2, 4)
    assert pools(config(memory={"slots": 2, "staging": 3}).memory, made)[0][1] == 2000
    assert pools(config(memory={"bytes": 7000, "staging": 3}).memory, made)[0][1] == 2000
    assert problems(memory={"bytes": 3000, "staging": 3, "scope": "global"}) == []
    text = "gives all layers -1 bytes once 3 staging slots are taken off, but one key of toy takes 1,000"
    assert problems(memory={"bytes": 2999, "staging": 3, "scope": "global"}) == [("memory", text)]


def test_slots_are_as_large_as_the_largest_key_of_their_layer() -> None:
    made = Keys.of(shape(2, 2).model_copy(update={"key_sizes": (10, 30, 20, 5)}))
    assert pools(config(memory={"slots": 2, "scope": "layer"}).memory, made) == [(range(2), 60), (range(2, 4), 40)]
    assert pools(config(memory={"slots": 2, "scope": "global"}).memory, made) == [(range(4), 100)]


@pytest.mark.parametrize(
    ("memory", "gives"),
    [
        ({"bytes": 999, "scope": "global"}, "gives all layers 999 bytes"),
        ({"bytes": 1999, "scope": "layer"}, "gives a layer 999 bytes"),
        ({"share": 0.1, "scope": "global"}, "gives all layers 800 bytes"),
        ({"share": 0.2, "scope": "layer"}, "gives a layer 800 bytes"),
    ],
)
def test_memory_in_which_not_one_key_fits(memory: dict[str, Any], gives: str) -> None:
    assert problems(memory=memory) == [("memory", f"{gives}, but one key of toy takes 1,000")]


def test_memory_in_which_one_key_fits_will_do() -> None:
    assert problems(memory={"bytes": 1000, "scope": "global"}) == []
    assert problems(memory={"bytes": 2000, "scope": "layer"}) == []
    assert problems(memory={"share": 0.25, "scope": "layer"}) == []


def test_more_slots_than_experts() -> None:
    assert problems(memory={"slots": 4}) == []
    assert problems(memory={"slots": 5}) == [("memory.slots", "5 is more than the 4 experts of a layer")]


def test_an_unknown_domain_names_the_nearest() -> None:
    mix = {"kind": "all", "requests": 1, "mix": {"code": 1.0, "pros": 1.0}}
    assert problems(traffic=mix) == [
        ("traffic.mix", "unknown domain 'pros'; did you mean 'prose'? There is: code, prose")
    ]


def test_both_ends_of_a_drift_are_checked() -> None:
    mix = {"kind": "all", "requests": 1, "mix": {"from": {"cod": 1.0}, "to": {"prose": 1.0, "verse": 0.0}}}
    assert [place for place, _ in problems(traffic=mix)] == ["traffic.mix.from", "traffic.mix.from", "traffic.mix.to"]
    assert problems(traffic=mix)[1][1] == "gives no weight to any of code, prose"


def test_a_domain_none_of_whose_sequences_is_long_enough_is_unknown() -> None:
    mix = {"kind": "all", "requests": 1, "prompt_min": 3, "mix": {"code": 1.0, "prose": 1.0}}
    assert problems(traffic=mix) == [("traffic.mix", "unknown domain 'code'. There is: prose")]


def test_no_sequence_fits_the_traffic() -> None:
    limits = {"kind": "all", "requests": 1, "prompt_min": 10}
    text = "no captured sequence fits its limits (prompts in the trace: 2 to 3 tokens)"
    assert problems(traffic=limits) == [("traffic", text)]


@pytest.mark.parametrize(
    ("changes", "place", "level"),
    [
        ({"cache": {"name": "lookahead", "params": {"level": "step"}}}, "cache", "step"),
        ({"cache": "lookahead"}, "cache", "queue"),
        ({"prefetch": "next-layer"}, "prefetch", "step"),
        ({"scheduler": {"batch": "expert-aware"}}, "scheduler.batch", "queue"),
    ],
)
def test_a_layerwise_router_does_not_know_what_some_levels_show(
    changes: dict[str, Any], place: str, level: str
) -> None:
    ((where, text),) = problems(sequences=BY_LAYER, router="layerwise", **changes)
    assert where == place
    assert f"needs level {level!r}: a layer-wise router knows a layer's experts only at its gate" in text
    assert problems(**changes) == []


def test_an_oracle_knows_a_layerwise_router_too() -> None:
    oracle = {"name": "lookahead", "params": {"level": "oracle"}}
    assert problems(sequences=BY_LAYER, router="layerwise", cache=oracle) == []


@pytest.mark.parametrize(
    ("predicted", "params", "text"),
    [
        ({}, {}, "the trace has no predictions of later layers (columns predicted_1 to predicted_3)"),
        ({1: [[[1], [-1]]] * 2}, {}, None),
        ({1: [[[1], [-1]]] * 2}, {"distance": 2}, "up to 2 layers ahead, and the trace has them for distance 1"),
        ({1: [[[1], [-1]]] * 2, 2: [[[-1], [-1]]] * 2}, {"distance": 2}, None),
    ],
)
def test_predictions_must_be_there(predicted: dict[int, Any], params: dict[str, Any], text: str | None) -> None:
    made = trace(BY_LAYER, layers=2, router="layerwise", predicted=predicted)
    inputs = Inputs(made, shape(2, 4), ToyCosts(), ToyLink())  # type: ignore[arg-type]
    found = check(config(prefetch={"name": "speculative", "params": params}), inputs)
    assert [p.place for p in found] == ["prefetch"] * (text is not None)
    assert text is None or text in found[0].text


def test_a_decoupled_router_predicts_nothing() -> None:
    ((place, text),) = problems(prefetch="speculative")
    assert place == "prefetch"
    assert text.startswith("'speculative' needs level 'predicted': a decoupled router predicts nothing")


def test_every_level_that_a_policy_may_name_has_a_view() -> None:
    assert {*NEAR_VIEWS, PredictedView.level, *FAR_VIEWS} == set(LEVELS)


def test_everything_wrong_is_said_at_once() -> None:
    found = problems(
        layers=3, experts=8, sequences=BY_LAYER, router="layerwise", meta={"key_map": [[0]]}, cache="lookahead",
        prefetch="step-ahead", scheduler={"batch": "expert-aware-aged"}, memory={"slots": 9},
        traffic={"kind": "all", "requests": 1, "mix": {"cod": 1.0}},
    )  # fmt: skip
    places = [place for place, _ in found]
    assert places == ["trace"] * 2 + ["memory.slots"] + ["traffic.mix"] * 2 + ["cache", "prefetch", "scheduler.batch"]


# ---- memory


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        ({"slots": 3, "scope": "layer"}, [(range(4), 3000), (range(4, 8), 3000)]),
        ({"slots": 3, "scope": "global"}, [(range(8), 6000)]),
        ({"bytes": 5000, "scope": "layer"}, [(range(4), 2500), (range(4, 8), 2500)]),
        ({"bytes": 5000, "scope": "global"}, [(range(8), 5000)]),
        ({"share": 0.5, "scope": "layer"}, [(range(4), 2000), (range(4, 8), 2000)]),
        ({"share": 0.5, "scope": "global"}, [(range(8), 4000)]),
    ],
)
def test_pools_of_equal_bytes_in_either_scope(memory: dict[str, Any], expected: list[tuple[range, int]]) -> None:
    assert pools(config(memory=memory).memory, keys(2, 4)) == expected


def test_labels_say_where_everything_comes_from() -> None:
    inputs = Inputs(trace(DECODED), shape(1, 4), ToyCosts(), ToyLink())  # type: ignore[arg-type]
    labels = set_up(config(), inputs, 0).labels
    assert labels["routing"] == "routing: toy (synthetic), shape: toy"
    assert labels["kv"] == "KV memory: no limit"
    assert "ESTIMATED" in labels["costs"]
    assert labels["oracle"] == ""
    oracle = {"name": "lookahead", "params": {"level": "oracle"}}
    assert set_up(config(cache=oracle), inputs, 0).labels["oracle"] == "oracle, not a bound"
    assert set_up(config(cache=oracle, schedule="frozen"), inputs, 0).labels["oracle"] == "oracle"


def test_kv_memory_without_a_limit_is_no_part_of_the_budget() -> None:
    inputs = Inputs(trace(DECODED), shape(1, 4), ToyCosts(), ToyLink())  # type: ignore[arg-type]
    labels = set_up(config(memory={"gpu": 24 * 10**9}), inputs, 0).labels
    assert labels["kv"] == "KV memory: no limit, and no part of the 24 GB"
    assert labels["memory"].startswith("GPU memory 24,000,000,000 bytes")


def test_policies_of_one_level_share_a_view_and_pools_draw_their_own_numbers() -> None:
    inputs = Inputs(trace(DECODED, layers=3), shape(3, 4), ToyCosts(), ToyLink())  # type: ignore[arg-type]
    look = {"name": "lookahead", "params": {"level": "step"}}
    setup = set_up(config(cache=look, prefetch="next-layer"), inputs, 0)
    assert setup.foresights == [("step", "farthest")]
    drawn = [policy.rng.random() for policy in set_up(config(cache="random"), inputs, 0).cache.policies]  # type: ignore[attr-defined]
    assert len(set(drawn)) == 3
