"""What an experiment file asks for: read, expanded, checked whole, its inputs loaded. Nothing is written here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from moesim import grid, inputs, presets, search
from moesim.document import Node, from_plain, read_document
from moesim.errors import InputError, Problem, unknown
from moesim.experiment import (
    STEPS_OF_A_WINDOW,
    ArrivalsFile,
    ByteSize,
    Captured,
    Drift,
    Experiment,
    KVMemory,
    Lengths,
    Machine,
    Memory,
    Objective,
    PolicySpec,
    RunConfig,
    Scheduler,
    Search,
    Synthetic,
    Traffic,
    Validation,
    Window,
    arrivals_rules,
    lengths_rules,
    memory_rules,
    objective_rules,
    search_rules,
    synthetic_rules,
    traffic_rules,
    warmup_rule,
    window_rules,
)
from moesim.inputs import Sources

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from moesim.sim import Inputs

SECTIONS: dict[tuple[str, ...], type[BaseModel]] = {
    (): Experiment,
    ("trace",): Synthetic,
    ("memory",): Memory,
    ("memory", "kv"): KVMemory,
    ("traffic",): Traffic,
    ("traffic", "mix"): Drift,
    ("traffic", "arrivals"): ArrivalsFile,
    ("traffic", "prompt"): Lengths,
    ("traffic", "output"): Lengths,
    ("scheduler",): Scheduler,
    ("machine",): Machine,
    ("objective",): Objective,
    ("search",): Search,
    ("validation",): Validation,
    ("window",): Window,
}
POLICIES = {"cache": ("cache",), "prefetch": ("prefetch",), "miss": ("miss",), "batch": ("scheduler", "batch")}


@dataclass(frozen=True, slots=True)
class Run:
    """One run: a point of the grid and the number of its replication. `index` counts all runs of the plan."""

    index: int
    config: RunConfig
    replication: int
    sources: Sources


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked experiment: its points in the order of the grid, and where its inputs are."""

    name: str
    source: str
    base: str
    configs: tuple[RunConfig, ...]

    def runs(self) -> list[Run]:
        """Every point times its replications, numbered in order."""
        pairs = [(config, r) for config in self.configs for r in range(config.replications)]
        return [Run(i, config, r, Sources.of(config, self.base)) for i, (config, r) in enumerate(pairs)]

    def of_role(self, role: str) -> Plan:
        """The points that calibrate, or those that judge. Raises InputError where there is none."""
        configs = [config for config in self.configs if (config.validation or Validation()).role == role]
        if not configs:
            text = f"{self.name} has no setting of role {role!r}; validation.role of its settings says which they have"
            raise InputError(Problem(self.source, text))
        return replace(self, configs=tuple(configs))


def read_plan(source: Path | str | Mapping[str, Any], override: Node | None = None) -> Plan:
    """Read an experiment file, or the same as a mapping (its paths are relative to the working directory).

    `override` holds what `--set` says. Raises InputError with every mistake of the file, its grid, its names and its
    inputs, each once.
    """
    if isinstance(source, Mapping):
        return make_plan(from_plain(source), "", ".", override)
    return make_plan(read_document(source), str(source), str(Path(source).parent), override)


def make_plan(root: Node, source: str, base: str, override: Node | None = None) -> Plan:
    """The plan of an experiment that was read; see `read_plan`."""
    broken: list[Problem] = []
    problems: dict[Problem, None] = {}
    configs = []
    for point, labels in grid.points(root, override, broken):
        found: list[Problem] = []
        tree = search.filled(presets.laid_under(point, base, found))
        found += _problems(tree, base)
        config = None if found else RunConfig.model_validate({**tree.plain(), "labels": labels})
        found += _problems_in_use(tree, config, base)
        problems.update(dict.fromkeys(found))
        if config is not None:
            configs.append(config)
    if broken or problems:
        raise InputError(sorted(dict.fromkeys([*broken, *problems]), key=_line))
    return Plan(configs[0].name, source, base, tuple(configs))


def _line(problem: Problem) -> tuple[bool, int]:
    match = re.search(r":(\d+)(?::|$)", problem.place)
    return (match is None, int(match[1]) if match else 0)


def _problems_in_use(tree: Node, config: RunConfig | None, base: str) -> Iterator[Problem]:
    """What shows only when names are looked up, files are read and all of it is put together."""
    values = tree.plain()
    for kind, path in POLICIES.items():
        for text in _policy_texts(kind, json.dumps(_at(values, path), default=str), base, _edited(values, path, base)):
            yield _node(tree, path).problem(text)
    sources = Sources.of_plain(values, base)
    unread = inputs.problems_of(sources)
    for problem in unread:
        yield _node(tree, problem.place.split(".")).problem(problem.text)
    if config is not None and not unread:
        for problem in _simulator_problems(inputs.located(config, base), inputs.load(sources)):
            yield _node(tree, tuple(problem.place.split("."))).problem(problem.text)


def _simulator_problems(config: RunConfig, loaded: Inputs) -> Iterable[Problem]:
    from moesim.sim import check

    return check(config, loaded)


@lru_cache(maxsize=4096)
def _policy_texts(kind: str, spec: str, base: str, edited: int) -> tuple[str, ...]:
    from moesim import policy

    value = json.loads(spec)
    if value is None:
        return ()
    try:
        parsed = TypeAdapter(PolicySpec).validate_python(value)
    except ValidationError:
        return ()  # its shape is wrong, and that is reported already
    return tuple(str(problem) for problem in policy.check(kind, parsed, base))


