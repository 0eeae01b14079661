"""HTML from small functions: what is text is escaped, what is HTML already is not."""

from __future__ import annotations

from html import escape
from typing import Any

VOID = ("br", "col", "hr", "meta")


class Html(str):
    """Text that is HTML."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: Any) -> Html:
    """An element. `class_` and `data_runs` stand for `class` and `data-runs`; None and False leave an attribute out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    words = "".join(
        f" {key}" if value is True else f' {key}="{escape(str(value))}"'
        for key, value in given.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{words}>" if name in VOID else f"<{name}{words}>{join(*children)}</{name}>")


def join(*parts: str | None, between: str = "") -> Html:
    """The parts one after another; those that are None are left out."""
    given = (part for part in parts if part is not None)
    return Html(escape(between).join(part if isinstance(part, Html) else escape(part, quote=False) for part in given))
