"""The files of a results folder, read back. One that is damaged, or that moesim did not write, is bad input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from moesim import summary
from moesim.errors import InputError, Problem

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
COLUMNS = ("run", "replication", "cache", "scope", "bytes", "span_ns", "output_tokens")
"""of summary.csv, whatever ran: without them nothing can be said"""
ADVICE = "run the experiment again, or take the folder from where it was written"


def runs(path: Path) -> pd.DataFrame:
    """summary.csv, a row per run."""
    return _read(path, "summary", _runs)


def resolved(path: Path) -> dict[str, Any]:
    """resolved.yaml: version, digests of the inputs, every point as it ran."""
    return _read(path, "resolved experiment", _resolved)


def record(path: Path) -> dict[str, Any]:
    """run.json; nothing where there is none."""
    return _read(path, "record of a run", _record) if path.is_file() else {}


def table(path: Path) -> pd.DataFrame:
    """A Parquet file as it was written."""
    return _read(path, "table", _table)


def _read(path: Path, what: str, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except OSError as error:
        text = f"cannot be read: {error.strerror or error}"
    except Exception as error:  # whatever the libraries say of a damaged file; they have no class in common
        reason = " ".join(str(error).split())[:120]
        text = f"is no {what} that moesim wrote ({reason or type(error).__name__}); {ADVICE}"
    raise InputError(Problem(str(path), text))


def _runs(path: Path) -> pd.DataFrame:
    text = path.read_text(encoding="utf-8")
    if not text.strip():
        raise ValueError("empty")
    found = summary.read_csv(text)
    if lacking := [column for column in COLUMNS if column not in found]:
        raise ValueError(f"no column {', '.join(lacking)}")
    if found.empty:
        raise ValueError("no row")
    return found


def _resolved(path: Path) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it was built
    found = yaml.load(path.read_text(encoding="utf-8"), loader)
    if not isinstance(found, dict):
        raise ValueError("empty" if found is None else "no mapping")
    points = found.get("points")
    if not (isinstance(points, list) and points and isinstance(found.get("inputs"), dict)):
        raise ValueError("no inputs and points")
    if not all(isinstance(p, dict) and isinstance(p.get("experiment"), dict) and "labels" in p for p in points):
        raise ValueError("a point without labels and experiment")
    return found


def _record(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError("no mapping")
    return found


def _table(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_parquet(path)