def _edited(values: Any, path: tuple[str, ...], base: str) -> int:
    """When the policy's file was changed last, so that one that was mended is looked at again; 0 where it has none."""
    spec = _at(values, path)
    name = spec.get("name") if isinstance(spec, dict) else spec
    if not isinstance(name, str) or not name.endswith(".py"):
        return 0
    try:
        return Path(base, name).stat().st_mtime_ns
    except OSError:
        return 0


def _at(values: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _problems(tree: Node, base: str) -> Iterator[Problem]:
    """What is wrong with one point by itself."""
    values = tree.plain()
    try:
        Experiment.model_validate(values)
    except ValidationError as error:
        for mistake in error.errors(include_url=False):
            if mistake["type"] != "rule":  # said below, where the rest of the point may be wrong as well
                yield _told(mistake, tree)
    yield from _rules(tree, values)


def _rules(tree: Node, values: dict[str, Any]) -> Iterator[Problem]:
    checks: dict[tuple[str, ...], Callable[[Mapping[str, Any]], list[str]]] = {
        ("memory",): memory_rules,
        ("traffic",): traffic_rules,
        ("traffic", "prompt"): lengths_rules,
        ("traffic", "output"): lengths_rules,
        ("traffic", "arrivals"): arrivals_rules,
        ("trace",): synthetic_rules,
        ("objective",): objective_rules,
    }
    for path, check in checks.items():
        if isinstance(section := _at(values, path), dict):
            for text in check(section):
                yield _node(tree, path).problem(text)
    for text in search_rules(values):
        yield tree.child("search").problem(text)
    default = STEPS_OF_A_WINDOW if values.get("search") else Experiment.model_fields["steps"].default
    window = values.get("window")
    wrong = None if window else warmup_rule(values.get("steps", default), values.get("warmup_steps", 0))
    if wrong:
        yield tree.child("warmup_steps").problem(wrong)
    for text in window_rules(values):
        yield tree.child("window").problem(text)


def _node(tree: Node, path: Iterable[str | int]) -> Node:
    """The node at a path of the schema; tags of unions and `params` are no keys of the file."""
    for part in map(str, path):
        if not part.startswith("<") and not (part == "params" and part not in (tree.value or ())):
            tree = tree.child(part)
    return tree


def _told(mistake: Any, tree: Node) -> Problem:
    """A mistake that pydantic found, in the words of the file and at its place."""
    path = tuple(str(part) for part in mistake["loc"] if not str(part).startswith("<"))
    kind, rule = mistake["type"], mistake.get("ctx", {})
    node = _node(tree, path)
    value = _short(mistake["input"])
    simple = {
        "greater_than_equal": lambda: f"{value} must be at least {rule['ge']}",
        "greater_than": lambda: f"{value} must be more than {rule['gt']}",
        "less_than": lambda: f"{value} must be less than {rule['lt']:g}",
        "less_than_equal": lambda: f"{value} must be at most {rule['le']}",
        "int_type": lambda: f"{value} must be a whole number",
        "float_type": lambda: f"{value} must be a number",
        "finite_number": lambda: f"{value} must be a finite number",
        "bool_type": lambda: f"{value} must be true or false",
        "string_type": lambda: f"{value} must be text",
        "string_too_short": lambda: f"{value} must not be empty",
        "too_short": lambda: "is empty; it needs at least one entry",
        "string_pattern_mismatch": lambda: f"{value} does not fit; {_description(path)}",
        "literal_error": lambda: unknown("value", mistake["input"], re.findall(r"'([^']*)'", rule["expected"])),
        "extra_forbidden": lambda: unknown("key", path[-1], _keys(path[:-1])),
        "missing": lambda: f"is missing; {_description(path)}",
        "model_type": lambda: f"{value} must be {_shape_of(path)}{_meant(path, mistake['input'])}",
        "dict_type": lambda: f"{value} must be a mapping",
    }
    return node.problem(simple[kind]() if kind in simple else mistake["msg"])


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _keys(path: tuple[str, ...]) -> list[str]:
    return [*_fields(path), *(["cases"] if path == () else [])]


def _fields(path: tuple[str, ...]) -> dict[str, FieldInfo]:
    """The keys of a section; a trace may be a file or made by rule."""
    models = (Captured, Synthetic) if path == ("trace",) else (SECTIONS[path],) if path in SECTIONS else ()
    return {field.alias or name: field for model in models for name, field in model.model_fields.items()}


def _shape_of(path: tuple[str, ...]) -> str:
    keys = _keys(path)
    number = "a whole number of tokens, or " if SECTIONS.get(path) is Lengths else ""
    if keys:
        return f"{number}a mapping of {', '.join(keys)}"
    return "the name of a policy, or {name: ..., and its parameters}"


def _meant(path: tuple[str, ...], value: object) -> str:
    """What a size that stands where a section should be would be in it."""
    sized = SECTIONS.get(path) in (Memory, KVMemory) and isinstance(value, str | int) and not isinstance(value, bool)
    return f"; for that many bytes give {{bytes: {value}}}" if sized and _is_size(value) else ""


def _is_size(value: object) -> bool:
    try:
        return TypeAdapter(ByteSize).validate_python(value) > 0
    except ValidationError:
        return False


def _description(path: tuple[str, ...]) -> str:
    """What a key is: "memory: GPU memory of the expert cache"."""
    field = _fields(path[:-1]).get(path[-1])
    if field is not None and field.description:
        return f"it is the {field.description}" if field.description[0].isupper() else f"it is: {field.description}"
    return "it is the name of the policy"
