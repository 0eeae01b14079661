"""Stages of a long job kept in a folder: a stage that was finished before is read, not done again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from moesim.errors import InputError, Problem
from moesim.files import write_aside

Arrays = dict[str, np.ndarray]


class Stages:
    """A work folder for one configuration. Raises InputError where it holds the stages of another."""

    def __init__(self, folder: Path, identity: Mapping[str, object], *, quiet: bool = False) -> None:
        self._folder, self._quiet, self._start = folder, quiet, time.monotonic()
        record = folder / "identity.json"
        text = json.dumps(identity, sort_keys=True, indent=1)
        if record.exists() and record.read_text(encoding="utf-8") != text:
            raise InputError(Problem(str(folder), "holds stages of other settings; give another --work, or remove it"))
        if not record.exists():
            with write_aside(record) as aside:
                aside.write_text(text, encoding="utf-8")

    def get(self, name: str, make: Callable[[], Arrays]) -> Arrays:
        """The arrays of stage `name`: read if they are there, else made and kept."""
        path = self._folder / f"{name}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as kept:
                return {key: kept[key] for key in kept.files}
        arrays = make()
        with write_aside(path) as aside, open(aside, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        self.say(f"{name} done")
        return arrays

    def say(self, text: str) -> None:
        """One line of progress on standard error, with the seconds since the start."""
        if not self._quiet:
            print(f"{time.monotonic() - self._start:7.1f} s  {text}", file=sys.stderr, flush=True)
