"""What there is to choose from: every policy that is found by name, and what it says of itself."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from moesim.errors import InputError, Problem
from moesim.policy.base import KINDS, Policy
from moesim.policy.registry import find, levels, names, parameters

SOURCE = "Source:"


@dataclass(frozen=True, slots=True)
class Entry:
    """A policy as its class describes itself. `levels` has all that it takes where the level is a parameter."""

    kind: str
    name: str
    levels: tuple[str, ...]
    cost: str
    source: str
    about: str
    """the first sentence of its docstring"""
    parameters: dict[str, Any]
    """name -> default; `required` where it has none"""

    def document(self) -> dict[str, Any]:
        """The entry as JSON has it."""
        fields = ("kind", "name", "cost", "source", "about", "parameters")
        return {"levels": list(self.levels)} | {name: getattr(self, name) for name in fields}


def entry(kind: str, name: str, cls: type[Policy]) -> Entry:
    return Entry(kind, name, levels(cls), cls.cost, source(cls), about(cls.__doc__ or ""), _parameters(cls))


def entries(kinds: tuple[str, ...] = KINDS) -> tuple[list[Entry], list[Problem]]:
    """All policies of these kinds, by kind and name; and what is wrong with those that cannot be read."""
    found: list[Entry] = []
    problems: list[Problem] = []
    for kind in kinds:
        for name in names(kind):
            try:
                found.append(entry(kind, name, find(kind, name)))
            except InputError as error:
                problems += error.problems
    return found, problems


def about(text: str) -> str:
    """The first sentence of a docstring's first paragraph, without its full stop."""
    paragraph = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
    return paragraph.split(". ")[0].removesuffix(".")


def source(cls: type[Policy]) -> str:
    """Where its rule comes from: the attribute `source`, else the docstring's last paragraph if it begins `Source:`."""
    said = _paragraphs(cls)[-1:]
    stated = " ".join(said[0].split()) if said and said[0].startswith(SOURCE) else ""
    return cls.source or stated.removeprefix(SOURCE).strip().removesuffix(".")


def description(cls: type[Policy]) -> str:
    """The docstring without the paragraph that names its source."""
    return "\n\n".join(part for part in _paragraphs(cls) if not part.startswith(SOURCE))


def _paragraphs(cls: type[Policy]) -> list[str]:
    return inspect.cleandoc(cls.__doc__ or "").split("\n\n")


def _parameters(cls: type[Policy]) -> dict[str, Any]:
    empty = inspect.Parameter.empty
    return {name: "required" if default is empty else default for name, default in parameters(cls).items()}
