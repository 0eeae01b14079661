"""The figures of docs/timelines.md are there, are up to date, and are all shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sim.timelines.draw import FOLDER, canvas, save
from tests.sim.timelines.scenes import FIGURES
from tests.sim.timelines.timeline import Figure

PAGE = (FOLDER.parents[1] / "timelines.md").read_text(encoding="utf-8")
EVERY = pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.name)
COMMAND = "python -m tests.sim.timelines.draw"


@EVERY
def test_the_figure_is_drawn_from_these_timelines(figure: Figure) -> None:
    drawn = re.search(r"drawn from (\w+)", (FOLDER / f"{figure.name}.svg").read_text(encoding="utf-8"))
    assert drawn and drawn[1] == figure.digest, f"{figure.name}.svg is out of date: run {COMMAND}"


def test_the_page_shows_every_figure_once_and_in_order() -> None:
    shown = re.findall(r"!\[[^\]]+\]\(figures/timelines/(\S+)\.svg\)", PAGE)
    assert shown == [figure.name for figure in FIGURES]
    assert {path.stem for path in FOLDER.glob("*")} == set(shown)
    assert COMMAND in PAGE


@EVERY
def test_the_page_speaks_of_where_each_panel_ends(figure: Figure) -> None:
    text = re.search(rf"timelines/{figure.name}\.svg\)(.*?)(?=\n##|\n!|\Z)", PAGE, re.S)
    assert text
    numbers = set(re.findall(r"\d+", text[1]))
    assert numbers >= {str(panel.steps[-1][1]) for panel in figure.panels}


def test_a_drawing_is_the_same_each_time_and_carries_its_digest(tmp_path: Path) -> None:
    figure = FIGURES[0]
    first, second = (save(figure, tmp_path / name).read_bytes() for name in ("a", "b"))
    assert first == second
    assert figure.digest.encode() in first


@EVERY
def test_panels_stay_small(figure: Figure) -> None:
    width, height = canvas(figure).get_size_inches()
    assert width * 96 < 740 and height / len(figure.panels) * 96 < 240
