"""Stages of a long job kept in a folder: a stage that was finished before is read, not done again."""

from __future__ import annotations

import json
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from moesim.errors import InputError, Problem
from moesim.files import write_aside

Arrays = dict[str, np.ndarray]
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class Kept(Arrays):
    """Arrays of a file; to ask for one that is not in it raises InputError."""

    def __init__(self, path: Path, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._path = path

    def __missing__(self, key: str) -> np.ndarray:
        raise InputError(Problem(str(self._path), f"holds no {key}; remove it, and it will be made again"))


class Stages:
    """A work folder for one configuration. Raises InputError where it holds the stages of another, or damaged ones."""

    def __init__(self, folder: Path, identity: Mapping[str, object], *, quiet: bool = False) -> None:
        self._folder, self._quiet, self._start = folder, quiet, time.monotonic()
        record = folder / "identity.json"
        text = json.dumps(identity, sort_keys=True, indent=1)
        if folder.exists() and not folder.is_dir():
            raise InputError(Problem(str(folder), "is a file; --work needs a folder"))
        if record.exists():
            found = _identity(record)
            if found != json.loads(text):
                differ = sorted(key for key in {*found, *identity} if found.get(key) != json.loads(text).get(key))
                raise InputError(
                    Problem(
                        str(folder),
                        f"holds stages of another job ({', '.join(differ)} differ); give another --work, or remove it",
                    )
                )
        elif any(folder.glob("*.npz")):
            what = f"holds stages, but no {record.name} that says of what; give another --work, or remove it"
            raise InputError(Problem(str(folder), what))
        else:
            try:
                with write_aside(record) as aside:
                    aside.write_text(text, encoding="utf-8")
            except OSError as error:
                what = f"cannot be written ({error.strerror}); give another --work"
                raise InputError(Problem(str(folder), what)) from error

    def get(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of stage `name`: read if they are there, else made and kept."""
        kept = self.read(name)
        if kept is not None:
            return kept
        arrays = make()
        self.keep(name, arrays)
        self.say(f"{name} done")
        return arrays

    def read(self, name: str) -> Arrays | None:
        """The arrays of `name`, or None where there are none yet."""
        path = self._folder / f"{name}.npz"
        return read_arrays(path) if path.exists() else None

    def keep(self, name: str, arrays: Arrays) -> None:
        with write_aside(self._folder / f"{name}.npz") as aside, open(aside, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def drop(self, name: str) -> None:
        (self._folder / f"{name}.npz").unlink(missing_ok=True)

    def say(self, text: str) -> None:
        """One line of progress on standard error, with the seconds since the start."""
        if not self._quiet:
            print(f"{time.monotonic() - self._start:7.1f} s  {text}", file=sys.stderr, flush=True)


def read_arrays(path: Path) -> Arrays:
    """All arrays of an npz file. Raises InputError where it is cut short or damaged."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as kept:
            return Kept(path, {key: kept[key] for key in kept.files})
    except DAMAGED as error:
        text = f"is truncated or damaged ({error}); remove it, and it will be made again"
        raise InputError(Problem(str(path), text)) from error


def _identity(record: Path) -> dict[str, object]:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(Problem(str(record), f"is damaged ({error}); remove the work folder")) from error
    return found if isinstance(found, dict) else {}
