"""Finding a policy by name: a file in `policies/<kind>/`, a path, or an installed package's entry point."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, TypeVar

from moesim.errors import InputError, Problem, unknown
from moesim.files import shipped
from moesim.policy.base import KINDS, LEVELS, Policy
from moesim.policy.declared import wrong

P = TypeVar("P", bound=type[Policy])
_registered: dict[tuple[str, str], type[Policy]] = {}
_read: dict[str, tuple[tuple[int, int], Any]] = {}
"""modules of policy files by name, each with its file's time and size when it was read"""


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
    """The class called `name`; a name that ends in `.py` is a path, relative to `base`. InputError if there is none.

    A file that has changed since it was read is read again.
    """
    if name.endswith(".py"):
        return _from_file(kind, Path(base, name))
    if (kind, name) in _registered:
        return _registered[kind, name]
    path = shipped("policies", kind, f"{name.replace('-', '_')}.py")
    if path.is_file():
        return _from_file(kind, path)
    for entry in entry_points(group=f"moesim.{kind}", name=name):
        return _from_entry(kind, entry)
    raise InputError(Problem("", unknown(f"{kind} policy", name, names(kind))))


def _from_entry(kind: str, entry: EntryPoint) -> type[Policy]:
    """What an installed package offers, which may be broken or something else than a policy."""
    where = f"the {kind} policy {entry.name!r} of an installed package ({entry.value})"
    try:
        found = entry.load()
    except Exception as error:
        raise InputError(Problem("", f"{where} does not load: {error!r}")) from error
    if not (isinstance(found, type) and issubclass(found, Policy) and found.kind == kind):
        raise InputError(Problem("", f"{where} is {found!r}, and no subclass of {kind.title()}Policy"))
    return found


def _from_file(kind: str, path: Path) -> type[Policy]:
    if not path.is_file():
        raise InputError(Problem(str(path), "no such policy file"))
    module_name = f"moesim_policies.{kind}.{path.stem}_{abs(hash(path.resolve())):x}"
    stamp = _stamp(path)
    known, module = _read.get(module_name, (None, None))
    if known != stamp:
        module = _load(module_name, path)
        _read[module_name] = stamp, module
    found = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, Policy) and c.name]
    own = [c for c in found if c.__module__ == module_name and c.kind == kind]
    if len(own) != 1:
        raise InputError(Problem(str(path), f"holds {len(own)} registered {kind} policies; one a file is the rule"))
    return own[0]


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _load(module_name: str, path: Path) -> Any:
    module = ModuleType(module_name)
    module.__file__ = str(path)
    before, earlier = dict(_registered), sys.modules.get(module_name)
    sys.modules[module_name] = module
    try:
        # Compiled from the text, as Python's own cache of compiled files goes by whole seconds.
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), vars(module))
    except Exception as error:
        if earlier is None:
            del sys.modules[module_name]
        else:
            sys.modules[module_name] = earlier
        raise InputError(Problem(str(path), f"this policy file does not load: {error!r}")) from error
    finally:
        # A file is found by its own name or path. Were what it calls itself known from now on, a copy of lru.py would
        # take the place of lru, in those processes that happen to have read it.
        _registered.clear()
        _registered.update(before)
    return module


def make(kind: str, spec: Spec, base: Path | str = ".") -> Policy:
    """A fresh policy object with the parameters of `spec`. InputError names all of them that it does not have."""
    cls = find(kind, spec.name, base)
    taken = inspect.signature(cls).parameters
    strange = [name for name in spec.params if name not in taken]
    if strange and not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        named = f"{kind} policy {spec.name!r}"
        raise InputError([Problem("", f"{named}: {unknown('parameter', name, taken)}") for name in strange])
    try:
        made = cls(**spec.params)
    except (TypeError, ValueError) as error:
        raise InputError(Problem("", f"{kind} policy {spec.name!r}: {error}; {_signature(cls)}")) from error
    except Exception as error:
        raise InputError(Problem("", f"{kind} policy {spec.name!r}: its __init__ raised {error!r}")) from error
    if problems := wrong(made):
        raise InputError([Problem("", f"{kind} policy {spec.name!r}: {text}") for text in problems])
    return made


def check(kind: str, spec: Spec, base: Path | str = ".") -> list[Problem]:
    """What is wrong with `spec`; empty when it can be made."""
    assert kind in KINDS
    try:
        make(kind, spec, base)
    except InputError as error:
        return list(error.problems)
    return []


def parameters(cls: type[Policy]) -> dict[str, Any]:
    """The parameters of a policy and their defaults; `inspect.Parameter.empty` where one has none."""
    if cls.__init__ is object.__init__:
        return {}
    return {name: p.default for name, p in inspect.signature(cls).parameters.items()}


def levels(cls: type[Policy]) -> tuple[str, ...]:
    """The levels that a policy may be of, in the order of `LEVELS`; several where the level is a parameter of it."""
    if "level" not in parameters(cls):
        return (_level(cls),)
    found = []
    for level in LEVELS:
        try:
            found.append(cls(level=level).level)  # type: ignore[call-arg]
        except Exception:  # not a level of it; what else is wrong, `make` will say
            continue
    return tuple(dict.fromkeys(found)) or (cls.level,)


def _level(cls: type[Policy]) -> str:
    try:
        return cls().level
    except Exception:  # it has parameters without a default, or its __init__ fails
        return cls.level


def _signature(cls: type[Policy]) -> str:
    """What it takes, with defaults as an experiment file has them."""
    given = [f"{name}={_word(default)}" for name, default in parameters(cls).items()]
    return f"it takes {', '.join(given) or 'no parameters'}"


def _word(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return "..."
    return "null" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
