"""A regression file over the tiny experiment, and the command on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from moesim.cli import app
from tests.tiny import write

METRICS = ["miss_keys", "evictions", "span_ns"]


def regression(folder: Path, document: Any = None, **changes: Any) -> Path:
    """regression.yaml of one experiment `guard`, over tiny.yaml with two caches; changes are of its top-level keys."""
    write(folder, cache=["lru", "fifo"], memory={"slots": 4})
    listed = {"guard": {"file": "tiny.yaml", "about": "two caches"}}
    text = {"metrics": METRICS, "experiments": listed} | changes if document is None else document
    path = folder / "regression.yaml"
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    return path


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """In a folder, with no job's summary to write."""
    before, summary = Path.cwd(), os.environ.pop("GITHUB_STEP_SUMMARY", None)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        if summary is not None:
            os.environ["GITHUB_STEP_SUMMARY"] = summary


def call(folder: Path, *words: object) -> Result:
    """`moesim regress` in a folder, in one process."""
    with inside(folder):
        return CliRunner().invoke(app, ["regress", "--jobs", "1", *map(str, words)])
