"""What a policy did wrong, and at which call."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from moesim.sim.cache import Either

SHOWN = 3  # calls that a report names
LONG = 90  # characters of a call


class Broken(AssertionError):
    """A rule that a policy broke, in words."""


class Calls:
    """Counts the calls of a policy, remembers the last ones, and says at which of them something went wrong."""

    def __init__(self) -> None:
        self.count = 0
        self.last: deque[str] = deque(maxlen=SHOWN + 1)

    def __call__(self, method: Callable[..., Any], *args: Any) -> Any:
        """The answer of `method`; Broken where it raises."""
        self.count += 1
        self.last.append(f"{method.__name__}({', '.join(map(_text, args))})")
        try:
            return method(*args)
        except Broken:
            raise
        except Exception as error:
            raise self.broken(f"raised {error!r}{where(error)}") from error

    def broken(self, what: str) -> Broken:
        """`what` happened at the last call."""
        *before, call = self.last
        after = f", after {', '.join(before)}" if before else ""
        return Broken(f"call {self.count}, {call}: {what}{after}")


def listed(answer: Any, calls: Calls, what: str) -> list[Any]:
    """`answer` as a list; Broken where it is none."""
    try:
        return list(answer)
    except TypeError:
        raise calls.broken(f"answered {answer!r}, which is no list of {what}") from None


def whole(value: Any) -> bool:
    """Whether a value is a whole number, and no bool."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def require(holds: bool, calls: Calls, what: str) -> None:
    if not holds:
        raise calls.broken(what)


def where(error: BaseException) -> str:
    """The line of the policy's file that raised, as ` (mine.py:31)`."""
    lines = traceback.extract_tb(error.__traceback__)
    if not lines:
        return ""
    return f" ({Path(lines[-1].filename).name}:{lines[-1].lineno})"


def _text(value: Any) -> str:
    if isinstance(value, Either):
        return f"{_text(value.one)} or {_text(value.other)}"
    text = repr(sorted(value) if isinstance(value, set | frozenset) else value)
    if text.startswith("<"):
        text = type(value).__name__
    return text if len(text) <= LONG else text[: LONG - 1] + "…"
