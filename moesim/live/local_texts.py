"""Texts that every Python has: for a first try, where there is neither a corpus nor a user's own texts."""

from __future__ import annotations

import importlib.metadata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moesim.live import sources
from moesim.live.corpus import Split, Work

LOCAL_DOMAINS = ("code", "documentation", "package descriptions")


def local_works() -> list[Work]:
    """The standard library's code, Python's own documentation, and the descriptions of the installed packages."""
    found = []
    for name, units in sources.python_library(Path()):
        found.append(_work("code", "Python standard library", "PSF-2.0", name, units, "\n\n\n"))
    for name, text in _topics():
        found.append(_work("documentation", "Python documentation (pydoc)", "PSF-2.0", name, _paragraphs(text)))
    for name, licence, text in _descriptions():
        found.append(_work("package descriptions", "installed packages", licence, name, _paragraphs(text)))
    return [work for work in found if work.units]


def _work(domain: str, source: str, licence: str, name: str, units: list[str], joint: str = "\n\n") -> Work:
    split: Split = "held-out" if zlib.crc32(name.split("/")[0].encode()) % 2 else "train"
    return Work(domain, source, licence, split, name, tuple(units), joint)


def _topics() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    yield from sorted(topics.items())


def _descriptions() -> Iterator[tuple[str, str, str]]:
    seen = {}
    for package in importlib.metadata.distributions():
        data: Any = package.metadata  # an email.message.Message
        text = data.get_payload() or data.get("Description") or ""
        if data["Name"] and isinstance(text, str):
            licence = data.get("License-Expression") or data.get("License") or "not stated"
            seen[data["Name"].lower()] = (licence.splitlines()[0][:60], text)
    for name, (licence, text) in sorted(seen.items()):
        yield name, licence, text


def _paragraphs(text: str) -> list[str]:
    return [part.strip("\n") for part in text.split("\n\n") if part.strip()]
