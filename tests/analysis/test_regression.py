"""Numbers beside baselines: what counts as changed, what else differs, and how it is said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.analysis.regression import words
from moesim.analysis.regression.numbers import Change, Numbers, RunNumbers, Verdict, failed, judge, without_experiment
from moesim.analysis.regression.rules import EXACT, SUMS, Rule, rule_of, same

NAN = math.nan
INPUTS = {"trace t.parquet": "a" * 64, "costs c": "c" * 64}


def numbers(values: Mapping[str, Mapping[str, Any]], **more: Any) -> Numbers:
    """Of points with one replication each, or with as many as their metrics have values."""
    runs = []
    for point, metrics in values.items():
        several = {metric: value if isinstance(value, list) else [value] for metric, value in metrics.items()}
        for r in range(len(next(iter(several.values())))):
            runs.append(RunNumbers(point, r, {metric: column[r] for metric, column in several.items()}))
    given = {"inputs": INPUTS, "settings": {"steps": 8}, "points": {point: {"cache": point} for point in values}}
    return Numbers({run.name: run for run in runs}, **(given | more))


def grid(**changes: Any) -> Numbers:
    """Two policies in two scopes; `changes` are of `miss_keys`, by `policy_scope`."""
    values = {"lru_layer": 10, "lru_global": 20, "lfu_layer": 30, "lfu_global": 40} | changes
    named = {f"cache={k.split('_')[0]} | memory.scope={k.split('_')[1]}": v for k, v in values.items()}
    return numbers({name: {"miss_keys": value} for name, value in named.items()})


def verdict(now: Numbers, before: Numbers | None, **rules: str) -> Verdict:
    asked = {metric: rule_of(rule.replace("_", ".")) or EXACT for metric, rule in rules.items()} or {"miss_keys": EXACT}
    return judge("guard", "what it guards", asked, now, before)


def kinds(found: Verdict) -> list[str]:
    return [note.kind for note in found.notes]


# -- rules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("exact", Rule()),
        ("interval", Rule("interval")),
        ("2%", Rule("within", 0.02)),
        (" 0.5 % ", Rule("within", 0.005)),
        *((text, None) for text in ("2", "2 percent", "-1%", "", 2, None, True, ["exact"])),
    ],
)
def test_rules_of_a_file(text: object, rule: Rule | None) -> None:
    assert rule_of(text) == rule


def test_a_rule_is_written_as_it_was() -> None:
    assert [rule.text for rule in (Rule(), Rule("interval"), Rule("within", 0.025))] == ["exact", "interval", "2.5%"]


@pytest.mark.parametrize(
    ("rule", "before", "after", "passes"),
    [
        ("exact", 10, 10, True),
        ("exact", 10, 11, False),
        ("exact", 2**60, 2**60 + 1, False),
        ("exact", NAN, NAN, True),
        ("exact", NAN, 0, False),
        ("exact", 0, NAN, False),
        ("2%", 100, 102, True),
        ("2%", 100, 98, True),
        ("2%", 100, 102.001, False),
        ("2%", -100, -102, True),
        ("2%", 0, 1e-9, False),
        ("2%", NAN, 1, False),
    ],
)
def test_what_passes(rule: str, before: float, after: float, passes: bool) -> None:
    asked = rule_of(rule)
    assert asked is not None and same(asked, before, after) is passes


def test_sums_are_of_both_phases() -> None:
    assert SUMS["miss_keys"] == ("miss_keys_prefill", "miss_keys_decode") and len(SUMS) == 13


# -- what changed ------------------------------------------------------------------------------------------------------


def test_nothing_differs_from_itself() -> None:
    found = verdict(grid(), grid())
    assert found.passed and not found.changes and words.headline([found]).startswith("Nothing changed: 4 numbers of 1")


def test_every_number_that_changed_is_told_and_no_other() -> None:
    found = verdict(grid(lru_global=25, lfu_layer=27), grid())
    assert [(c.run, c.before, c.after) for c in found.changed()["miss_keys"]] == [
        ("cache=lru | memory.scope=global | r0", 20, 25),
        ("cache=lfu | memory.scope=layer | r0", 30, 27),
    ]
    assert not found.passed and not found.notes
    assert words.headline([found]) == "2 of 4 numbers changed in 1 of 1 experiment"


@settings(derandomize=True, max_examples=60)
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.tuples(*[st.integers(0, 3)] * 2), min_size=1))
def test_changes_are_the_pairs_that_differ(pairs: dict[str, tuple[int, int]]) -> None:
    now, before = (numbers({p: {"miss_keys": v[i]} for p, v in pairs.items()}) for i in (1, 0))
    found = verdict(now, before)
    assert {c.point: (c.before, c.after) for c in found.changes} == {p: v for p, v in pairs.items() if v[0] != v[1]}
    assert found.passed is (not found.changes)


def test_within_lets_a_little_pass() -> None:
    now = numbers({"a": {"e2e_mean_ns": 102.0}, "b": {"e2e_mean_ns": 103.0}})
    found = verdict(now, numbers({"a": {"e2e_mean_ns": 100.0}, "b": {"e2e_mean_ns": 100.0}}), e2e_mean_ns="2%")
    assert [c.point for c in found.changes] == ["b"]


def test_an_interval_asks_whether_replications_show_it() -> None:
    before = numbers({p: {"span_ns": [100, 200, 300, 400]} for p in ("shifted", "scattered", "same")})
    now = numbers(
        {
            "shifted": {"span_ns": [111, 209, 310, 410]},  # by 10 +- 1.3
            "scattered": {"span_ns": [150, 150, 350, 351]},  # by 0.25 on average, wildly
            "same": {"span_ns": [100, 200, 300, 400]},
        }
    )
    (change,) = verdict(now, before, span_ns="interval").changes
    assert (change.run, change.before, change.after) == ("shifted", 250, 260)
    half = 3.1824463 * (2 / 3) ** 0.5 / 2  # t with 3 degrees x s / sqrt 4, of differences 11, 9, 10, 10
    assert (change.low * 250, change.high * 250) == pytest.approx((10 - half, 10 + half))


def test_replications_that_share_sequences_are_one_observation() -> None:
    def of(values: list[int], units: list[int]) -> Numbers:
        runs = [RunNumbers("p", r, {"span_ns": v}, unit) for r, (v, unit) in enumerate(zip(values, units, strict=True))]
        return Numbers({run.name: run for run in runs}, INPUTS)

    before, now = [100, 100, 100, 100], [110, 111, 90, 112]
    alone = verdict(of([110, 111, 109, 112], [0, 1, 2, 3]), of(before, [0, 1, 2, 3]), span_ns="interval")
    assert alone.changes
    shared = verdict(of(now, [0, 1, 0, 1]), of(before, [0, 1, 0, 1]), span_ns="interval")  # means 100 and 111.5
    assert not shared.changes
    one = verdict(of(now, [0, 0, 0, 0]), of(before, [0, 0, 0, 0]), span_ns="interval")  # no interval: exactly
    assert one.changes


# -- what else differs -------------------------------------------------------------------------------------------------


def test_a_changed_input_is_told_apart_from_a_changed_program() -> None:
    now = replace(grid(lru_layer=11), inputs={"trace t.parquet": "b" * 64, "link l": "d" * 64})
    found = verdict(now, grid())
    texts = [note.text for note in found.notes]
    assert kinds(found) == ["input"] * 3 and len(found.changes) == 1
    assert texts[0].startswith("input costs c of the baselines is not read any more")
    assert texts[1].startswith("input link l is new to the baselines")
    assert texts[2].startswith(f"input trace t.parquet has changed (sha256 {'a' * 12} -> {'b' * 12}): numbers may")


def test_an_input_that_changed_is_red_even_where_no_number_did() -> None:
    assert not verdict(replace(grid(), inputs={**INPUTS, "costs c": "e" * 64}), grid()).passed


def test_changed_settings_are_named_with_their_values() -> None:
    points = dict(grid().points)
    points["cache=lru | memory.scope=layer"] = {"cache": "lru", "memory": {"slots": 4}}
    found = verdict(replace(grid(), settings={"steps": 9, "seed": 1}, points=points), grid())
    assert [note.text for note in found.notes] == [
        "settings of all runs have changed: steps 8 -> 9, seed (as moesim has it) -> 1",
        "settings of cache=lru | memory.scope=layer have changed: cache cache=lru | memory.scope=layer -> lru, "
        "memory (as moesim has it) -> {'slots': 4}",
    ]


def test_new_runs_and_lost_ones() -> None:
    before = numbers({"a": {"miss_keys": 1}, "b": {"miss_keys": 2}})
    found = verdict(numbers({"a": {"miss_keys": 1}, "c": {"miss_keys": 3}}), before)
    assert [(n.kind, n.text.split(":")[0]) for n in found.notes] == [
        ("new run", "run c | r0 has no baseline"),
        ("lost run", "baseline of run b | r0 has no run"),
    ]
    assert found.compared == ["a | r0"]


def test_a_renamed_run_is_recognized_by_its_settings_and_numbers() -> None:
    before = numbers({"a": {"miss_keys": 1}, "b": {"miss_keys": 2}})
    points = {"a": {"cache": "a"}, "renamed": {"cache": "b"}}
    now = numbers({"a": {"miss_keys": 1}, "renamed": {"miss_keys": 2}}, points=points)
    (note,) = verdict(now, before).notes
    said = "run renamed | r0 has no baseline; b | r0 of the baselines has its settings and numbers: renamed?"
    assert note.text == said
    other = numbers({"a": {"miss_keys": 1}, "renamed": {"miss_keys": 3}}, points=points)
    assert kinds(verdict(other, before)) == ["new run", "lost run"]


def test_new_lost_and_renamed_metrics() -> None:
    before = numbers({p: {"old": n, "gone": 7, "miss_keys": n} for n, p in enumerate("ab")})
    now = numbers({p: {"new": n, "fresh": 5 + n, "miss_keys": n} for n, p in enumerate("ab")})
    found = verdict(now, before, new="exact", fresh="exact", miss_keys="exact")
    assert [note.text for note in found.notes] == [
        "metric new has no baselines; old of the baselines has the same numbers: renamed?",
        "metric fresh has no baselines",
        "metric gone has baselines and is not in the file any more",
    ]
    assert found.metrics == ["miss_keys"]


def test_none_no_more_and_failed() -> None:
    assert kinds(verdict(grid(), None)) == ["no baselines"]
    assert "no experiment 'old' in the file" in without_experiment("old", grid()).notes[0].text
    broken = failed("guard", "", {}, grid(), "ZeroDivisionError: oh", "line 1")
    assert broken.notes[0].text == "the runs failed: ZeroDivisionError: oh" and broken.trace == "line 1"
    assert not any(v.passed for v in (verdict(grid(), None), without_experiment("old", grid()), broken))


# -- in words ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lru_layer": 1, "lru_global": 1}, "the 2 runs with cache lru, and in no other"),
        ({"lru_layer": 1}, "the run with cache lru and scope layer, and in no other"),
        ({"lru_layer": 1, "lfu_layer": 1}, "the 2 runs with scope layer, and in no other"),
        ({"lru_layer": 1, "lfu_global": 1}, "2 of 4 runs (cache lfu 1, lru 1)"),
        ({"lru_layer": 1, "lru_global": 1, "lfu_layer": 1, "lfu_global": 1}, "every run"),
    ],
)
def test_who_changed_is_said_by_what_they_have_in_common(changed: dict[str, int], said: str) -> None:
    found = verdict(grid(**changed), grid())
    assert words.who([c.run for c in found.changes], found.compared) == said


def test_some_of_those_that_have_something_in_common() -> None:
    runs = [f"cache={c} | memory.slots={s} | r0" for c in ("lru", "lfu") for s in (1, 2, 3)]
    assert words.who(runs[:2], runs) == "2 of the 3 runs with cache lru, and in no other"


def change(before: float, after: float) -> Change:
    return Change("miss_keys", "p | r0", "p", before, after)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([(100, 110)], "rose by 10 %"),
        ([(100, 110), (100, 103)], "rose by 3.0 to 10 %"),
        ([(100, 90)], "fell by 10 %"),
        ([(100, 90), (100, 110)], "moved by -10 % to +10 %"),
        ([(0, 5)], "rose from 0"),
        ([(0, 5), (100, 110)], "rose by 10 % and more"),
        ([(0, 5), (100, 90), (10, 11)], "moved by -10 % to +10 % (and from 0)"),
        ([(NAN, 5)], "changed (a blank is no number)"),
    ],
)
def test_up_or_down_and_by_how_much(pairs: list[tuple[float, float]], said: str) -> None:
    assert words.moved([change(*pair) for pair in pairs]) == said


@pytest.mark.parametrize(
    ("relative", "said"),
    [
        (130.94, "+13,094 %"),
        (0.41, "+41 %"),
        (-0.052, "-5.2 %"),
        (0.0005, "+0.05 %"),
        (1e-6, "+0.0001 %"),
        (-1e-9, "-<0.0001 %"),
    ],
)
def test_no_change_is_so_small_that_it_is_said_to_be_none(relative: float, said: str) -> None:
    assert words.percent(relative) == said


def test_two_values_that_differ_are_never_shown_as_equal() -> None:
    assert words.pair(change(1.0000001, 1.0000002)) == "1.0000001 -> 1.0000002 (+<0.0001 %)"


def test_names_are_short() -> None:
    points = [
        "few | cache=lru | memory.slots=3",
        "few | cache=lfu | memory.slots=3",
        "few | cache=lfu | memory.slots=4",
    ]
    assert [words.short(p, points) for p in points] == ["lru · slots 3", "lfu · slots 3", "lfu · slots 4"]
    assert words.short("one point", ["one point"]) == "one point"


def test_the_lines_name_metric_change_and_plot() -> None:
    found = verdict(grid(lru_layer=15), grid())
    (line,) = words.lines_of(found, "out")
    assert line == (
        "miss_keys rose by 50 % in the run with cache lru and scope layer, and in no other; namely 10 -> 15 (+50 %) in "
        "lru · layer [out/guard-miss_keys.png]"
    )


def test_many_differences_of_a_kind_are_counted() -> None:
    before = numbers({f"p{n}": {"miss_keys": n} for n in range(2)})
    found = verdict(numbers({f"p{n}": {"miss_keys": n} for n in range(50)}), before)
    lines = words.notes_of(found)
    assert len(found.notes) == 48 and len(lines) == 31 and lines[-1] == "18 more of the same kind (new run)"


def test_the_summary_of_a_job_is_markdown_that_keeps_its_table() -> None:
    red = verdict(grid(lru_layer=15), grid())
    text = words.markdown([red, verdict(grid(), grid())], "regress.html", "moesim regress")
    rows = [line for line in text.splitlines() if line.startswith("| guard")]
    assert rows[0].count(" | ") == 3 and "1 number changed" in rows[0] and rows[1].endswith("| same |")
    assert "❌" in text and "moesim regress --update" in text and "miss_keys rose by 50 %" in text
    assert "✅" in words.markdown([verdict(grid(), grid())], "regress.html", "moesim regress")


def test_the_document_is_plain_json() -> None:
    import json

    before = numbers({"a": {"miss_keys": 0, "x": NAN}, "b": {"miss_keys": 4, "x": 1.5}})
    now = numbers({"a": {"miss_keys": 3, "x": 2.5}, "b": {"miss_keys": 4, "x": 1.5}})
    (found,) = words.document([verdict(now, before, miss_keys="exact", x="2%")])
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["rules"] == {"miss_keys": "exact", "x": "2%"}
    assert found["changes"][0] == {
        "metric": "miss_keys",
        "run": "a | r0",
        "before": 0,
        "after": 3,
        "relative": None,
        "plot": "guard-miss_keys.png",
    }
    assert found["changes"][1]["before"] is None
