"""Presets: partial experiments that put policies together under the name of a published system.

A preset is a YAML file in `policies/presets/`, or a file of the user's own: policies and what belongs to them (scope,
staging slots, how experts start), and three texts - what of the system it represents, what it leaves out, where the
rule is known from. An experiment names one as `preset: hobbit`, as `{name: hobbit, prefetch: none}` with changes, or
writes one out without a name; the rest of the experiment is laid over it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from moesim.document import Node, join, read_document
from moesim.errors import InputError, Problem, unknown
from moesim.experiment import SIZES, Experiment, Machine, Memory, Scheduler
from moesim.files import shipped
from moesim.grid import merge

PRESET = "preset"
TEXTS = {
    "represents": "what of the system it represents",
    "leaves_out": "what of the system it does not",
    "source": "where its rule is known from",
}
ENDINGS = (".yaml", ".yml")
OF_POLICIES = tuple(name for name in ("cache", "prefetch", "miss") if name in Experiment.model_fields)
SECTIONS: dict[str, tuple[str, ...]] = {
    "memory": tuple(name for name in Memory.model_fields if name not in (*SIZES, "gpu", "workspace", "kv")),
    "scheduler": tuple(Scheduler.model_fields),
    "machine": tuple(Machine.model_fields),
}


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset as it was read; `settings` is a partial experiment."""

    name: str
    represents: str
    leaves_out: str
    source: str
    settings: Node

    def document(self) -> dict[str, Any]:
        """The preset as JSON has it."""
        texts = {name: getattr(self, name) for name in ("name", *TEXTS)}
        return texts | {"settings": self.settings.plain()}


def names() -> list[str]:
    """The shipped presets, sorted."""
    return sorted(path.stem for path in shipped("policies", "presets").glob("*.yaml"))


def read_preset(name: str, base: Path | str = ".") -> Preset:
    """A shipped preset, or one in a file, relative to `base`. Raises InputError with every mistake in it."""
    if name.endswith(ENDINGS):
        path = Path(base, name)
        if not path.is_file():
            raise InputError(Problem("", f"there is no preset file {str(path)!r}"))
    elif name in names():
        path = shipped("policies", "presets", f"{name}.yaml")
    else:
        raise InputError(Problem("", f"{unknown('preset', name, names())}; or a path to a file that ends in .yaml"))
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=64)
def _read(path: Path, edited: int, size: int) -> Preset:
    root = read_document(path)
    problems = [*_text_problems(root), *_setting_problems(settings := _without(root, tuple(TEXTS)))]
    if problems:
        raise InputError(problems)
    texts = {name: " ".join(root.value[name].value.split()) for name in TEXTS}
    return Preset(path.stem, **texts, settings=settings)


def _without(node: Node, keys: tuple[str, ...]) -> Node:
    return Node({key: value for key, value in node.value.items() if key not in keys}, node.where, node.path)


def _text_problems(root: Node) -> Iterator[Problem]:
    for name, what in TEXTS.items():
        text = root.child(name).value
        if not isinstance(text, str) or not text.strip():
            yield root.child(name).problem(f"is missing; a preset says in a sentence or two {what}")


def _setting_problems(settings: Node) -> Iterator[Problem]:
    """What a preset must not hold: what is the experiment's business, and axes."""
    if not settings.value:
        yield settings.problem(f"sets nothing; a preset holds some of {', '.join(_known())}")
    for key, node in settings.value.items():
        if key not in _known():
            yield node.problem(f"{unknown('key', key, _known())}; the rest is the experiment's")
        elif key in SECTIONS and not node.is_mapping:
            yield node.problem(f"must be a mapping of {', '.join(SECTIONS[key])}")
        elif key in SECTIONS:
            for inner, value in node.value.items():
                if inner not in SECTIONS[key]:
                    yield value.problem(unknown("key", inner, SECTIONS[key]))
    yield from _axes(settings)


def _axes(node: Node) -> Iterator[Problem]:
    if isinstance(node.value, list) or (node.is_mapping and "each" in node.value):
        yield node.problem("is an axis; a preset has one value of each, and the experiment has the axes")
    elif node.is_mapping:
        for value in node.value.values():
            yield from _axes(value)


def _known() -> tuple[str, ...]:
    return (*OF_POLICIES, *SECTIONS)


def laid_under(tree: Node, base: Path | str, problems: list[Problem]) -> Node:
    """A point of a grid with its preset laid under its own settings; `preset` is left with its name.

    One that is written out has none but the label of its axis. What is wrong goes to `problems`.
    """
    given = tree.child(PRESET)
    if given.value is None or isinstance(given.value, list):  # a list is an axis that is none, as was said
        return _without(tree, (PRESET,))
    name, changes = given, Node({}, given.where, given.path)
    if given.is_mapping:
        name, changes = given.child("name"), _placed(_without(given, ("name",)))
        problems += _setting_problems(changes) if changes.value or name.value is None else ()
        changes = Node({k: v for k, v in changes.value.items() if k in _known()}, given.where, given.path)
    if not isinstance(name.value, str | None):
        problems.append(name.problem(f"{name.value!r} is no preset; write the name of one, or {{name: ..., changes}}"))
        return _without(tree, (PRESET,))
    settings = Node({}, given.where)
    if name.value is not None:
        try:
            settings = read_preset(name.value, base).settings
        except InputError as error:
            problems += [problem if problem.place else name.problem(problem.text) for problem in error.problems]
    merged = merge(merge(settings, changes), _without(tree, (PRESET,)))
    named = {} if name.value is None else {PRESET: name}
    return Node(merged.value | named, tree.where, tree.path)


def _placed(node: Node, path: str = "") -> Node:
    """What is written under `preset`, with the paths that it has in an experiment."""
    value = node.value
    if node.is_mapping:
        value = {key: _placed(item, join(path, key)) for key, item in node.value.items()}
    return Node(value, node.where, f"{PRESET}.{path}" if path else PRESET)
