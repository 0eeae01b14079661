"""The plain CSV and JSONL that we document for everybody (docs/traces.md)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from moesim.errors import InputError, Problem
from moesim.trace.importers.assemble import OUTPUT, PROMPT, UNKNOWN, Part
from moesim.trace.importers.options import SHOWN, Options, Source
from moesim.trace.importers.rows import Rows, parts_of
from moesim.trace.importers.text import Columns, comment_pairs

PHASES = {"prompt": PROMPT, "output": OUTPUT, "": UNKNOWN}
OPTIONAL = ("sequence", "domain", "phase", "slot", "weight")
CSV_RULE = "expected position, layer and expert (or e0, e1, ...), and if wanted sequence, domain, phase, slot, weight"
FACTS = ("model", "router", "layers", "experts", "key_bytes")
TOKEN = ("sequence", "domain", "phase", "experts", "weights")


def read_csv(path: Path, lines: list[str], options: Options) -> tuple[list[Part], Source]:
    """A line per choice, or with columns e0, e1, ... per token and layer; facts in comments: `# experts=128`."""
    source, problems = Source("csv"), []
    for number, pairs in comment_pairs(lines):
        problems += _facts(f"{path}:{number}", {k: _number(v) for k, v in pairs.items()}, source)
    columns = Columns(path, lines)
    columns.problems += problems
    wide = [name for name in columns.names if name[:1] == "e" and name[1:].isdigit()]
    wanted = ["position", "layer", *(wide or ["expert"])]
    known = {*wanted, *OPTIONAL, *(f"w{name[1:]}" for name in wide)}
    missing, strange = set(wanted) - set(columns.names), set(columns.names) - known
    if missing or strange or len(set(columns.names)) < len(columns.names):
        columns.problems.append(Problem(str(path), f"has the columns {','.join(columns.names)}; {CSV_RULE}"))
    columns.check()
    rows = _rows(columns, wide)
    columns.check()
    return parts_of(path, rows, source, options), source


def _rows(columns: Columns, wide: list[str]) -> Rows:
    count = len(columns)
    names: tuple[str, ...] = ()
    sequence = np.zeros(count, dtype=np.int64)
    if "sequence" in columns.names:
        words = columns.text("sequence")
        names = tuple(dict.fromkeys(words))
        number = {word: place for place, word in enumerate(names)}
        sequence = np.array([number[word] for word in words], dtype=np.int64)
    domains: tuple[str, ...] = ()
    if "domain" in columns.names:
        of = dict(zip(reversed(sequence.tolist()), reversed(columns.text("domain")), strict=True))
        domains = tuple(of[place] for place in range(len(of)))
    phase = columns.codes("phase", PHASES) if "phase" in columns.names else np.full(count, UNKNOWN, dtype=np.int64)
    position, layer = columns.integers("position"), columns.integers("layer")
    if not wide:
        slot = columns.integers("slot") if "slot" in columns.names else np.arange(count)
        weight = columns.reals("weight") if "weight" in columns.names else None
        expert = columns.integers("expert")
        return Rows(sequence, position, layer, slot, expert, phase, columns.line, weight, domains, names)
    experts = np.stack([columns.integers(name, empty=-1) for name in wide], axis=1)
    row, slot = np.nonzero(experts != -1)
    weights = [f"w{name[1:]}" for name in wide]
    values = None
    if set(weights) <= set(columns.names):
        values = np.stack([columns.reals(name) for name in weights], axis=1)[row, slot]
    parts = (sequence[row], position[row], layer[row], slot, experts[row, slot], phase[row], columns.line[row])
    return Rows(*parts, values, domains, names)


def read_jsonl(path: Path, lines: list[str], options: Options) -> tuple[list[Part], Source]:
    """An object per token, in order; one with facts of the model may stand first."""
    source = Source("jsonl")
    problems: list[Problem] = []
    tokens: list[tuple[int, dict[str, Any]]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            value = json.loads(line)
        except ValueError as error:
            problems.append(Problem(place, f"is not JSON ({error})"))
            continue
        if isinstance(value, dict) and "experts" in value and not isinstance(value["experts"], int):
            found = _token_problems(place, value)
            problems += found
            tokens += [] if found else [(number, value)]
        elif isinstance(value, dict) and not tokens:
            problems += _facts(place, value, source)
        else:
            problems.append(Problem(place, "is no object with 'experts'"))
    problems += _shape_problems(path, tokens)
    if len(problems) > SHOWN:
        problems = [*problems[:SHOWN], Problem(str(path), f"and {len(problems) - SHOWN} more mistakes")]
    if problems:
        raise InputError(problems)
    if tokens and not isinstance(tokens[0][1]["experts"][0], list):
        source.router = "decoupled"
    return _sequences(path, tokens), source


def _token_problems(place: str, token: dict[str, Any]) -> list[Problem]:
    found = [Problem(place, f"unknown key {key!r}; there is: {', '.join(TOKEN)}") for key in token if key not in TOKEN]
    experts = token["experts"]
    if not _is_list(experts) or not (all(map(_is_id, experts)) or all(_is_list(e, _is_id) for e in experts)):
        return [*found, Problem(place, "experts must be a list of ids, or a list of such lists, one a layer")]
    if token.get("phase", "") not in PHASES:
        found.append(Problem(place, f"phase {token['phase']!r} must be prompt or output"))
    weights = token.get("weights")
    if weights is not None and _outline(weights) != _outline(experts):
        found.append(Problem(place, "weights must be numbers in the same lists as experts"))
    return found


def _is_list(value: object, of: Callable[[object], bool] | None = None) -> bool:
    """Whether it is a list with something in it, or, given `of`, one of such things."""
    if not isinstance(value, list):
        return False
    return bool(value) if of is None else all(map(of, value))


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= -1


def _outline(value: Any) -> Any:
    """Lengths of nested lists; None where something is no number."""
    if isinstance(value, list):
        return [_outline(part) for part in value]
    return 0 if isinstance(value, int | float) and not isinstance(value, bool) else None


def _shape_problems(path: Path, tokens: list[tuple[int, dict[str, Any]]]) -> list[Problem]:
    shapes = [_layers(token["experts"]) for _, token in tokens]
    return [
        Problem(f"{path}:{number}", f"has {_named(shape)}; the first token has {_named(shapes[0])}")
        for (number, _), shape in zip(tokens, shapes, strict=True)
        if shape != shapes[0]
    ]


def _layers(experts: list[Any]) -> int:
    """Layers, 0 where one list serves all of them."""
    return len(experts) if isinstance(experts[0], list) else 0


def _named(layers: int) -> str:
    return f"{layers} layers" if layers else "one list for all layers"


def _sequences(path: Path, tokens: list[tuple[int, dict[str, Any]]]) -> list[Part]:
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for numbered in tokens:
        found.setdefault(str(numbered[1].get("sequence", 0)), []).append(numbered)
    problems, parts = [], []
    for name, mine in found.items():
        phases = [PHASES[token.get("phase", "")] for _, token in mine]
        problems += [
            Problem(f"{path}:{mine[place][0]}", "a prompt token after an output token, or phases only for some tokens")
            for place in range(1, len(mine))
            if (phases[place - 1], phases[place]) not in ((0, 0), (0, 1), (1, 1), (UNKNOWN, UNKNOWN))
        ][:1]
        if phases[0] == OUTPUT:
            problems.append(Problem(f"{path}:{mine[0][0]}", "the sequence begins with an output token"))
        parts.append(_sequence(name, mine, None if phases[0] == UNKNOWN else phases.count(PROMPT)))
    if problems:
        raise InputError(problems)
    return parts


def _sequence(name: str, tokens: list[tuple[int, dict[str, Any]]], prompt: int | None) -> Part:
    choices = [_nested(token["experts"]) for _, token in tokens]
    k = max(max(map(len, layers)) for layers in choices) or 1
    shape = (len(tokens), len(choices[0]), k)
    experts = np.full(shape, -1, dtype=np.int64)
    weighted = any("weights" in token for _, token in tokens)
    weights = np.full(shape, np.nan) if weighted else None
    for place, (_, token) in enumerate(tokens):
        given = _nested(token["weights"]) if "weights" in token else None
        for layer, ids in enumerate(choices[place]):
            experts[place, layer, : len(ids)] = ids
            if weights is not None and given is not None:
                weights[place, layer] = 0
                weights[place, layer, : len(ids)] = given[layer]
    return Part(experts, weights, prompt, str(tokens[0][1].get("domain", "")), f"sequence {name}")


def _nested(value: list[Any]) -> list[list[Any]]:
    return value if isinstance(value[0], list) else [value]


def _number(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _facts(place: str, facts: dict[str, Any], source: Source) -> list[Problem]:
    """Enter what a header says: model, router, experts, key_bytes (of every key, or a list of them)."""
    found = []
    for key, value in facts.items():
        if key == "model":
            source.model = str(value)
        elif key == "router" and value in ("layerwise", "decoupled"):
            router: Literal["layerwise", "decoupled"] = value
            source.router = router
        elif key in ("experts", "layers") and _is_id(value) and value > 0:
            setattr(source, key, value)
        elif key == "key_bytes" and all(map(_is_id, value if isinstance(value, list) else [value])):
            source.key_bytes = value
        elif key in FACTS:
            found.append(Problem(place, f"{key} {value!r} makes no sense here"))
        else:
            found.append(Problem(place, f"unknown fact {key!r}; there is: {', '.join(FACTS)}"))
    return found
