from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.document import Node, from_plain, from_settings, parse
from moesim.errors import Problem
from moesim.grid import merge, points


def expanded(text: str, *settings: str) -> list[tuple[dict[str, str], dict[str, Any]]]:
    problems: list[Problem] = []
    override = from_settings(settings, problems) if settings else None
    found = [(labels, node.plain()) for node, labels in points(parse(text, "x.yaml"), override, problems)]
    assert problems == []
    return found


def mistakes(text: str) -> list[str]:
    problems: list[Problem] = []
    points(parse(text, "x.yaml"), None, problems)
    return [str(problem) for problem in problems]


def test_the_product_is_in_the_order_of_the_file_first_axis_slowest() -> None:
    found = expanded("b: [1, 2]\na: {c: [x, y], d: 0}\n")
    assert [value for _, value in found] == [
        {"b": b, "a": {"c": c, "d": 0}} for b, c in itertools.product((1, 2), "xy")
    ]
    assert found[1][0] == {"b": "1", "a.c": "y"}


def test_a_named_set_gives_its_labels() -> None:
    found = expanded("traffic: {each: {few: {kind: all}, many: {kind: closed, concurrency: [8, 16]}}}")
    assert [labels for labels, _ in found] == [
        {"traffic": "few"},
        {"traffic": "many", "traffic.concurrency": "8"},
        {"traffic": "many", "traffic.concurrency": "16"},
    ]


def test_elements_may_be_axes_again() -> None:
    found = expanded("cache: [lru, {name: lookahead, horizon: [0, null], level: queue}]")
    assert [(labels["cache"], value["cache"]) for labels, value in found] == [
        ("lru", "lru"),
        ("lookahead horizon=0 level=queue", {"name": "lookahead", "horizon": 0, "level": "queue"}),
        ("lookahead horizon=null level=queue", {"name": "lookahead", "horizon": None, "level": "queue"}),
    ]
    assert [labels["a"] for labels, _ in expanded("a: {each: {small: [3, 4], big: 6}}")] == [
        "small 3",
        "small 4",
        "big",
    ]


def test_a_name_and_a_question_are_never_axes() -> None:
    ((labels, value),) = expanded("name: [a, b]\nquestion: [c, d]\n")
    assert labels == {}
    assert value == {"name": ["a", "b"], "question": ["c", "d"]}


def test_cases_are_merged_and_are_the_slowest_axis() -> None:
    found = expanded("a: [1, 2]\nb: {c: 1, d: 2}\ncases: {same: , other: {b: {d: 3}, a: 5}}")
    assert found == [
        ({"case": "same", "a": "1"}, {"a": 1, "b": {"c": 1, "d": 2}}),
        ({"case": "same", "a": "2"}, {"a": 2, "b": {"c": 1, "d": 2}}),
        ({"case": "other"}, {"a": 5, "b": {"c": 1, "d": 3}}),
    ]


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ("memory: {slots: [3, 4], scope: global}", "memory: {bytes: 1}", {"memory": {"scope": "global", "bytes": 1}}),
        ("memory: {slots: 3}", "memory: {scope: layer}", {"memory": {"slots": 3, "scope": "layer"}}),
        ("cache: {name: lookahead, horizon: 8}", "cache: {name: lru}", {"cache": {"name": "lru"}}),
        ("cache: {name: lookahead, horizon: 8}", "cache: {horizon: 9}", {"cache": {"name": "lookahead", "horizon": 9}}),
        ("cache: lookahead", "cache: {horizon: 9}", {"cache": {"name": "lookahead", "horizon": 9}}),
        ("cache: [a, {name: b}]", "cache: {x: 1}", {"cache": [{"name": "a", "x": 1}, {"name": "b", "x": 1}]}),
        ("cache: [a, {name: b}]", "cache: {name: c}", {"cache": {"name": "c"}}),
        (
            "scheduler: {batch: {name: a, x: 1}, max_tokens: 4}",
            "scheduler: {batch: b}",
            {"scheduler": {"batch": "b", "max_tokens": 4}},
        ),
        (
            "traffic: {kind: closed, concurrency: 8, requests: 4}",
            "traffic: {kind: poisson, rate: 2}",
            {"traffic": {"kind": "poisson", "requests": 4, "rate": 2}},
        ),
        (
            "traffic: {kind: closed, concurrency: 8}",
            "traffic: {kind: closed, requests: 4}",
            {"traffic": {"kind": "closed", "concurrency": 8, "requests": 4}},
        ),
        ("traffic: {mix: {a: 1, b: 2}}", "traffic: {mix: {c: 1}}", {"traffic": {"mix": {"c": 1}}}),
        ("trace: {synthetic: zipf, alpha: 2}", "trace: {synthetic: iid}", {"trace": {"synthetic": "iid"}}),
        ("trace: {synthetic: zipf, alpha: 2}", "trace: x.parquet", {"trace": "x.parquet"}),
        ("trace: x", "trace: {reveal: at-gate}", {"trace": {"file": "x", "reveal": "at-gate"}}),
        ("trace: {file: x, reveal: at-gate}", "trace: {file: y}", {"trace": {"file": "y"}}),
        ("trace: {synthetic: iid}", "trace: {file: y}", {"trace": {"file": "y"}}),
        ("trace: {synthetic: iid}", "trace: {reveal: at-gate}", {"trace": {"synthetic": "iid", "reveal": "at-gate"}}),
        (
            "memory: {slots: 3, scope: global}",
            "memory: {each: {a: {slots: 4}, b: {bytes: 5}}}",
            {"memory": {"each": {"a": {"scope": "global", "slots": 4}, "b": {"scope": "global", "bytes": 5}}}},
        ),
        ("steps: [1, 2]", "steps: [3, 4]", {"steps": [3, 4]}),
        ("steps: [1, 2]", "steps: 3", {"steps": 3}),
    ],
)
def test_alternatives_do_not_mix(base: str, over: str, merged: dict[str, Any]) -> None:
    assert merge(parse(base, "x"), parse(over, "y")).plain() == merged


