"""The command line, command by command, as Markdown: from what the commands declare (docs/commands.md)."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from moesim.manual.markdown import code, table

HEAD = """\
# Commands

Every command of `moesim` with its arguments and options, as its `--help` has them. This page is written by `python -m
moesim.manual`, from the program.

Exit code 0: done; 1: a check failed (a policy broke a rule, a regression, a validation); 2: bad input, with one
message on standard error that lists every mistake with its place and what would be right. `--json` prints one JSON
document on standard output and nothing else there. The same is there from Python: `moesim.run("my.yaml",
memory__slots=4)`.
"""
WORDS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
"""what stands for a value of a type where the command gives it no name"""


@dataclass(frozen=True, slots=True)
class Parameter:
    """An argument or an option of a command, in words."""

    name: str
    argument: bool
    needed: bool
    default: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command: all its words, what it does, what it takes."""

    name: str
    text: str
    parameters: tuple[Parameter, ...]

    @property
    def usage(self) -> str:
        """How it is called."""
        taken = [p.name if p.needed else f"[{p.name}]" for p in self.parameters if p.argument]
        options = ["[OPTIONS]"] * any(not p.argument for p in self.parameters)
        return " ".join([self.name, *options, *taken])


def page() -> str:
    """The whole page, ending in a line break."""
    from moesim.cli import app

    found = list(commands(app, "moesim"))
    rows = [(f"[{code(c.name)}](#{c.name.replace(' ', '-')})", c.text.split("\n\n")[0]) for c in found]
    parts = [HEAD, table(("command", "what it does"), rows)]
    for command in found:
        parts += [f"## {command.name}", f"```\n{command.usage}\n```", command.text]
        taken = [(code(p.name), p.default, p.text) for p in command.parameters]
        parts += [table(("argument or option", "default", "what it does"), taken)] if taken else []
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def commands(app: Any, name: str) -> Iterator[Command]:
    """All commands of a typer application, in the order of its help; those that are hidden are left out."""
    for info in app.registered_commands:
        if not info.hidden:
            yield _command(info.callback, f"{name} {info.name or _word(info.callback.__name__)}", info.help)
    for info in app.registered_groups:
        group, called = info.typer_instance, f"{name} {info.name}"
        if group.info.invoke_without_command:
            yield _command(group.registered_callback.callback, called, None)
        yield from commands(group, called)


def _command(callback: Callable[..., Any], name: str, text: str | None) -> Command:
    hints = get_type_hints(callback, include_extras=True)
    parameters = inspect.signature(callback).parameters.values()
    found = [_parameter(p.name, hints[p.name], p.default) for p in parameters if get_args(hints[p.name])]
    kept = tuple(sorted((p for p in found if p is not None), key=lambda p: not p.argument))
    return Command(name, inspect.cleandoc(text or callback.__doc__ or ""), kept)


def _parameter(name: str, hint: Any, default: Any) -> Parameter | None:
    import typer

    kinds = (typer.models.ArgumentInfo, typer.models.OptionInfo)
    said = next((extra for extra in get_args(hint)[1:] if isinstance(extra, kinds)), None)
    if said is None or said.hidden:
        return None
    plain, several = _plain(get_args(hint)[0])
    needed = default is inspect.Parameter.empty
    if isinstance(said, typer.models.ArgumentInfo):
        shown = said.metavar or name.upper() + "..." * several
        return Parameter(shown, True, needed, "", said.help or "")
    flags = ", ".join(_flags(said) or [f"--{_word(name)}"] + [f"--no-{_word(name)}"] * (plain is bool))
    shown = flags if plain is bool else f"{flags} {said.metavar or WORDS.get(plain, 'VALUE')}"
    text = (said.help or "") + " Repeatable." * (several and "epeatable" not in (said.help or ""))
    return Parameter(shown, False, needed, "**needed**" if needed else _default(default), text)


def _flags(said: Any) -> list[str]:
    """Names that an option was given; of those the first stands where a default would, outside of Annotated."""
    return [name for name in (said.default, *(said.param_decls or ())) if isinstance(name, str) and name[:1] == "-"]


def _plain(hint: Any) -> tuple[Any, bool]:
    """The type of one value, and whether there may be several."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if get_origin(hint) in (list, tuple):
        return get_args(hint)[0], True
    return hint, False


def _default(value: Any) -> str:
    if value is None or value is False or value in ("", (), []):
        return ""
    return code("yes" if value is True else value)


def _word(name: str) -> str:
    return name.replace("_", "-")
