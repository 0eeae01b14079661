"""From an experiment file to its points: lists, named sets and cases become the product of their values.

Any value may be a list, or a named set `{each: {label: value, ...}}`; both are axes, and elements may hold axes again.
`cases: {label: partial experiment}` is an axis too, the slowest; each case is merged into the rest of the file. The
product follows the order of the file, the first axis slowest.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

from moesim.document import Node
from moesim.errors import Problem
from moesim.experiment import KV_SIZES, SIZES

MOST_POINTS = 10_000
CASE = "case"
Path = tuple[str, ...]
Choice = tuple[Node, dict[str, str]]

SINGLE: set[Path] = {("name",), ("question",)}  # a list here is a mistake, not an axis
POLICIES: set[Path] = {("cache",), ("prefetch",), ("miss",), ("scheduler", "batch")}
WHOLE: dict[Path, tuple[str, ...]] = dict.fromkeys(POLICIES, ("name",)) | {
    ("trace",): ("file", "synthetic"),
    ("preset",): ("name",),
    ("traffic", "prompt"): ("kind",),
    ("traffic", "output"): ("kind",),
    ("traffic", "arrivals"): ("file",),
}
"""keys with which a mapping replaces another whole"""
NAMED: dict[Path, str] = dict.fromkeys(POLICIES, "name") | {("trace",): "file", ("traffic", "arrivals"): "file"}
"""where a text stands for a mapping that has it under this key"""
ARRIVALS = ("concurrency", "rate", "cv", "arrivals")
LENGTHS = ("prompt", "output")  # an arrivals file has its own


def points(root: Node, override: Node | None, problems: list[Problem]) -> list[Choice]:
    """Every point of the file as a tree without axes, and its labels: dotted path of the axis -> label.

    `override` (from `--set`) wins over the file and over every case. What is wrong with the axes goes to `problems`; a
    list or a set that is none stays in the points, and a grid that is too large has none.
    """
    root = _override(root, override)
    variants = list(_variants(root, problems))
    for _, variant in variants:
        _check_axes(variant, (), problems)
    size = sum(_size(variant, ()) for _, variant in variants)
    if size > MOST_POINTS:
        problems.append(root.problem(f"the grid has {size:,} points; at most {MOST_POINTS:,} make sense in one file"))
        return []
    return [(node, labels | more) for labels, variant in variants for node, more in _choices(variant, ())]


def _override(root: Node, override: Node | None) -> Node:
    """The file with `override` merged into its shared part, and into every case that has its own say."""
    if override is None:
        return root
    shared = _without(override, "cases")
    cases = merge(root.child("cases"), override.child("cases")) if "cases" in override.value else root.child("cases")
    merged = dict(merge(_without(root, "cases"), shared).value)
    if cases.is_mapping:
        merged["cases"] = Node({k: merge(_filled(v), shared) for k, v in cases.value.items()}, cases.where, cases.path)
    elif cases.value is not None:
        merged["cases"] = cases
    return Node(merged, root.where, root.path)


def _without(node: Node, key: str) -> Node:
    return Node({k: v for k, v in node.value.items() if k != key}, node.where, node.path)


def _filled(node: Node) -> Node:
    """`name:` with nothing after it is a case that changes nothing."""
    return Node({}, node.where, node.path) if node.value is None else node


def _variants(root: Node, problems: list[Problem]) -> Iterator[tuple[dict[str, str], Node]]:
    cases, shared = root.child("cases"), _without(root, "cases")
    if cases.value is None or cases.value == {}:
        yield {}, shared
    elif not cases.is_mapping:
        problems.append(cases.problem("must map the name of each case to what it changes"))
        yield {}, shared
    else:
        for label, case in cases.value.items():
            case = _filled(case)
            if not case.is_mapping or {"cases", "name", "each"} & case.value.keys():
                problems.append(case.problem("must be a part of an experiment, such as {cache: lru}, without a name"))
            else:
                yield {CASE: label}, merge(shared, case)


def is_set(node: Node) -> bool:
    """Whether it is written as a named set, `{each: {label: value, ...}}`."""
    return node.is_mapping and "each" in node.value


def is_axis(node: Node) -> bool:
    """Whether it is a list or a named set with something in it."""
    value = node.value["each"].value if is_set(node) else node.value
    return bool(value) and isinstance(value, dict if is_set(node) else list)


def merge(base: Node, over: Node, at: Path = ()) -> Node:
    """`over` laid onto `base`: mappings are merged key by key, anything else is replaced.

    Alternatives do not mix: a size of memory replaces any other, another kind of traffic drops what belongs to the old
    one, a policy with a name and a domain mix replace whole. A partial mapping reaches every element of an axis.
    """
    if is_axis(over) and is_axis(base):
        return over
    if is_axis(over):
        return _mapped(over, lambda item: merge(base, item, at))
    if is_axis(base) and over.is_mapping and not _whole(over, at):
        return _mapped(base, lambda item: merge(item, over, at))
    if at in NAMED and isinstance(base.value, str):
        base = Node({NAMED[at]: base}, base.where, base.path)
    if not (base.is_mapping and over.is_mapping) or _whole(over, at):
        return over
    merged = {key: value for key, value in base.value.items() if key not in _dropped(base, over, at)}
    for key, value in over.value.items():
        merged[key] = merge(merged[key], value, (*at, key)) if key in merged else value
    return Node(merged, base.where, base.path)


def _whole(over: Node, at: Path) -> bool:
    return at == ("traffic", "mix") or any(key in over.value for key in WHOLE.get(at, ()))


def _dropped(base: Node, over: Node, at: Path) -> tuple[str, ...]:
    for section, sizes in ((("memory",), SIZES), (("memory", "kv"), KV_SIZES)):
        if at == section and any(size in over.value for size in sizes):
            return sizes
    if at == ("traffic",) and "kind" in over.value and over.child("kind").value != base.child("kind").value:
        return (*ARRIVALS, *LENGTHS) if over.child("kind").value == "trace" else ARRIVALS
    return ()


def _mapped(axis: Node, change: Any) -> Node:
    if isinstance(axis.value, list):
        return Node([change(item) for item in axis.value], axis.where, axis.path)
    each = axis.value["each"]
    changed = Node({label: change(item) for label, item in each.value.items()}, each.where, each.path)
    return Node({**axis.value, "each": changed}, axis.where, axis.path)


def _elements(node: Node) -> list[tuple[str | None, Node]]:
    """The labelled elements of an axis; the label of a list's element is its own text, made when it is expanded."""
    if isinstance(node.value, list):
        return [(None, item) for item in node.value]
    return list(node.value["each"].value.items())


