"""The experiment file, key by key, as Markdown: from the schema that editors read (docs/experiment-file.md)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moesim.experiment import Experiment
from moesim.manual.markdown import code, table
from moesim.schema import experiment_schema

HEAD = """\
# The experiment file, key by key

One YAML file asks one question; [experiments/README.md](../experiments/README.md) shows a whole one and says how
lists, named sets and cases make a grid of it. This page is written by `moesim schema --markdown`, from the same
schema that editors complete and check files with: published as [experiment.schema.json](experiment.schema.json),
printed by `moesim schema`. It names what is shipped; a path to a file of your own is as good everywhere.

Any value but `name` and `question` may also be a list, or a named set `{each: {label: value}}`: an axis of the grid.
Whole sections may be lists too. Bytes are numbers, or text with a unit: `12GB` (10⁹), `16MiB` (2²⁰). **needed** keys
must be given in the file, or in every case. Paths are relative to the file. What is wrong is told all at once, each
mistake with its line and path (exit code 2).

To have an editor complete and check a file, begin it with

```yaml
# yaml-language-server: $schema=https://example.org/path/to/docs/experiment.schema.json
```

with the path or address of that file (`../docs/experiment.schema.json` in this repository); with policies of your own
installed, write a schema that knows them: `moesim schema > experiment.schema.json`. Visual Studio Code needs the YAML
extension, others a YAML language server.
"""

EXAMPLES: dict[str, str] = {
    "trace, made up by rule": "trace: {synthetic: sticky, router: layerwise, persistence: 0.4, recall_1: 0.9}",
    "trace, from a file": "trace: {file: smollm2-135m-decoupled, reveal: at-gate}",
    "memory": "memory: {slots: 4, scope: layer}             # 4 experts of each layer\n"
    "# or\n"
    "memory: {gpu: 24GB, workspace: 1GB, kv: {share: 0.4}}   # the experts get what is left",
    "memory.kv": "memory: {slots: 4, kv: {blocks: 4096, preempt: swap}}",
    "traffic": "traffic: {kind: poisson, rate: 4, requests: 400, mix: {code: 2, maths: 1}}",
    "traffic.prompt": "traffic: {kind: all, prompt: 256, output: {kind: lognormal, mean: 200, cv: 1.2, max: 1000}}",
    "traffic.arrivals": "traffic: {kind: trace, arrivals: {file: azure-code-2023, from: 60, to: 660, scale: 0.5}}",
    "traffic.mix": "traffic: {kind: closed, concurrency: 8, mix: {from: {code: 1}, to: {maths: 1}}}",
    "scheduler": "scheduler: {batch: {name: expert-aware-aged, patience: 16}, max_tokens: 1024, max_requests: 16}",
    "cache": "cache: {name: lookahead, level: queue, horizon: [16, 64, null]}   # three points",
    "preset": "preset: {name: hobbit, prefetch: none}",
    "objective": "objective: {ttft: 1.0, tpot: 0.1, share: 0.9}",
    "search": "search: {over: traffic.rate, from: 0.5, to: 40, tolerance: 0.02}",
    "machine": "machine: {expert_start: barrier, chunk_bytes: 4MiB}",
    "window": "window: {requests: 400, warmup: 100}",
}
"""by title or path; each is a part of an experiment, and a test reads them all"""

TITLES = {"Captured": "trace, from a file", "Synthetic": "trace, made up by rule"}
"""of sections whose path does not say it all, by definition"""
MORE = {
    "memory": "[kv.md](kv.md) has one budget for experts and KV memory.",
    "traffic": "[traffic.md](traffic.md) says how arrivals, lengths and captured routing come together.",
    "traffic.arrivals": "Formats and what is taken of a file: [traffic.md](traffic.md).",
    "scheduler": "Policies: [policies.md](policies.md#batch); how steps are formed: [batching.md](batching.md).",
    "objective": "What follows from it: [metrics.md](metrics.md#the-objective).",
    "search": "How it searches: [metrics.md](metrics.md#the-largest-rate).",
    "window": "Why, and how the warm-up is found: [statistics.md](statistics.md#the-same-requests-for-all).",
    "machine": "The rules behind them: [model.md](model.md).",
}
LISTS = {"CachePolicy": "cache", "PrefetchPolicy": "prefetch", "MissPolicy": "miss", "BatchPolicy": "batch"}
"""policies: the definition of each kind, and its section of the list"""
HUGE = 10**5
"""limits beyond this are there for safety only, and not worth a reader's time"""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a section. `default` None: there is none, and it is needed or left out."""

    name: str
    values: str
    default: str
    text: str


def page() -> str:
    """The whole page, ending in a line break."""
    schema = experiment_schema()
    plain = Experiment.model_json_schema(by_alias=True)
    reader = Reader(schema["$defs"], schema["properties"])
    parts = [HEAD, "## The whole file", _table(reader.keys(schema["properties"], plain["required"]))]
    parts += _examples("cache", "preset")
    shipped = [f"* `{key}`: {', '.join(map(code, names))}" for key, names in reader.shipped(schema["properties"])]
    parts += ["## Shipped inputs", "\n".join(shipped), "Their provenance: [traces/README.md](../traces/README.md)."]
    for definition, paths in reader.sections.items():
        said = plain["$defs"][definition]
        parts += [f"## {_title(definition, paths)}", " ".join(said.get("description", "").split())]
        parts += [_table(reader.keys(reader.section(definition)["properties"], said.get("required", ())))]
        parts += [MORE[path] for path in paths if path in MORE]
        parts += _examples(_title(definition, paths), *paths)
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


