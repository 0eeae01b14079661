"""The figures of an experiment, drawn from configurations that share all but memory, scope and cache policy.

Each function gives a matplotlib Figure, or None where the configurations have nothing to show on its axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis import compare, drawing, palette
from moesim.analysis.configurations import UNLIMITED, Configuration, grouped, judged_by, ranked, sizes_of, time_words
from moesim.analysis.gap import MEASURES, against_baseline
from moesim.analysis.metrics import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSES, TIME = MEASURES["misses"], MEASURES["time"]
LETTER, LEGEND = 0.078, 1.8  # inches of a letter of a name, and of the legend
MOST_SIZES = 6  # that have bars beside each other
SCOPES = {"layer": "one cache per layer", "global": "one cache for all layers"}
BOUNDS = {
    "bound_transfer_ns_per_output_token": ("transfer bound (MIN)", (0, (4, 1, 1, 1))),
    "bound_resident_ns_per_output_token": ("all experts resident", (0, (1, 1))),
}


def farthest(configurations: Iterable[Configuration]) -> list[Configuration]:
    """Of each family, scope and memory the configuration that looks farthest ahead, in the order of the file."""
    found: dict[tuple[Any, ...], Configuration] = {}
    for c in configurations:
        key = (c.group, c.scope, palette.family(c))
        if key not in found or _reach(c) > _reach(found[key]):
            found[key] = c
    return list(found.values())


def against_slots(configurations: Sequence[Configuration], title: str) -> Figure | None:
    """Against the cache's memory: misses and time per output token, and the time's paired difference from the baseline.

    A column of panels per scope, or a row of three panels where there is one scope only.
    """
    shown = farthest(configurations)
    scopes, (sizes, unit) = scopes_of(shown), sizes_of(shown)
    if len(set(sizes.values())) < 2:
        return None
    shape = (3, len(scopes)) if len(scopes) > 1 else (1, 3)
    figure, panels = drawing.panels_of(*shape, (4.4, 2.9), sharex="all")
    panels = panels.reshape(3, len(scopes))
    groups = list(grouped(configurations).values())
    differences = {c: against_baseline(c, g, judged_by(g)).scaled(100) for g in groups for c in g}
    time = judged_by(shown)
    for column, scope in enumerate(scopes):
        here = [c for c in shown if c.scope == scope]
        scales = ((MISSES, 1.0), (time, 1e-6))
        misses, times = ({c: compare.mean(c.values(m) * scale) for c in here} for m, scale in scales)
        drawing.lines(panels[0, column], shown, {c: sizes[c] for c in here}, misses)
        drawing.lines(panels[1, column], shown, {c: sizes[c] for c in here}, times)
        drawing.lines(panels[2, column], shown, _beside_each_other(shown, sizes, here), differences)
        for measure, (name, dashes) in BOUNDS.items():
            drawing.bound(panels[1, column], {sizes[c]: c.mean(measure) / 1e6 for c in here}, name, dashes)
        panels[2, column].axhline(0, color="#444444", linewidth=0.8)
        drawing.cut(panels[2, column], [0, *(differences[c].value for c in here)])
        panels[0, column].set_title(SCOPES.get(scope, scope), fontsize=10)
    for row in (panels[0], panels[1]):
        top = max(panel.get_ylim()[1] for panel in row)
        for panel in row:
            panel.set_ylim(0, top)
    _label_sizes(panels, sizes, unit)
    panels[1, 0].set_ylabel(time_words([shown]))
    panels[2, 0].set_ylabel("time against the\nbest history policy (%)")
    below = "misses and time against cache size; last, time against the best history policy: below 0 is faster"
    return drawing.finish(figure, panels, (title, below), configurations)


def where_time_goes(configurations: Sequence[Configuration], title: str) -> Figure | None:
    """The parts of a step's time per policy as stacked bars, a column of panels per memory size."""
    shown = ranked(farthest(configurations))
    parts = [part for part in (*PARTS, "kv_stall", "idle") if any(np.nansum(c.values(f"{part}_ns")) > 0 for c in shown)]
    if not parts:
        return None
    sizes, unit = sizes_of(shown)
    everything = sorted(set(sizes.values()))
    columns = _some(everything)
    names = list(dict.fromkeys(_bar_name(c) for scope in scopes_of(shown) for c in shown if c.scope == scope))
    room = LETTER * max(map(len, names)) + LEGEND
    figure, panels = drawing.panels_of(1, len(columns), (2.2, 0.6 + 0.24 * len(names)), room, sharey="all")
    for panel, size in zip(panels[0], columns, strict=True):
        here = [c for c in shown if sizes[c] == size]
        _draw_bars(panel, {names.index(_bar_name(c)): c for c in here}, parts)
        resident = np.mean([c.values("bound_resident_ns") / c.values("steps") for c in here]) / 1e6
        if resident_line := resident > 0:
            panel.axvline(resident, color="#000000", linestyle=":", linewidth=1.2, label="all experts resident")
        panel.set_title(f"{size:.3g} {unit}", fontsize=10)
        panel.set_xlabel("ms per step" + " (own scale)" * (len(columns) > 1))
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].set_ylim(len(names) - 0.4, -0.6)
    line = "; right of the dotted line: what missing experts cost" if resident_line else ""
    some = f", {len(columns)} of {len(everything)} sizes" if len(columns) < len(everything) else ""
    return drawing.finish(figure, panels, (title, f"where a step's time goes{some}{line}"), configurations, bars="")


