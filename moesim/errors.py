"""What is wrong with the user's input, all of it at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: `place` is a file, a line or a dotted path into an experiment; `text` gives value and rule."""

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


class InputError(ValueError):
    """Bad input. `problems` lists every mistake that was found; the command line prints them and exits with 2."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show: what is wrong with the input, and not where in moesim that was noticed."""
        count = len(self.problems)
        head = f"InputError: {count} mistakes" if count != 1 else "InputError:"
        return [head, *(f"  {problem}" for problem in self.problems)]


def unknown(what: str, value: object, known: Iterable[str]) -> str:
    """Text of a wrong name: what exists, and the nearest of it."""
    names = sorted(known)
    near = difflib.get_close_matches(str(value), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {value!r}{hint} There is: {', '.join(names) or 'none'}"
