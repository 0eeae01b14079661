"""What a cost table is given beside its measured pieces so that it tells what a running server takes.

Pieces are measured one by one. A server that runs them spends more: on its bookkeeping, and where its threads share an
interpreter or a memory bus. Two numbers stand for that, fitted to live runs: ns of each layer, and of each key that has
to be loaded. They are added to `layer_rest` and to `copy_submit`, and named among the table's constants.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import InputError, Problem
from moesim.files import write_aside
from moesim.hardware.files import CostFile, text_of

LAYER, KEY = "fitted: of each layer", "fitted: of each key that is loaded"


def fit(layers: int, rows: Sequence[tuple[float, float, float]]) -> tuple[int, int]:
    """ns a layer and ns a loaded key that explain what is missing, by least squares of relative errors.

    rows, one a setting: measured ns a step; measured less simulated; keys that were loaded a step. Where they do
    not tell the two apart (a single setting, or none that loads any) all of it is the layers'.
    """
    measured, missing, loaded = np.array(rows, dtype=np.float64).T
    columns = np.stack([np.full(len(rows), float(layers)), loaded]) / measured
    if np.linalg.matrix_rank(columns) < len(columns):
        columns = columns[:1]
    found, *_ = np.linalg.lstsq(columns.T, missing / measured, rcond=None)
    return round(found[0]), round(found[1]) if len(found) > 1 else 0


def unfitted(document: dict[str, Any]) -> dict[str, Any]:
    """The table without what was fitted to it before."""
    return _shifted(document, {name: -value for name, value in _known(document).items()}, [])


def with_fit(document: dict[str, Any], layer: int, key: int, source: str) -> dict[str, Any]:
    """The table with `layer` ns a layer and `key` ns a loaded key in place of what was fitted before; none below 0."""
    base = unfitted(document)
    layer = max(layer, -min(base["components"]["layer_rest"]["ns"]))
    key = max(key, -base["host_ns"]["copy_submit"])
    rows = [{"name": name, "value": ns, "unit": "ns", "source": source} for name, ns in ((LAYER, layer), (KEY, key))]
    return _shifted(base, {LAYER: layer, KEY: key}, rows)


def write_fit(path: Path, layer: int, key: int, source: str) -> tuple[int, int]:
    """Change the table of that path; what it has now, where no time may fall below 0.

    Raises InputError where it is none that was measured over tokens.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    file = CostFile.model_validate(document)
    if file.label != "MEASURED" or list(file.components["layer_rest"].axes) != ["tokens"]:
        raise InputError(Problem(str(path), "only a MEASURED table, with layer_rest over tokens, is fitted"))
    made = with_fit(document, layer, key, source)
    CostFile.model_validate(made)
    with write_aside(path) as aside:
        aside.write_text(text_of(made), encoding="utf-8")
    known = _known(made)
    return known[LAYER], known[KEY]


def _known(document: dict[str, Any]) -> dict[str, int]:
    return {row["name"]: round(row["value"]) for row in document["constants"] if row["name"] in (LAYER, KEY)}


def _shifted(document: dict[str, Any], by: dict[str, int], rows: list[dict[str, Any]]) -> dict[str, Any]:
    rest, host = document["components"]["layer_rest"], document["host_ns"]
    kept = [row for row in document["constants"] if row["name"] not in (LAYER, KEY)]
    moved = {**rest, "ns": [ns + by.get(LAYER, 0) for ns in rest["ns"]]}
    return {
        **document,
        "constants": [*kept, *rows],
        "host_ns": {**host, "copy_submit": host["copy_submit"] + by.get(KEY, 0)},
        "components": {**document["components"], "layer_rest": moved},
    }
