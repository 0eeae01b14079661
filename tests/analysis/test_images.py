"""Key figures look as they did when somebody looked at them last (`python -m tests.analysis.images` says: now)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.testing.compare import compare_images

from moesim.analysis import palette
from tests.analysis.images import BASELINES, FIGURES, MATPLOTLIB, draw

TOLERANCE = 1.0
"""root mean square over all pixels and colours, of 255; a line in another colour is above 2"""
pytestmark = pytest.mark.skipif(
    not matplotlib.__version__.startswith(f"{MATPLOTLIB}."),
    reason=f"the baselines are of matplotlib {MATPLOTLIB}, and {matplotlib.__version__} is here",
)


def distance(name: str, folder: Path) -> float:
    """How far a figure is from its baseline; a picture of the difference is left beside it in `folder`."""
    expected = shutil.copy(BASELINES / f"{name}.png", folder / f"{name}-expected.png")
    found: Any = compare_images(str(expected), str(draw(name, folder)), 0.0, in_decorator=True)
    return found["rms"] if found else 0.0


@pytest.mark.parametrize("name", FIGURES)
def test_it_looks_as_before(name: str, tmp_path: Path) -> None:
    off = distance(name, tmp_path)
    assert off <= TOLERANCE, f"look at {tmp_path}, and if that is right: python -m tests.analysis.images"


def test_a_figure_that_changes_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(palette.KNOWN, ("lru", "history", ""), ("#B2182B", "o"))
    assert distance("slots", tmp_path) > 2 * TOLERANCE


def test_every_baseline_is_of_a_figure() -> None:
    assert {path.stem for path in BASELINES.iterdir()} == set(FIGURES)
