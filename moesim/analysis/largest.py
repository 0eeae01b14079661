"""The figure of a search: the largest load that each policy takes, and its paired difference from the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moesim.analysis import compare, drawing
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import Configuration
from moesim.analysis.gap import paired
from moesim.analysis.searched import LARGEST, not_found, promise
from moesim.analysis.sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LETTER = 0.085  # inches of a letter of a name
ROW = 0.3


def largest_load(sweep: Sweep, title: str) -> Figure | None:
    """A row for each line: the largest load that meets the objective, and its paired difference from the first row.

    Where a search of a replication ended at its least or largest load, the row says how many and on which side.
    """
    rows = [(name, c) for name, line in sweep.lines.items() for c in line]
    values = {c: compare.mean(c.values(sweep.axis)) for _, c in rows}
    if all(math.isnan(interval.value) for interval in values.values()):
        return None
    several = len(rows) > 1
    names = LETTER * max(len(name) for name, _ in rows)
    size = (3.9, 0.5 + ROW * len(rows))
    figure, panels = drawing.panels_of(1, 1 + several, size, names, sharey="all")
    left = panels[0, 0]
    left.set_yticks(range(len(rows)), [name for name, _ in rows])
    left.set_ylim(len(rows) - 0.5, -0.5)
    left.set_xlabel(LARGEST[sweep.axis])
    _points(left, sweep, [values[c] for _, c in rows])
    for place, (_, c) in enumerate(rows):
        if words := not_found(c, sweep.axis):
            left.annotate(words, (0.02, place), xycoords=("axes fraction", "data"), fontsize=8, color="#444444",
                          verticalalignment="center")  # fmt: skip
    if several:
        _differences(panels[0, 1], sweep, [c for _, c in rows])
    below = f"largest load at which {promise(rows[0][1])}"
    return drawing.finish(figure, panels, (title, below), sweep.configurations, bars=", with 95 % intervals")


def _points(panel: Axes, sweep: Sweep, found: Sequence[Interval]) -> None:
    for place, (interval, style) in enumerate(zip(found, sweep.styles.values(), strict=True)):
        if not math.isnan(interval.value):
            ends = [[interval.value - interval.low], [interval.high - interval.value]] if interval.bounded else None
            panel.errorbar([interval.value], [place], xerr=ends, linewidth=1.2, capsize=2, **style)


def _differences(panel: Axes, sweep: Sweep, rows: Sequence[Configuration]) -> None:
    first = rows[0]
    found = []
    for c in rows:
        ours, theirs = paired((c, first), sweep.axis)
        found.append(compare.ratio(ours - theirs, theirs).scaled(100) if c is not first else compare.NOTHING)
    panel.axvline(0, color="#444444", linewidth=0.8)
    _points(panel, sweep, found)
    panel.set_xlabel(f"paired difference from {next(iter(sweep.lines))} (%)")