def _some(sizes: Sequence[float]) -> list[float]:
    """At most MOST_SIZES of them, evenly chosen with the first and the last."""
    most = min(len(sizes), MOST_SIZES)
    return [sizes[round(place)] for place in np.linspace(0, len(sizes) - 1, most)]


def _draw_bars(panel: Axes, rows: dict[int, Configuration], parts: Sequence[str]) -> None:
    left = np.zeros(len(rows))
    for part in parts:
        widths = np.array([_part_ms(c, part) for c in rows.values()])
        panel.barh(
            list(rows), widths, left=left, color=palette.PART_COLOURS[part], label=palette.PART_NAMES[part], height=0.75
        )
        left += widths
    panel.set_axisbelow(True)
    panel.grid(axis="y", visible=False)


def _reach(c: Configuration) -> float:
    return -1.0 if math.isnan(c.horizon) else c.horizon


def scopes_of(configurations: Iterable[Configuration]) -> list[str]:
    return sorted({c.scope for c in configurations}, key=lambda scope: (scope != "layer", scope))


def _beside_each_other(
    everyone: Sequence[Configuration], sizes: dict[Configuration, float], here: Sequence[Configuration]
) -> dict[Configuration, float]:
    """Places on the axis of sizes at which the intervals of different lines do not cover each other."""
    step = 0.06 * float(np.diff(sorted(set(sizes.values()))).min())
    lines = list(palette.families(everyone))
    return {c: sizes[c] + step * (lines.index(palette.family(c)) - (len(lines) - 1) / 2) for c in here}


def _label_sizes(panels: np.ndarray, sizes: dict[Configuration, float], unit: str) -> None:
    places = sorted(set(sizes.values()))
    for panel in panels.flat:
        panel.set_xticks(places, [f"{size:.3g}" for size in places])
    for panel in panels[-1] if panels.shape[1] > 1 else panels.flat:
        panel.set_xlabel(f"cache size ({unit})")
    panels[0, 0].set_ylabel("misses per output token\n(expert keys)")


def _bar_name(c: Configuration) -> str:
    return f"{c.policy.replace(UNLIMITED, '∞')}, {c.scope}"


def _part_ms(c: Configuration, part: str) -> float:
    return float(np.mean(c.values(f"{part}_ns") / c.values("steps"))) / 1e6
