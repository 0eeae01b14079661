"""What commands share: mistakes of the input, and JSON."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from moesim.errors import InputError, Problem

T = TypeVar("T")
JSON = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else there.")
]


@contextmanager
def bad_input() -> Iterator[None]:
    """Exit with 2 and one message for all mistakes of the user's input."""
    from moesim.errors import InputError

    try:
        yield
    except InputError as error:
        print(message(error), file=sys.stderr)
        raise typer.Exit(2) from None


def message(error: InputError) -> str:
    """All mistakes, a line each."""
    count = len(error.problems)
    head = f"moesim: {count} mistakes in the input; nothing was written" if count != 1 else "moesim: bad input"
    return "\n".join([head, *(f"  {problem}" for problem in error.problems)])


@contextmanager
def stopping(done: str = "runs", *, resumes: bool = True) -> Iterator[None]:
    """Ctrl-C and broken workers end the command with a line, not with a traceback. `done`: what is kept of it."""
    from concurrent.futures.process import BrokenProcessPool

    try:
        yield
    except KeyboardInterrupt:
        after = f"the same command goes on from the {done} that are done" if resumes else "nothing was written"
        print(f"moesim: stopped; {after}", file=sys.stderr)
        raise typer.Exit(130) from None
    except BrokenProcessPool:
        text = "a worker process was ended from outside (out of memory?); try --jobs 1"
        print(f"moesim: {text}{'. The same command goes on from here' * resumes}", file=sys.stderr)
        raise typer.Exit(1) from None


def cpus() -> int:
    """Processors that this process may use."""
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Gather:
    """Tries several things and raises their mistakes together."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def __call__(self, make: Callable[[], T]) -> T | None:
        """What `make` gives, or None where it raises InputError."""
        from moesim.errors import InputError

        try:
            return make()
        except InputError as error:
            self.problems += error.problems
            return None

    def check(self) -> None:
        """Raises InputError if there was any mistake."""
        from moesim.errors import InputError

        if self.problems:
            raise InputError(self.problems)


def dump(document: Any) -> str:
    import json

    return json.dumps(document, indent=1, ensure_ascii=False)


def write_texts(folder: Path, texts: dict[str, str]) -> None:
    """Write files into a folder, each whole or not at all. Raises InputError where the folder cannot be written."""
    from moesim.errors import InputError, Problem
    from moesim.files import write_aside

    try:
        for name, text in texts.items():
            with write_aside(folder / name) as aside:
                aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(Problem(str(folder), f"cannot be written ({error.strerror})")) from error
