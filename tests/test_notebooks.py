"""Each notebook runs from top to bottom, and its .ipynb is what its source gives, with nothing of a machine in it.

`python -m tests.notebooks` executes them again and saves them.
"""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from tests import notebooks

NAMES = ("lookahead", "trace-anatomy", "validate", "write-a-policy")
MOST_BYTES = 700_000
PATH = r"(?<![\w.])/(?:home|root|tmp|opt|work|Users|usr|var|private|mnt)/|[A-Z]:\\\\"
DATE = r"\b20\d\d-\d\d-\d\d\b"


def committed(name: str) -> Any:
    return json.loads((notebooks.FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def test_there_are_these_and_each_has_its_source() -> None:
    assert [path.stem for path in notebooks.sources()] == sorted(NAMES)
    assert sorted(path.stem for path in notebooks.FOLDER.glob("*.ipynb")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_its_figures_and_is_not_large(name: str) -> None:
    notebook = committed(name)
    assert notebooks.pictures(notebook) >= 2
    assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size < MOST_BYTES
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell["outputs"] if o["output_type"] == "error" or o.get("name") == "stderr"]


@pytest.mark.parametrize("name", NAMES)
def test_text_says_what_to_see_before_each_figure(name: str) -> None:
    notebook = committed(name)
    with_picture = {number for number, kind, _ in notebooks.texts(notebook) if kind == "image/png"}
    told = [n for n, cell in enumerate(notebook["cells"]) if "**What to see" in "".join(cell["source"])]
    for number in with_picture:
        before = [n for n in told if n < number]
        assert before, f"cell {number} has a figure that nothing introduces"
        assert not [n for n in with_picture if before[-1] < n < number], f"cell {number}: a figure without its text"


@pytest.mark.parametrize("name", NAMES)
def test_outputs_hold_nothing_of_the_machine(name: str) -> None:
    shown = [text for _, _, text in notebooks.texts(committed(name))]
    assert not [found for text in shown for found in re.findall(f"{PATH}|{DATE}", text)]
    host = socket.gethostname()
    assert not [text for text in shown if len(host) > 4 and host in text]


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_and_is_what_was_committed(name: str, tmp_path: Path) -> None:
    for package in ("nbclient", "nbformat", "jupytext", "ipykernel"):
        pytest.importorskip(package, reason=f"{package} is not installed (the extra `notebooks`)")
    found, kept = notebooks.execute(notebooks.FOLDER / f"{name}.py", tmp_path), committed(name)
    assert notebooks.cells(found) == notebooks.cells(kept), f"run `python -m tests.notebooks {name}`"
    assert list(notebooks.texts(found)) == list(notebooks.texts(kept)), f"run `python -m tests.notebooks {name}`"
