"""Pieces of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def code(value: Any) -> str:
    """A value as it is written in a file or on a command line."""
    return f"`{value}`"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; bars in cells are escaped, and what is on several lines is put on one."""
    head, *body = ["| " + " | ".join(map(_cell, line)) + " |" for line in (heads, *rows)]
    return "\n".join([head, "|---" * len(heads) + "|", *body])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
