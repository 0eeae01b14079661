"""Finding a policy by name: a file in `policies/<kind>/`, a path, or an installed package's entry point."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, TypeVar

from moesim.errors import InputError, Problem, unknown
from moesim.files import shipped
from moesim.policy.base import KINDS, Policy

P = TypeVar("P", bound=type[Policy])
_registered: dict[tuple[str, str], type[Policy]] = {}


class Spec(Protocol):
    """A policy as an experiment file names it."""

    @property
    def name(self) -> str: ...
    @property
    def params(self) -> dict[str, Any]: ...


def register(name: str) -> Callable[[P], P]:
    """Class decorator: make the policy known as `name` within its kind."""

    def enter(cls: P) -> P:
        cls.name = name
        _registered[cls.kind, name] = cls
        return cls

    return enter


def names(kind: str) -> list[str]:
    """Names that `find` knows without a path, sorted."""
    by_hand = {name for of, name in _registered if of == kind}
    files = {p.stem.replace("_", "-") for p in shipped("policies", kind).glob("*.py") if not p.stem.startswith("_")}
    return sorted(files | by_hand | {e.name for e in entry_points(group=f"moesim.{kind}")})


def find(kind: str, name: str, base: Path | str = ".") -> type[Policy]:
    """The class called `name`; a name that ends in `.py` is a path, relative to `base`. InputError if there is none."""
    if name.endswith(".py"):
        return _from_file(kind, Path(base, name))
    if (kind, name) in _registered:
        return _registered[kind, name]
    path = shipped("policies", kind, f"{name.replace('-', '_')}.py")
    if path.is_file():
        return _from_file(kind, path)
    for entry in entry_points(group=f"moesim.{kind}", name=name):
        return entry.load()
    raise InputError(Problem("", unknown(f"{kind} policy", name, names(kind))))


def _from_file(kind: str, path: Path) -> type[Policy]:
    if not path.is_file():
        raise InputError(Problem(str(path), "no such policy file"))
    module_name = f"moesim_policies.{kind}.{path.stem}_{abs(hash(path.resolve())):x}"
    module = sys.modules.get(module_name) or _load(module_name, path)
    found = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Policy) and c.name]
    own = [c for c in found if c.__module__ == module_name and c.kind == kind]
    if len(own) != 1:
        raise InputError(Problem(str(path), f"holds {len(own)} registered {kind} policies; one a file is the rule"))
    return own[0]


def _load(module_name: str, path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    before = dict(_registered)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise InputError(Problem(str(path), f"this policy file does not load: {error!r}")) from error
    finally:
        # A file is found by its own name or path. Were what it calls itself known from now on, a copy of lru.py would
        # take the place of lru, in those processes that happen to have read it.
        _registered.clear()
        _registered.update(before)
    return module


def make(kind: str, spec: Spec, base: Path | str = ".") -> Policy:
    """A fresh policy object with the parameters of `spec`."""
    cls = find(kind, spec.name, base)
    try:
        return cls(**spec.params)
    except (TypeError, ValueError) as error:
        raise InputError(Problem("", f"{kind} policy {spec.name!r}: {error}; {_signature(cls)}")) from error


def check(kind: str, spec: Spec, base: Path | str = ".") -> list[Problem]:
    """What is wrong with `spec`; empty when it can be made."""
    assert kind in KINDS
    try:
        make(kind, spec, base)
    except InputError as error:
        return list(error.problems)
    return []


def _signature(cls: type[Policy]) -> str:
    parameters = inspect.signature(cls).parameters.values()
    return f"it takes {', '.join(map(str, parameters)) or 'no parameters'}"
