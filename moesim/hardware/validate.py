"""Mistakes in a hardware file, each with its place in it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from moesim.errors import Problem


def problems_of(error: ValidationError, place: str) -> Iterator[Problem]:
    """Every mistake that pydantic found, as `place: dotted.path: the rule, and the value that breaks it`."""
    for mistake in error.errors():
        path = ".".join(map(str, mistake["loc"]))
        given = mistake["input"]
        shown = f" (it is {given!r})" if path and isinstance(given, bool | int | float | str) else ""
        yield Problem(f"{place}: {path}" if path else place, f"{mistake['msg']}{shown}")
