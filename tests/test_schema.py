"""The published schema is the program's, and an editor that follows it completes and checks experiment files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from moesim.experiment import Captured, Experiment, Machine, Memory, Scheduler, Synthetic
from moesim.files import shipped
from tests.tiny import tiny

PUBLISHED = Path(__file__).parents[1] / "docs" / "experiment.schema.json"
SCHEMA = json.loads(PUBLISHED.read_text(encoding="utf-8"))
SHIPPED = sorted(shipped("experiments").glob("*.yaml"))


def test_the_published_schema_is_the_programs() -> None:
    command = [sys.executable, "-m", "moesim", "schema"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PUBLISHED.parents[1]).stdout
    assert shown == PUBLISHED.read_text(encoding="utf-8"), "moesim schema > docs/experiment.schema.json"


# -- completing --------------------------------------------------------------------------------------------------------


def forms(schema: Any) -> list[dict[str, Any]]:
    """All forms that a value may take, references followed."""
    if "$ref" in schema:
        return forms(SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")])
    several = (*schema.get("anyOf", ()), *schema.get("oneOf", ()))
    return [found for form in several for found in forms(form)] or [schema]


def at(path: tuple[str, ...]) -> list[dict[str, Any]]:
    """All forms at a place of an experiment file."""
    found = forms(SCHEMA)
    for key in path:
        inside = [form["properties"][key] for form in found if key in form.get("properties", {})]
        free = [f["additionalProperties"] for f in found if isinstance(f.get("additionalProperties"), dict)]
        found = [form for schema in inside or free for form in forms(schema)]
    return found


def keys(*path: str) -> set[str]:
    """Keys that an editor offers there."""
    return {key for form in at(path) for key in form.get("properties", {})}


def values(*path: str) -> set[Any]:
    """Values that it offers there."""
    return {value for form in at(path) for value in form.get("enum", ())}


def fields(model: Any) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_keys_are_offered_everywhere() -> None:
    assert keys() == fields(Experiment) | {"cases"}
    for section, model in (("memory", Memory), ("scheduler", Scheduler), ("machine", Machine)):
        assert keys(section) == fields(model) | {"each"}
        assert keys(section, "each", "of my own") == fields(model)
        assert keys("cases", "of my own", section) == fields(model) | {"each"}
    assert fields(Synthetic) | fields(Captured) <= keys("trace")
    assert {"name", "each"} <= keys("cache")


def test_names_are_offered_and_others_are_allowed() -> None:
    assert {"lru", "lookahead", "min"} <= values("cache") and values("cache") == values("cache", "name")
    assert values("cache") == values("cases", "x", "cache", "each", "y")
    assert {"none", "step-ahead"} <= values("prefetch") and {"wait", "smaller-copy"} <= values("miss")
    assert {"decode-first", "expert-aware"} <= values("scheduler", "batch")
    assert {"hobbit"} <= values("preset") and {"frozen", "free"} == values("schedule")
    assert {"h100-pcie5"} <= values("link") and {"llama-2-7b-readme"} <= values("model")
    assert {"type": "string", "minLength": 1} in at(("cache",)), "a path to a policy of one's own"


def test_every_key_is_described() -> None:
    for path in ((), *((key,) for key in keys())):
        for form in at(path):
            for key, value in form.get("properties", {}).items():
                assert key in ("each", "name") or "description" in value or path == ("cases",), (*path, key)


# -- checking ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    return jsonschema.Draft202012Validator(SCHEMA)


def test_there_are_shipped_experiments() -> None:
    assert len(SHIPPED) >= 2


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_experiments_are_right(path: Path, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(yaml.safe_load(path.read_text()))] == []


GRID = {"memory": {"slots": [2, 3], "scope": {"each": {"one": "layer", "all": "global"}}}, "cases": {"a": None}}


def test_grids_and_cases_are_right(validator: Any) -> None:
    assert not list(validator.iter_errors(tiny(**GRID, cache=["mine.py", {"name": "lookahead", "level": "step"}])))


@pytest.mark.parametrize(
    "changes",
    [
        {"memory": {"slot": 3}},
        {"memory": {"slots": "three"}},
        {"schedule": "fixed"},
        {"steps": -1},
        {"cases": {"a": {"memroy": {"slots": 3}}}},
        {"cache": ""},
        {"scheduler": {"batch": 3}},
        {"name": None},
    ],
    ids=str,
)
def test_mistakes_are_underlined(changes: dict[str, Any], validator: Any) -> None:
    assert list(validator.iter_errors(tiny(**changes)))