def test_a_setting_wins_over_the_file_and_over_every_case() -> None:
    text = "steps: 5\nmemory: {slots: 3}\ncases: {a: {memory: {share: 0.5}}, b: {steps: 7}}"
    found = expanded(text, "memory.slots=[4, 5]", "steps=9")
    assert [value for _, value in found] == [{"steps": 9, "memory": {"slots": n}} for n in (4, 5)] * 2
    assert expanded(text, "cases.b.memory.slots=6")[1][1] == {"steps": 7, "memory": {"slots": 6}}
    assert len(expanded(text, "cases.c.steps=1")) == 3


def test_places_survive_the_expansion() -> None:
    problems: list[Problem] = []
    root = parse("memory: {slots: 3}\ncases:\n  a:\n    memory: {slots: 4}\n", "x.yaml")
    ((node, _),) = points(root, None, problems)
    assert node.value["memory"].value["slots"].place == "x.yaml:4: cases.a.memory.slots"
    ((node, _),) = points(root, from_settings(["memory.slots=5"], problems), problems)
    assert node.value["memory"].value["slots"].place == "--set memory.slots"


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("a:\n  b: []\n", "x.yaml:2: a.b", "the list is empty"),
        ("a: {each: {}}", "x.yaml:1: a.each", "at least one label"),
        ("a: {each: [1, 2]}", "x.yaml:1: a.each", "{each: {label: value, ...}}"),
        ("a: {each: {b: 1}, c: 2}", "x.yaml:1: a", "holds each and nothing else; it has c"),
        ("a: [3, 4, 3]", "x.yaml:1: a", "3 is in the list twice"),
        ("cases: [a, b]", "x.yaml:1: cases", "must map the name of each case"),
        ("cases:\n  a: 3\n", "x.yaml:2: cases.a", "must be a part of an experiment"),
        ("cases: {a: {name: b}}", "x.yaml:1: cases.a", "without a name"),
        ("cases: {a: {cases: {b: {}}}}", "x.yaml:1: cases.a", "must be a part of an experiment"),
    ],
)
def test_what_is_no_axis_is_named(text: str, place: str, said: str) -> None:
    (problem,) = mistakes(text)
    assert problem.startswith(f"{place}: ")
    assert said in problem


def test_a_grid_beyond_all_reason_is_refused_before_it_is_made() -> None:
    text = "\n".join(f"a{i}: [{', '.join(map(str, range(100)))}]" for i in range(20))
    (problem,) = mistakes(text)
    assert f"the grid has {100**20:,} points" in problem


def test_all_mistakes_of_the_axes_come_at_once() -> None:
    assert len(mistakes("a: []\nb: {each: {}}\ncases: {c: 1, d: {e: []}}\n")) == 4


trees = st.recursive(
    st.integers(0, 3),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3, unique_by=str)
        | st.dictionaries(st.sampled_from("pqrs"), inner, min_size=1, max_size=3)
        | st.dictionaries(st.sampled_from("xyz"), inner, min_size=1, max_size=3).map(lambda each: {"each": each})
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from("abc"), trees, max_size=3))
def test_points_are_what_a_product_by_hand_gives(document: dict[str, Any]) -> None:
    problems: list[Problem] = []
    found = points(from_plain(document), None, problems)
    expected = [
        dict(zip(document, values, strict=True)) for values in itertools.product(*map(_by_hand, document.values()))
    ]
    assert [node.plain() for node, _ in found] == expected
    assert not any(_has_axis(node) for node, _ in found)


def _by_hand(tree: Any) -> list[Any]:
    if isinstance(tree, list):
        return [one for item in tree for one in _by_hand(item)]
    if not isinstance(tree, dict):
        return [tree]
    if "each" in tree:
        return _by_hand(list(tree["each"].values()))
    return [dict(zip(tree, values, strict=True)) for values in itertools.product(*map(_by_hand, tree.values()))]


def _has_axis(node: Node) -> bool:
    if isinstance(node.value, list):
        return True
    return node.is_mapping and ("each" in node.value or any(map(_has_axis, node.value.values())))


def test_sizes_of_kv_memory_replace_each_other_and_may_be_axes() -> None:
    text = "memory: {gpu: 9GB, kv: {share: [0.2, 0.4], preempt: swap}}\ncases: {a: , b: {memory: {kv: {blocks: 7}}}}"
    assert [value["memory"]["kv"] for _, value in expanded(text)] == [
        {"share": 0.2, "preempt": "swap"},
        {"share": 0.4, "preempt": "swap"},
        {"preempt": "swap", "blocks": 7},
    ]
    assert expanded(text)[0][0] == {"case": "a", "memory.kv.share": "0.2"}
    assert expanded(text, "memory.kv.bytes=1GB")[0][1]["memory"]["kv"] == {"preempt": "swap", "bytes": "1GB"}


def test_an_experts_size_leaves_that_of_kv_alone() -> None:
    text = "memory: {slots: 3, kv: {blocks: 7}}\ncases: {a: {memory: {bytes: 5}}}"
    assert expanded(text)[0][1]["memory"] == {"bytes": 5, "kv": {"blocks": 7}}
