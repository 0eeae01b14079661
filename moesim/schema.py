"""The JSON schema of an experiment file, for editors that complete and check YAML."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from moesim.experiment import Experiment
from moesim.files import shipped
from moesim.grid import SINGLE

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
POLICIES = {"cache": "", "prefetch": "", "miss": "", "batch": "Scheduler"}
"""kinds of policies, and the definition that each stands in, where it is no key of the experiment itself"""
INPUTS = {
    "trace": (("traces", "routing"), ".parquet"),
    "model": (("hardware", "shapes"), ".yaml"),
    "costs": (("traces", "kernels"), ".json"),
    "link": (("traces", "links"), ".json"),
}
"""folders of shipped inputs, and how their files end"""
SHORT: dict[str, dict[str, Any]] = {
    "Lengths": {"type": "integer", "minimum": 1},
    "ArrivalsFile": {"type": "string", "minLength": 1},
}
"""sections that may be written as a single value"""


def experiment_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of an experiment file, with lists, named sets and cases."""
    schema = Experiment.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    definitions.pop("PolicySpec", None)
    _name(schema)
    for definition in definitions.values():
        _widen(definition)
    _widen(schema, {path[0] for path in SINGLE})
    shared = {key: value for key, value in schema["properties"].items() if key != "name"}
    case = {"type": ["object", "null"], "properties": shared, "additionalProperties": False}
    schema["required"] = ["name"]  # all else may stand in the cases
    schema["properties"]["cases"] = {
        "type": "object",
        "description": "named partial experiments, each merged into the rest of the file: the slowest axis",
        "additionalProperties": case,
    }
    definitions["Axis"] = {}
    for name, short in SHORT.items():
        definitions[name] = {"anyOf": [short, definitions[name]]}
    head: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "moesim experiment",
        "description": "Any value may be a list, or a named set {each: {label: value}}: an axis of the grid",
    }
    return head | {key: value for key, value in schema.items() if key not in head}


def _name(schema: dict[str, Any]) -> None:
    """Say which policies, presets and inputs there are, so that an editor offers them; paths are as good."""
    from moesim import policy, presets

    properties, definitions = schema["properties"], schema["$defs"]
    for kind, section in POLICIES.items():
        known = _one_of(policy.names(kind))
        more = {"type": "object", "properties": {"name": known}, "additionalProperties": {"$ref": "#/$defs/Axis"}}
        definition = f"{kind.title()}Policy"
        definitions[definition] = {"anyOf": [known, more]}
        (definitions[section]["properties"] if section else properties)[kind]["$ref"] = f"#/$defs/{definition}"
    part = {"type": "object", "additionalProperties": {"$ref": "#/$defs/Axis"}}
    properties["preset"]["anyOf"] = [_one_of(presets.names()), {"type": "null"}, part]
    for key, (folders, ending) in INPUTS.items():
        found = sorted(path.name.removesuffix(ending) for path in shipped(*folders).glob(f"*{ending}"))
        forms = [*_one_of(found)["anyOf"], *properties[key].pop("oneOf", [])[1:]]
        properties[key] = {"description": properties[key]["description"], "anyOf": forms}


def _one_of(names: Sequence[str]) -> dict[str, Any]:
    return {"anyOf": [{"enum": list(names)}, TEXT]}


def _widen(definition: dict[str, Any], single: Collection[str] = ()) -> None:
    """Let every property be a single value, a list or a named set of values, or absent: a case may give a part."""
    for name, value in definition.get("properties", {}).items():
        if name not in single:
            definition["properties"][name] = _axis(value)
    definition.pop("required", None)


def _axis(value: dict[str, Any]) -> dict[str, Any]:
    notes: dict[str, Any] = {key: value[key] for key in ("description", "default", "title") if key in value}
    one = {key: item for key, item in value.items() if key not in notes}
    each = {
        "type": "object",
        "properties": {"each": {"type": "object", "minProperties": 1, "additionalProperties": one}},
        "required": ["each"],
        "additionalProperties": False,
    }
    return {**notes, "anyOf": [one, {"type": "array", "minItems": 1, "items": one}, each]}
