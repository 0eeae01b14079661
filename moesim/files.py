"""Where shipped files are, and how files are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def shipped(*parts: str) -> Path:
    """Path of a shipped folder or file: inside the package in a wheel, beside it in a checkout."""
    inside = PACKAGE.joinpath(*parts)
    return inside if inside.exists() else PACKAGE.parent.joinpath(*parts)


def why_not_in(folder: Path) -> str:
    """Why no file can be written in a folder, which may have to be made; empty where one can."""
    whole = folder.absolute()
    above = next(path for path in (whole, *whole.parents) if path.exists())
    writable = above.is_dir() and os.access(above, os.W_OK)
    return "" if writable else f"{above} is no folder that can be written"


def unwritable(path: Path | str) -> list[str]:
    """What stands against writing a file, before there is anything to write; nothing where it seems possible."""
    target = Path(path)
    if target.is_dir():
        return [f"{target} is a folder; give the name of a file"]
    why = why_not_in(target.parent)
    return [f"{target} cannot be written: {why}"] if why else []


@contextmanager
def write_aside(path: Path | str) -> Iterator[Path]:
    """Give a temporary path; it replaces `path` when the block ends and is removed when the block fails."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield aside
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
