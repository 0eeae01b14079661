"""Key figures of made-up results, as small images. `python -m tests.analysis.images` makes the baselines anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from moesim.analysis import figures, horizon, overview, plots, ranking
from moesim.analysis.configurations import Configuration, read
from moesim.analysis.regression import figures as regress
from tests.analysis import factory, test_presets, test_regression_page

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINES = Path(__file__).parent / "baselines"
MATPLOTLIB = "3.11"
"""the release that drew them; others place text and lines a little differently"""
DOTS = 60  # per inch


def waiting() -> list[Configuration]:
    return read(factory.summary(4, ("waiting",), (3, 5)))


def both() -> dict[str, list[Configuration]]:
    found = read(factory.summary(4, slots=(3, 5)))
    return {case: [c for c in found if c.case == case] for case in ("waiting", "fresh")}


FIGURES: dict[str, Callable[[], Figure | None]] = {
    "cases": lambda: overview.across_sets(both()),
    "slots": lambda: figures.against_slots(waiting(), "waiting"),
    "horizon": lambda: horizon.against_horizon(waiting(), "waiting"),
    "time": lambda: figures.where_time_goes(waiting(), "waiting"),
    "ranking": lambda: ranking.ranking(read(test_presets.frame()), "presets"),
    "regress": lambda: regress.overview(test_regression_page.many(8, 3)),
}


def draw(name: str, folder: Path) -> Path:
    """Draw a figure into a folder."""
    import matplotlib

    path = folder / f"{name}.png"
    with matplotlib.rc_context(plots.STYLE):
        figure = FIGURES[name]()
        assert figure is not None
        figure.savefig(path, dpi=DOTS, metadata={"Software": None})
    return path


if __name__ == "__main__":
    for each in FIGURES:
        print(draw(each, BASELINES))
