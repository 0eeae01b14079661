"""The figure that ranks presets, or batchers: misses and time of each, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis import compare, drawing
from moesim.analysis.configurations import Configuration, baseline, grouped, judged_by, ranked, sizes_of, time_words
from moesim.analysis.figures import LEGEND, LETTER, MISSES
from moesim.analysis.gap import against_baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEVELS: dict[str, dict[str, Any]] = {
    "history": {"color": "#0072B2", "marker": "o"},
    "layer": {"color": "#009E73", "marker": "s"},
    "predicted": {"color": "#E69F00", "marker": "^"},
    "step": {"color": "#CC79A7", "marker": "P"},
    "queue": {"color": "#D55E00", "marker": "D"},
    "oracle": {"color": "#000000", "marker": "*"},
}
RESIDENT = "bound_resident_ns_per_output_token"
BESIDE_TIME = {MISSES: "misses per output token (expert keys)", "unique_experts_per_event": "unique experts a layer"}
"""what stands beside the time: misses, or where there are none how many experts a step has to run"""


def ranking(configurations: Sequence[Configuration], title: str) -> Figure | None:
    """A row per preset or batcher, the fastest first: misses (see `BESIDE_TIME`), time per output token, the time vs B.

    A block of rows per memory size; None where nothing is compared as a whole.
    """
    if not any(c.whole for c in configurations):
        return None
    groups = [ranked(group) for group in grouped(configurations).values()]
    sizes, unit = sizes_of(configurations)
    names = max(len(_name(c)) for c in configurations)
    rows = max(map(len, groups))
    measure = next((name for name in BESIDE_TIME if any(c.mean(name) > 0 for c in configurations)), MISSES)
    figure, panels = drawing.panels_of(len(groups), 3, (2.7, 0.2 * rows + 0.3), LETTER * names + LEGEND)
    for line, group in zip(panels, groups, strict=True):
        time = judged_by(group)
        for level, look in LEVELS.items():
            here = {y: c for y, c in enumerate(group) if c.level == level}
            _dots(line[0], {y: compare.mean(c.values(measure)) for y, c in here.items()}, level, look)
            _dots(line[1], {y: compare.mean(c.values(time) / 1e6) for y, c in here.items()}, level, look)
            _dots(line[2], {y: against_baseline(c, group, time).scaled(100) for y, c in here.items()}, level, look)
        line[0].set_xlabel(BESIDE_TIME[measure])
        _frame(line, group, f"{sizes[group[0]]:.3g} {unit}")
    below = "the fastest first; right of 0: slower than B" + "; ~: lossy" * any(c.lossy for c in configurations)
    return drawing.finish(figure, panels, (title, below), configurations)


def _name(c: Configuration) -> str:
    return f"{'~ ' * c.lossy}{c.policy}, {c.scope}"


def _dots(panel: Axes, found: dict[int, compare.Interval], level: str, look: dict[str, Any]) -> None:
    shown = {y: i for y, i in found.items() if not np.isnan(i.value)}
    if shown:
        limits = np.array([[i.value - i.low, i.high - i.value] if i.bounded else [0, 0] for i in shown.values()]).T
        look = look | {"markersize": 8 if look["marker"] == "*" else 5, "linestyle": "", "elinewidth": 0.8}
        points = [i.value for i in shown.values()]
        panel.errorbar(points, list(shown), xerr=limits, label=f"level {level}", **look)


def _frame(panels: Sequence[Axes], group: Sequence[Configuration], size: str) -> None:
    base, resident = baseline(group, judged_by(group)), group[0].mean(RESIDENT) / 1e6
    names = [_name(c) + (" (B)" if c is base else "") for c in group]
    for number, panel in enumerate(panels):
        panel.set_yticks(range(len(names)), names if number == 0 else [""] * len(names))
        panel.set_ylim(len(names) - 0.4, -0.6)
        if number < 2:
            panel.set_xlim(left=0)
    panels[1].set_xlabel(time_words([group]))
    panels[2].set_xlabel("time against B, the best history policy (%)")
    panels[0].set_title(size, fontsize=9, loc="left")
    panels[2].axvline(0, color="#444444", linewidth=0.8)
    if not np.isnan(resident):
        panels[1].axvline(resident, color="#444444", linewidth=1.0, linestyle=":", label="all experts resident")
