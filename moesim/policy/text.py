"""A policy as it is written on a command line: `lru`, `lookahead(level=step, horizon=0)`, `mine.py(depth=3)`."""

from __future__ import annotations

import re
from typing import Any

from moesim.errors import InputError, Problem

NAME = re.compile(r"(?P<name>[^@()\s]+)\s*(?:\((?P<params>.*)\))?\s*(?:@\s*(?P<scope>\w+))?")


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Name and parameters; values are YAML. Raises InputError."""
    name, params, scope = parse_scoped(text)
    if scope:
        raise InputError(Problem("", f"{text!r} has a scope, and here is none to choose; write NAME(PARAMETER=VALUE)"))
    return name, params


def parse_scoped(text: str) -> tuple[str, dict[str, Any], str]:
    """Name, parameters and the scope behind `@`, '' where there is none. Raises InputError."""
    import yaml

    match = NAME.fullmatch(text.strip())
    if not match:
        raise InputError(Problem("", f"{text!r} is no policy; write NAME, NAME@SCOPE or NAME(PARAMETER=VALUE, ...)"))
    pairs = [part.partition("=") for part in split(match["params"] or "")]
    if wrong := [key for key, equals, _ in pairs if not equals]:
        raise InputError(Problem("", f"{text!r}: {wrong[0]!r} has no value; write PARAMETER=VALUE"))
    try:
        params = {key.strip(): yaml.safe_load(value) for key, _, value in pairs}
    except yaml.YAMLError as error:
        raise InputError(Problem("", f"{text!r}: a value is not YAML ({str(error).splitlines()[0]})")) from error
    return match["name"], params, match["scope"] or ""


def split(text: str) -> list[str]:
    """Parts between commas that stand in no parentheses."""
    return [part.strip() for part in re.split(r",(?![^(]*\))", text) if part.strip()]
