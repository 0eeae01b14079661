"""Finished runs of an interrupted command, kept so that the same command goes on from there."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from moesim import inputs
from moesim.errors import InputError, Problem
from moesim.files import PACKAGE, shipped, write_aside

if TYPE_CHECKING:
    from moesim.plan import Run
    from moesim.sim import RunResult

TABLES = ("steps", "requests", "windows", "tokens", "transfers")
DEPENDS = ("numpy", "simpy")


def run_key(run: Run) -> str:
    """Digest of all that decides a run's result: configuration, inputs, replication, and the code."""
    config = run.config.experiment()
    for free in ("name", "question", "preset"):  # replications divide the captured sequences, so their number counts
        config.pop(free, None)
    parts = [config, run.replication, inputs.digests(inputs.load(run.sources)), code_digest()]
    parts += [_file_digest(Path(name)) for name in policy_files(run)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def policy_files(run: Run) -> list[str]:
    """Paths of the policies that the run takes from a file of the user's own."""
    config = run.config
    named = (spec.name for spec in (config.cache, config.prefetch, config.miss, config.scheduler.batch))
    return [str(Path(run.sources.base, name)) for name in named if name.endswith(".py")]


def _file_digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=1)
def code_digest() -> str:
    """Digest of moesim's source, of the shipped policies, and of the versions that a result may depend on."""
    digest = hashlib.sha256()
    for folder in (PACKAGE, shipped("policies")):
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder)} {_file_digest(path)}\n".encode())
    digest.update(" ".join([platform.python_version(), *map(version, DEPENDS)]).encode())
    return digest.hexdigest()


class Partial:
    """A folder of finished runs, one file each, named by `run_key`. It is removed when everything is done."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @classmethod
    def beside(cls, results: Path) -> Partial:
        """The folder `.NAME.partial` beside the results folder NAME."""
        return cls(results.with_name(f".{results.name}.partial"))

    def check(self) -> None:
        """Raises InputError where the folder, and so the results beside it, cannot be made: now, not after hours."""
        there = self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not there:
                self.folder.rmdir()
        except OSError as error:
            raise InputError(Problem(str(self.folder.parent), f"cannot be written ({error.strerror})")) from error

    def get(self, key: str) -> RunResult | None:
        """The result of an earlier run, or None."""
        try:
            with open(self.folder / f"{key}.npz", "rb") as file, np.load(file, allow_pickle=False) as data:
                return _from_arrays({name: data[name] for name in data.files})
        except (OSError, ValueError, KeyError, BadZipFile):  # absent, cut short, or of another version
            return None

    def put(self, key: str, result: RunResult) -> None:
        with write_aside(self.folder / f"{key}.npz") as aside, aside.open("wb") as file:
            np.savez(file, **_to_arrays(result))

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _to_arrays(result: RunResult) -> dict[str, Any]:
    words = json.dumps({"counters": result.counters, "labels": result.labels, "found": result.found})
    arrays = {"words": np.array(words)}
    for table in TABLES:
        for name, column in (getattr(result, table, None) or {}).items():
            values = np.asarray(column)
            arrays[f"{table}.{name}"] = values.astype(str) if values.dtype == object else values
    return arrays


def _from_arrays(arrays: dict[str, Any]) -> RunResult:
    from moesim.sim import RunResult

    tables: dict[str, dict[str, Any]] = {}
    for name, values in arrays.items():
        table, _, column = name.partition(".")
        if column:
            tables.setdefault(table, {})[column] = values
    return RunResult(**json.loads(str(arrays["words"])), **{"steps": {}, "requests": {}} | tables)