def _check_axes(node: Node, at: Path, problems: list[Problem]) -> None:
    if at in SINGLE:
        return
    if is_set(node):
        each = node.child("each")
        others = ", ".join(key for key in node.value if key != "each")
        if others:
            problems.append(node.problem(f"a named set holds each and nothing else; it has {others}"))
        if not each.is_mapping or not each.value:
            problems.append(each.problem("a named set is {each: {label: value, ...}} with at least one label"))
    elif node.value == []:
        problems.append(node.problem("the list is empty; it needs at least one value"))
    elif isinstance(node.value, list):
        texts = [text(item) for item in node.value]
        for repeated in sorted({item for item in texts if texts.count(item) > 1}):
            problems.append(node.problem(f"{repeated} is in the list twice"))
    if is_axis(node):
        for _, item in _elements(node):
            _check_axes(item, at, problems)
    elif node.is_mapping:
        for key, value in node.value.items():
            _check_axes(value, (*at, key), problems)


def _size(node: Node, at: Path) -> int:
    """How many points a tree has, without making them."""
    if at in SINGLE:
        return 1
    if is_axis(node):
        return sum(_size(item, at) for _, item in _elements(node))
    return math.prod(_size(value, (*at, key)) for key, value in node.value.items()) if node.is_mapping else 1


def _choices(node: Node, at: Path) -> list[Choice]:
    if at in SINGLE:
        return [(node, {})]
    if is_axis(node):
        return [
            (choice, {axis: _label(label, choice, labels.get(axis))} | {k: v for k, v in labels.items() if k != axis})
            for axis in (".".join(at),)
            for label, item in _elements(node)
            for choice, labels in _choices(item, at)
        ]
    if not node.is_mapping:
        return [(node, {})]
    keys = list(node.value)
    found = []
    for combination in itertools.product(*(_choices(node.value[key], (*at, key)) for key in keys)):
        value = {key: choice for key, (choice, _) in zip(keys, combination, strict=True)}
        labels = {axis: label for _, part in combination for axis, label in part.items()}
        found.append((Node(value, node.where, node.path), labels))
    return found


def _label(label: str | None, choice: Node, inner: str | None) -> str:
    """The label of an axis's element; with an axis right inside, both labels."""
    if label is None:
        return inner if inner is not None else text(choice)
    return f"{label} {inner}" if inner is not None else label


def text(node: Node) -> str:
    """A value in a few words: `8`, `lru`, `lookahead horizon=64 level=queue`."""
    value = node.plain()
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return " ".join([value["name"], *(f"{k}={_word(v)}" for k, v in value.items() if k != "name")])
    return _word(value)


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
