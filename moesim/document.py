"""A YAML document in which every value remembers where it was written, so that a mistake can be shown to its author."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from moesim.errors import InputError, Problem

MOST_NODES = 100_000


@dataclass(frozen=True, slots=True)
class Node:
    """A value with its place. `value` is a dict of nodes, a list of nodes or a scalar.

    `where` is "file:line", an option such as "--set", or "" for a value from Python; `path` is dotted.
    """

    value: Any
    where: str = ""
    path: str = ""

    @property
    def is_mapping(self) -> bool:
        return isinstance(self.value, dict)

    @property
    def place(self) -> str:
        """Where to look: `file:12: memory.slots`, `--set memory.slots`, or the path alone."""
        between = " " if self.where.startswith("-") else ": "
        return between.join(part for part in (self.where, self.path) if part)

    def problem(self, text: str) -> Problem:
        return Problem(self.place, text)

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value

    def child(self, key: str) -> Node:
        """The value of `key`; where there is none, an empty node that names the place where it would be."""
        if self.is_mapping and key in self.value:
            return self.value[key]
        return Node(None, self.where, join(self.path, key))


def join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def read_document(path: Path | str) -> Node:
    """The file's root, a mapping. Raises InputError with the line when it cannot be read, or is no YAML mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(str(path), _unreadable(path, error))) from None
    return _mapping(parse(text, str(path)), str(path))


def from_plain(value: Any, path: str = "", where: str = "") -> Node:
    """A node of plain Python data (dicts, lists, scalars); scalars and arrays of numpy are taken as Python's."""
    if type(value).__module__ == "numpy":  # asked for by name, so that numpy need not be imported
        value = value.tolist()
    if isinstance(value, Mapping):
        return Node({str(k): from_plain(v, join(path, str(k)), where) for k, v in value.items()}, where, path)
    if isinstance(value, list | tuple | range):
        return Node([from_plain(item, path, where) for item in value], where, path)
    return Node(value, where, path)


def from_settings(settings: Iterable[str], problems: list[Problem]) -> Node:
    """One mapping of `--set a.b=value` texts; values are YAML, later ones win. What is wrong goes to `problems`."""
    root = Node({}, "--set")
    for setting in settings:
        key, equals, text = setting.partition("=")
        keys = key.strip().split(".")
        if not equals or not all(keys):
            problems.append(Problem(f"--set {setting}", "is not of the form a.b=value"))
            continue
        try:
            _put(root, keys, parse(text, "--set", lined=False, path=".".join(keys)))
        except InputError as error:
            problems += error.problems
    return root


def _put(root: Node, keys: list[str], value: Node) -> None:
    for key in keys[:-1]:
        if not root.child(key).is_mapping:
            root.value[key] = Node({}, "--set", join(root.path, key))
        root = root.value[key]
    root.value[keys[-1]] = value


def _unreadable(path: Path | str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file; an experiment file was expected"
    if isinstance(error, UnicodeDecodeError):
        return f"is no UTF-8 text (byte {error.start}); an experiment file in YAML was expected"
    return f"cannot be read: {getattr(error, 'strerror', None) or error}"


def _mapping(root: Node, where: str) -> Node:
    if not root.is_mapping:
        what = "is empty" if root.value is None else f"holds {type(root.value).__name__} data"
        raise InputError(Problem(where, f"{what}; an experiment is a mapping of keys to values"))
    return root


class _Loader(yaml.SafeLoader):
    """YAML with the plain scalars of YAML 1.2: 1e9 is a number; no, on and 2026-01-01 are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as the base class has it


_PLAIN = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "merge": (r"<<", "<"),
}
for _name, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(f"^(?:{_pattern})$"), list(_first))


def parse(text: str, name: str, lined: bool = True, path: str = "") -> Node:
    """The nodes of a YAML text. Places are `name:line`, or `name` alone. Raises InputError."""
    loader: _Loader | None = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        reader = _Reader(loader, name, lined)
        node = reader.node(root, path, root.start_mark.line) if root else Node(None, name, path)
    except yaml.YAMLError as error:
        raise InputError(_syntax(error, name, lined, path)) from None
    finally:
        if loader:
            loader.dispose()
    if reader.problems if root else ():
        raise InputError(reader.problems)
    return node


def _syntax(error: yaml.YAMLError, name: str, lined: bool, path: str) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{name}:{mark.line + 1}" if mark and lined else name
    parts = (getattr(error, "context", None), getattr(error, "problem", None))
    text = ", ".join(part for part in parts if part) or str(error).splitlines()[0]
    return Node(None, where, path).problem(f"is no YAML: {text}")


class _Reader:
    """Turns composed YAML nodes into nodes with places; collects what is wrong on the way."""

    def __init__(self, loader: _Loader, name: str, lined: bool) -> None:
        self.loader, self.name, self.lined = loader, name, lined
        self.problems: list[Problem] = []
        self.open: set[int] = set()
        self.count = 0

    def node(self, node: yaml.Node, path: str, line: int) -> Node:
        where = f"{self.name}:{line + 1}" if self.lined else self.name
        self.count += 1
        if id(node) in self.open or self.count > MOST_NODES:
            rule = "holds itself" if id(node) in self.open else f"is larger than {MOST_NODES:,} values"
            raise yaml.MarkedYAMLError(problem=f"the document {rule}", problem_mark=node.start_mark)
        self.open.add(id(node))
        value = self._value(node, path, where)
        self.open.remove(id(node))
        return Node(value, where, path)

    def _value(self, node: yaml.Node, path: str, where: str) -> Any:
        if isinstance(node, yaml.MappingNode):
            self._repeated(node, path)
            self.loader.flatten_mapping(node)
            return {
                key.value: self.node(value, join(path, key.value), key.start_mark.line)
                for key, value in node.value
                if isinstance(key, yaml.ScalarNode)
            }
        if isinstance(node, yaml.SequenceNode):
            return [self.node(item, path, item.start_mark.line) for item in node.value]
        return self._scalar(node, Node(None, where, path))

    def _repeated(self, node: yaml.MappingNode, path: str) -> None:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            at = Node(None, f"{self.name}:{key.start_mark.line + 1}" if self.lined else self.name, path)
            if not isinstance(key, yaml.ScalarNode):
                self.problems.append(at.problem("has a key that is no plain text"))
            elif key.value in seen:
                twice = Node(None, at.where, join(path, key.value))
                self.problems.append(twice.problem(f"key given twice; it is on line {seen[key.value]} as well"))
            else:
                seen[key.value] = key.start_mark.line + 1

    def _scalar(self, node: yaml.Node, at: Node) -> Any:
        tag, text = node.tag.removeprefix("tag:yaml.org,2002:"), node.value
        convert: dict[str, Callable[[str], Any]] = {
            "str": str,
            "int": lambda text: int(text.replace("_", "")),
            "float": lambda text: float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan")),
            "bool": lambda text: text.lower() == "true",
            "null": lambda text: None,
        }
        try:
            return convert[tag](text)
        except (KeyError, ValueError):
            self.problems.append(at.problem(f"{text!r} has the tag {node.tag}, which is not known here"))
            return None