class Reader:
    """Reads values of a JSON schema; `definitions` are its $defs, `properties` the keys of the file."""

    def __init__(self, definitions: Mapping[str, Any], properties: Mapping[str, Any]) -> None:
        self.definitions = definitions
        self.sections: dict[str, list[str]] = {}
        """by definition: the paths at which a file has such a section"""
        self._find("", properties)

    def _find(self, above: str, properties: Mapping[str, Any]) -> None:
        for key, value in properties.items():
            for name in _references(_single(value)):
                if name not in LISTS:
                    known = name in self.sections
                    self.sections.setdefault(name, []).append(above + key)
                    if not known:
                        self._find(f"{above}{key}.", self.section(name)["properties"])

    def section(self, name: str) -> Mapping[str, Any]:
        """The form of a definition that has keys."""
        definition = self.definitions[name]
        forms = [definition, *definition.get("anyOf", ())]
        return next(form for form in forms if "properties" in form)

    def keys(self, properties: Mapping[str, Any], needed: Sequence[str]) -> Iterator[Key]:
        """What there is to say of each key of a section."""
        for name, value in properties.items():
            text = value.get("description", "")
            yield Key(name, self.values(_single(value), name), _default(value, name in needed), text)

    def values(self, value: Mapping[str, Any], name: str = "") -> str:
        """The values that a key takes, in words."""
        if "$ref" in value:
            return self._reference(value["$ref"].removeprefix("#/$defs/"))
        if "enum" in value:
            return ", ".join(map(code, value["enum"]))
        if "const" in value:
            return code(value["const"])
        forms = [form for form in (*value.get("anyOf", ()), *value.get("oneOf", ())) if form.get("type") != "null"]
        if _is_size(forms):
            return "bytes"
        if _is_name(forms):
            return ", or ".join(["a shipped name or a path", *(self.values(form) for form in forms[2:])])
        if forms:
            return " or ".join(self.values(form, name) for form in forms)
        return _plain(value, name)

    def _reference(self, name: str) -> str:
        if name in LISTS:
            kind = LISTS[name]
            return f"a [{kind} policy](policies.md#{kind}): its name, a path, or `{{name: ..., its parameters}}`"
        title = _title(name, self.sections[name])
        link = f"[{title}](#{_anchor(title)})"
        short = [form for form in self.definitions[name].get("anyOf", ()) if "properties" not in form]
        return " or ".join([*(self.values(form) for form in short), link])

    def shipped(self, properties: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
        """Names that are shipped, by key; policies have a page of their own."""
        for key, value in properties.items():
            forms = _single(value).get("anyOf", ())
            if _is_name(forms):
                yield key, forms[0]["enum"]


def _title(definition: str, paths: Sequence[str]) -> str:
    return TITLES.get(definition, ", ".join(paths))


def _references(value: Mapping[str, Any]) -> list[str]:
    """Definitions that a value may be of."""
    forms = [value, *value.get("anyOf", ()), *value.get("oneOf", ())]
    return [form["$ref"].removeprefix("#/$defs/") for form in forms if "$ref" in form]


def _single(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """The form that is one value, and neither a list nor a named set."""
    forms = value.get("anyOf", ())
    axis = len(forms) == 3 and forms[1].get("type") == "array" and "each" in forms[2].get("properties", ())
    found: Mapping[str, Any] = forms[0] if axis else value
    nested = [form for form in found.get("anyOf", ()) if form.get("type") != "null"]
    return found if len(nested) != 1 else nested[0]


def _is_size(forms: Sequence[Mapping[str, Any]]) -> bool:
    return len(forms) == 2 and "[kKMGT]" in forms[1].get("pattern", "")


def _is_name(forms: Sequence[Mapping[str, Any]]) -> bool:
    return len(forms) >= 2 and "enum" in forms[0] and forms[1].get("type") == "string"


def _plain(value: Mapping[str, Any], name: str) -> str:
    kind = value.get("type")
    if name == "cases":
        return "named parts of an experiment"
    if kind == "object":
        return "`{name: ..., and changes}`" if name == "preset" else "`{domain: weight, ...}`"
    words = {"integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text"}
    if kind not in words:
        raise ValueError(f"{name}: the page has no words for {value}")
    return words[kind] + _limits(value)


def _limits(value: Mapping[str, Any]) -> str:
    below = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    said = [f"{sign} {value[name]:g}" for name, sign in below.items() if name in value and abs(value[name]) < HUGE]
    return " " + ", ".join(said) if said else ""


def _default(value: Mapping[str, Any], needed: bool) -> str:
    if needed:
        return "**needed**"
    default = value.get("default")
    return "" if default in (None, "") else code(str(default).lower() if isinstance(default, bool) else default)


def _table(keys: Iterator[Key]) -> str:
    rows = [(code(key.name), key.values, key.default, key.text) for key in keys]
    return table(("key", "value", "default", "what it is"), rows)


def _examples(*paths: str) -> list[str]:
    return [f"```yaml\n{EXAMPLES[path]}\n```" for path in dict.fromkeys(paths) if path in EXAMPLES]


def _anchor(title: str) -> str:
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")
