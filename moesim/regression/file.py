"""The regression file: which experiments run, how they are cut short, and what of them is compared."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, WithJsonSchema
from pydantic_core import PydanticCustomError

from moesim.analysis.regression.rules import FORMS, GOLDEN, Rule, rule_of
from moesim.document import Node, join, read_document
from moesim.errors import InputError, Problem, unknown
from moesim.experiment import Frozen
from moesim.plan import Plan, read_plan

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
DEFAULT = "regression.yaml"


def _rule(value: object) -> Rule:
    found = value if isinstance(value, Rule) else rule_of(value)
    if found is None:
        raise PydanticCustomError("rule", "{text}", {"text": f"{value!r} is no way to compare; write {FORMS}"})
    return found


def _listed(value: object) -> object:
    """`[miss_keys, span_ns]` is short for exact comparison of each."""
    names = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return dict.fromkeys(value, "exact") if names and isinstance(value, list) else value


ONE_RULE = {"anyOf": [{"enum": ["exact", "interval"]}, {"type": "string", "pattern": r"^\d+(\.\d+)?\s*%$"}]}
RULES = {
    "anyOf": [
        {"type": "array", "items": {"type": "string"}, "minItems": 1},
        {"type": "object", "additionalProperties": ONE_RULE, "minProperties": 1},
    ]
}
Rules = Annotated[
    dict[str, Annotated[Rule, BeforeValidator(_rule)]],
    BeforeValidator(_listed),
    Field(min_length=1),
    WithJsonSchema(RULES),
]


class Listed(Frozen):
    """An experiment of the file."""

    file: str = Field(min_length=1, description="experiment file, a path relative to this file")
    about: str = Field("", description="one sentence: what it guards; the page shows it")
    changes: dict[str, Any] = Field(
        default_factory=dict, alias="set", description="changes to the experiment, as --set has them: {steps: 24}"
    )
    metrics: Rules | None = Field(None, description="what is compared, in place of the metrics of the file")


class Regression(Frozen):
    """A regression file. docs/regress.md tells what the keys mean."""

    baselines: str = Field("baselines", min_length=1, description="folder of the baselines, relative to this file")
    metrics: Rules = Field(
        dict.fromkeys(GOLDEN, Rule()),
        description="columns of summary.csv to compare: a list (exactly), or {metric: exact | 2% | interval}",
    )
    experiments: dict[Annotated[str, Field(pattern=NAME)], Listed] = Field(
        min_length=1, description="name -> experiment; the baselines of each are NAME.csv and NAME.yaml"
    )


@dataclass(frozen=True, slots=True)
class Check:
    """An experiment of a regression file, ready to run."""

    name: str
    about: str
    plan: Plan
    rules: Mapping[str, Rule]


@dataclass(frozen=True, slots=True)
class Suite:
    """A regression file that was read. `names` are all of its experiments, `checks` those that were asked for."""

    source: Path
    baselines: Path
    names: tuple[str, ...]
    checks: tuple[Check, ...]

    @property
    def whole(self) -> bool:
        return len(self.checks) == len(self.names)


def read_suite(path: Path, only: Collection[str] = ()) -> Suite:
    """Read a regression file and check every experiment in it. Raises InputError with every mistake."""
    root = _document(path)
    problems = [*_mistakes(root)]
    names = list(root.child("experiments").value) if root.child("experiments").is_mapping else []
    problems += [Problem("--only", unknown("experiment", name, names)) for name in only if names and name not in names]
    if problems:
        raise InputError(problems)
    read = Regression.model_validate(root.plain())
    checks = []
    for name, listed in read.experiments.items():
        if only and name not in only:
            continue
        node = root.child("experiments").child(name)
        try:
            plan = read_plan(path.parent / listed.file, _override(node.child("set"), problems))
        except InputError as error:
            problems += error.problems
            continue
        rules = read.metrics if listed.metrics is None else listed.metrics
        at = root if listed.metrics is None else node
        problems += _without_interval(rules, plan, at.child("metrics"), name)
        checks.append(Check(name, listed.about, plan, rules))
    if problems:
        raise InputError(dict.fromkeys(problems))
    return Suite(path, path.parent / read.baselines, tuple(names), tuple(checks))


def _document(path: Path) -> Node:
    if not path.is_file():
        text = "no such file; a regression file was expected (moesim regress --init EXPERIMENT writes one)"
        raise InputError(Problem(str(path), text))
    try:
        root = read_document(path)
    except InputError as error:
        told = (Problem(p.place, p.text.replace("an experiment is", "a regression file is")) for p in error.problems)
        raise InputError(told) from None
    if "experiments" not in root.value and {"trace", "memory", "traffic"} & root.value.keys():
        text = "is an experiment file; moesim regress --init makes a regression file of it"
        raise InputError(Problem(str(path), text))
    return root


def _override(changes: Node, problems: list[Problem]) -> Node | None:
    """The changes as a tree of their own; keys may be dotted, as with --set."""
    if not changes.value:
        return None
    root = Node({}, changes.where)
    for key, value in changes.value.items():
        *sections, last = key.split(".")
        if not all((*sections, last)):
            problems.append(value.problem(f"{key!r} is no key; write one such as memory.slots"))
            continue
        at = root
        for section in sections:
            if not at.child(section).is_mapping:
                at.value[section] = Node({}, value.where, join(at.path, section))
            at = at.value[section]
        moved = _moved(value, join(at.path, last))
        known = at.value.get(last)
        both = known is not None and known.is_mapping and moved.is_mapping
        at.value[last] = Node({**known.value, **moved.value}, known.where, known.path) if known and both else moved
    return root


def _moved(node: Node, path: str) -> Node:
    """With the paths that it has in an experiment, as mistakes name them."""
    value: Any = node.value
    if node.is_mapping:
        value = {key: _moved(item, join(path, key)) for key, item in node.value.items()}
    elif isinstance(node.value, list):
        value = [_moved(item, path) for item in node.value]
    return Node(value, node.where, path)


def _without_interval(rules: Mapping[str, Rule], plan: Plan, node: Node, name: str) -> Iterator[Problem]:
    fewest = min(config.replications for config in plan.configs)
    for metric, rule in rules.items():
        if rule.kind == "interval" and fewest < 2:
            text = f"interval needs replications, and {name} has points with one; set: {{replications: 2}} or more"
            yield node.child(metric).problem(text)


def _mistakes(root: Node) -> Iterator[Problem]:
    """What is wrong with the file by itself."""
    try:
        Regression.model_validate(root.plain())
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            yield _told(mistake, root)


def _told(mistake: Any, root: Node) -> Problem:
    kind, path = mistake["type"], [str(part) for part in mistake["loc"] if part != "[key]"]
    node = root
    for part in path:
        node = node.child(part)
    value = repr(mistake["input"])
    value = value if len(value) <= 60 else f"{value[:57]}..."
    simple = {
        "extra_forbidden": lambda: unknown("key", path[-1], _keys(path[:-1])),
        "missing": lambda: f"is missing; it is the {_described(path)}",
        "string_type": lambda: f"{value} must be text",
        "string_too_short": lambda: "must not be empty",
        "too_short": lambda: "is empty; it needs at least one entry",
        "string_pattern_mismatch": lambda: f"{path[-1]!r} must be letters, digits, . _ - (its baselines are files)",
        "model_type": lambda: f"{value} must be a mapping of {', '.join(_keys(path))}",
        "dict_type": lambda: f"{value} must be a {'list of metrics, or a ' * (path[-1] == 'metrics')}mapping",
    }
    return node.problem(simple[kind]() if kind in simple else mistake["msg"])


def _fields(path: list[str]) -> Mapping[str, Any]:
    model = Listed if len(path) == 2 else Regression
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _keys(path: list[str]) -> list[str]:
    return list(_fields(path))


def _described(path: list[str]) -> str:
    field = _fields(path[:-1]).get(path[-1])
    return field.description if field is not None else "value"


def regression_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of a regression file."""
    schema = Regression.model_json_schema(by_alias=True)
    schema["properties"]["metrics"].pop("default", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "moesim regression file"} | {
        key: value for key, value in schema.items() if key != "title"
    }
