"""The blocks of docs/python.md run from top to bottom, and its names are those of the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib import pyplot

import moesim
from moesim.files import shipped

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "traces").symlink_to(shipped("traces"))
    monkeypatch.chdir(tmp_path)
    pyplot.switch_backend("agg")
    names: dict[str, Any] = {}
    assert len(blocks()) >= 7
    for number, block in enumerate(blocks(), 1):
        exec(compile(block, f"{PAGE.name}, block {number}", "exec"), names)
    pyplot.close("all")
    printed = capsys.readouterr().out
    assert "did you mean 'lru'?" in printed and "memory.slots" in printed
    assert len(names["results"].runs) == 2 * 3 * 3 and len(names["some"].runs) == 2 * 3
    assert len(names["comparison"]) == 6 and set(names["larger"].runs["experts_per_layer"]) == {6.0}


def test_it_names_what_is_public() -> None:
    page = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"moesim\.(\w+)[(`]", page)) | {"Results", "Comparison", "Curves"}
    assert named == set(moesim.__all__) - {"__version__"}
    from moesim.analysis.axes import Plots

    methods = set(re.findall(r"plot\.(\w+)\(", page))
    assert methods == {name for name in vars(Plots) if not name.startswith("_")}
