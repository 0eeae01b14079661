"""The regression file: what it may say, and that every mistake in it is told at once, with its line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from moesim.analysis.regression.rules import EXACT, GOLDEN, Rule
from moesim.errors import InputError
from moesim.regression.file import read_suite, regression_schema
from tests.regression.files import METRICS, regression
from tests.tiny import write

PROJECT = Path(__file__).with_name("regression.yaml")
SCHEMA = Path(__file__).parents[2] / "docs" / "regression.schema.json"


def mistakes(path: Path, *only: str) -> list[str]:
    with pytest.raises(InputError) as told:
        read_suite(path, only)
    return [str(problem).replace(f"{path.parent}/", "") for problem in told.value.problems]


def listed(**more: Any) -> dict[str, Any]:
    return {"guard": {"file": "tiny.yaml"} | more}


def test_a_file_names_experiments_changes_and_metrics(tmp_path: Path) -> None:
    changes = {"steps": 12, "memory.slots": [2, 3], "traffic": {"concurrency": 2}, "traffic.requests": 6}
    metrics = {"miss_keys": "exact", "e2e_mean_ns": "2%"}
    path = regression(
        tmp_path, experiments=listed(set=changes, about="what for") | {"b": {"file": "tiny.yaml", "metrics": metrics}}
    )
    suite = read_suite(path)
    guard, b = suite.checks
    assert (guard.name, guard.about, guard.rules) == ("guard", "what for", dict.fromkeys(METRICS, EXACT))
    assert b.rules == {"miss_keys": EXACT, "e2e_mean_ns": Rule("within", 0.02)}
    assert suite.baselines == tmp_path / "baselines" and suite.names == ("guard", "b") and suite.whole
    assert len(guard.plan.configs) == 4
    assert {(c.steps, c.traffic.concurrency, c.traffic.requests) for c in guard.plan.configs} == {(12, 2, 6)}


def test_where_no_metric_is_named_the_golden_ones_are_compared(tmp_path: Path) -> None:
    path = regression(tmp_path, {"experiments": listed()})
    assert tuple(read_suite(path).checks[0].rules) == GOLDEN


def test_only_some_of_the_experiments(tmp_path: Path) -> None:
    path = regression(tmp_path, experiments={name: {"file": "tiny.yaml"} for name in "abc"})
    suite = read_suite(path, ["c", "a"])
    assert [check.name for check in suite.checks] == ["a", "c"] and not suite.whole
    assert mistakes(path, "x", "a") == ["--only: unknown experiment 'x'. There is: a, b, c"]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path)
    path = tmp_path / "deep" / "r.yaml"
    path.write_text("experiments: {guard: {file: ../tiny.yaml}}\nbaselines: ../kept\n")
    suite = read_suite(path)
    assert suite.baselines.resolve() == tmp_path / "kept" and suite.checks[0].plan.name == "tiny"


def test_every_mistake_of_the_file_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "regression.yaml"
    path.write_text(
        "baseline: x\n"
        "metrics: {miss_keys: exactly, span_ns: 2, evictions: -1%}\n"
        "experiments:\n"
        "  a b: {file: tiny.yaml}\n"
        "  c: {fil: tiny.yaml}\n"
        "  d: {file: tiny.yaml, metrics: [], set: [1]}\n"
        "  e: tiny.yaml\n"
    )
    forms = "is no way to compare; write exact, a tolerance such as 2%, or interval"
    assert mistakes(path) == [
        f"regression.yaml:2: metrics.miss_keys: 'exactly' {forms}",
        f"regression.yaml:2: metrics.span_ns: 2 {forms}",
        f"regression.yaml:2: metrics.evictions: '-1%' {forms}",
        "regression.yaml:4: experiments.a b: 'a b' must be letters, digits, . _ - (its baselines are files)",
        "regression.yaml:5: experiments.c.file: is missing; it is the experiment file, a path relative to this file",
        "regression.yaml:5: experiments.c.fil: unknown key 'fil'; did you mean 'file'? "
        "There is: about, file, metrics, set",
        "regression.yaml:6: experiments.d.set: [1] must be a mapping",
        "regression.yaml:6: experiments.d.metrics: is empty; it needs at least one entry",
        "regression.yaml:7: experiments.e: 'tiny.yaml' must be a mapping of file, about, set, metrics",
        "regression.yaml:1: baseline: unknown key 'baseline'; did you mean 'baselines'? "
        "There is: baselines, experiments, metrics",
    ]


def test_mistakes_of_all_experiments_are_told_together(tmp_path: Path) -> None:
    metrics = {"span_ns": "interval"}
    experiments = listed(set={"cache": "lro", ".x": 1}) | {
        "b": {"file": "none.yaml"},
        "c": {"file": "tiny.yaml", "metrics": metrics},
    }
    found = mistakes(regression(tmp_path, experiments=experiments))
    assert len(found) == 4
    assert "'.x' is no key" in found[0] and found[0].startswith("regression.yaml:")
    assert "unknown cache policy 'lro'" in found[1] and found[1].startswith("regression.yaml:")
    assert "none.yaml: no such file" in found[2]
    assert "interval needs replications, and c has points with one" in found[3]


def test_an_interval_with_replications_is_taken(tmp_path: Path) -> None:
    path = regression(tmp_path, experiments=listed(set={"replications": 2}, metrics={"span_ns": "interval"}))
    assert read_suite(path).checks[0].rules == {"span_ns": Rule("interval")}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty; a regression file is a mapping"),
        ("[1]", "holds list data; a regression file is a mapping"),
        ("a: [", "is no YAML"),
        ("experiments: {}", "is empty; it needs at least one entry"),
        ("metrics: [span_ns]", "experiments: is missing"),
        ("experiments: 3", "3 must be a mapping"),
        ("experiments: {a: {file: 3}}", "3 must be text"),
    ],
)
def test_what_is_no_regression_file(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "regression.yaml"
    path.write_text(text)
    (found,) = mistakes(path)
    assert said in found


def test_an_experiment_is_told_from_a_regression_file(tmp_path: Path) -> None:
    (told,) = mistakes(write(tmp_path))
    assert told == "tiny.yaml: is an experiment file; moesim regress --init makes a regression file of it"
    (told,) = mistakes(tmp_path / "none.yaml")
    assert "no such file" in told and "--init EXPERIMENT" in told


def test_the_example_of_the_documentation_is_one(tmp_path: Path) -> None:
    text = (SCHEMA.parent / "regress.md").read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "experiments").mkdir()
    write(tmp_path / "experiments", "mine.yaml")
    path = tmp_path / "regression.yaml"
    path.write_text(text)
    caches, latency = read_suite(path).checks
    assert len(caches.plan.configs) == 2 and set(caches.rules) == set(yaml.safe_load(text)["metrics"])
    assert latency.rules == {"ttft_p95_ns": Rule("within", 0.02), "e2e_mean_ns": Rule("interval")}


# -- the schema --------------------------------------------------------------------------------------------------------


def test_the_published_schema_is_the_programs() -> None:
    command = [sys.executable, "-m", "moesim", "schema", "--regression"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SCHEMA.parents[1]).stdout
    assert shown == SCHEMA.read_text(encoding="utf-8"), "moesim schema --regression > docs/regression.schema.json"


def test_the_schema_takes_what_the_program_takes(tmp_path: Path) -> None:
    check = jsonschema.Draft202012Validator(regression_schema())
    jsonschema.Draft202012Validator.check_schema(regression_schema())
    for path in (PROJECT, regression(tmp_path, experiments=listed(set={"steps": 4}, metrics={"span_ns": "2%"}))):
        assert not list(check.iter_errors(json.loads(json.dumps(yaml.safe_load(path.read_text())))))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"experiments": {}},
        {"experiments": {"a": {}}},
        {"experiments": {"a": {"file": "x", "sets": {}}}},
        {"experiments": {"a": {"file": "x"}}, "metrics": {"span_ns": "2"}},
        {"experiments": {"a": {"file": "x"}}, "metrics": []},
    ],
)
def test_the_schema_refuses_what_the_program_refuses(document: Any, tmp_path: Path) -> None:
    assert list(jsonschema.Draft202012Validator(regression_schema()).iter_errors(document))
    assert mistakes(regression(tmp_path, document))
