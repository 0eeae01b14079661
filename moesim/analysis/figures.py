"""The figures of an experiment, drawn from configurations that share all but memory, scope and cache policy.

Each function gives a matplotlib Figure, or None where the configurations have nothing to show on its axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis import compare, drawing, palette
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import UNLIMITED, Configuration, best, grouped
from moesim.analysis.gap import MEASURES, against_baseline, gap
from moesim.analysis.metrics import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSES, TIME = MEASURES["misses"], MEASURES["time"]
SCALES = {MISSES: 1.0, TIME: 1e-6}
DEEP = -300  # percent of the gap
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
    scopes, (sizes, unit) = _scopes(shown), drawing.sizes_of(shown)
    if len(set(sizes.values())) < 2:
        return None
    shape = (3, len(scopes)) if len(scopes) > 1 else (1, 3)
    figure, panels = drawing.panels_of(*shape, (4.4, 2.9), sharex="all")
    panels = panels.reshape(3, len(scopes))
    differences = {c: against_baseline(c, g, TIME).scaled(100) for g in grouped(configurations).values() for c in g}
    for column, scope in enumerate(scopes):
        here = [c for c in shown if c.scope == scope]
        misses, times = ({c: compare.mean(c.values(m) * scale) for c in here} for m, scale in SCALES.items())
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
    panels[2, 0].set_ylabel("time against the\nbest history policy (%)")
    return drawing.finish(figure, panels, f"{title}\nmisses and time against cache size", configurations)


def across_sets(sets: dict[str, list[Configuration]]) -> Figure | None:
    """Misses and time per output token of each case's best policy and best oracle against the cache's memory.

    It shows what is at stake in a cache beside what a case has that another has not, such as a larger batch.
    """
    everyone = [c for members in sets.values() for c in members]
    sizes, unit = drawing.sizes_of(everyone)
    if len(set(sizes.values())) < 2:
        return None
    figure, panels = drawing.panels_of(1, 2, (4.4, 3.3), sharex="all")
    for (name, members), colour in zip(sets.items(), cycle(palette.COLOURS)):
        columns = [[c for c in members if sizes[c] == size] for size in sorted({sizes[c] for c in members})]
        for oracle, dashes, word in ((False, "-", "best policy"), (True, "--", "best oracle")):
            for panel, (measure, scale) in zip(panels.flat, SCALES.items(), strict=True):
                ranked = [best([c for c in column if (c.level == "oracle") is oracle], measure) for column in columns]
                points = [c for c in ranked if c is not None]
                found = [compare.mean(c.values(measure) * scale) for c in points]
                style = {"color": colour, "linestyle": dashes, "marker": "*" if oracle else "o"}
                drawing.intervals(panel, [sizes[c] for c in points], found, label=f"{name}: {word}", **style)
    _label_sizes(panels.T, sizes, unit)
    for panel in panels.flat:
        panel.set_ylim(bottom=0)
    return drawing.finish(
        figure, panels, "the cases beside each other: the best policy and the best oracle of each", everyone
    )


def against_horizon(configurations: Sequence[Configuration], title: str, scope: str) -> Figure | None:
    """Gap captured in misses and in time against the horizon in layer events, a column of panels per memory size."""
    gaps = _gaps(configurations, scope)
    shown = list(gaps)
    if len({c.horizon for c in shown}) < 2:
        return None
    (sizes, unit), places = drawing.sizes_of(shown), _horizon_places(shown)
    columns = sorted(set(sizes.values()))
    figure, panels = drawing.panels_of(2, len(columns), (3.1, 3.0), sharex="all", sharey="row")
    for column, size in enumerate(columns):
        here = _at_horizons(shown, places, [c for c in shown if sizes[c] == size])
        for row, measure in enumerate(MEASURES):
            drawing.lines(panels[row, column], shown, here, {c: captured[measure] for c, captured in gaps.items()})
            _gap_frame(panels[row, column], places, shown[0])
        panels[0, column].set_title(f"cache: {size:.3g} {unit}", fontsize=10)
        panels[1, column].set_xlabel("horizon (layer events)")
    for row, measure in enumerate(MEASURES):
        panels[row, 0].set_ylabel(f"gap captured in {measure} (%)")
        values = [0, 100, *(captured[measure].value for captured in gaps.values())]
        drawing.cut(panels[row, 0], values)
        if min(values) < DEEP:
            _bend(panels[row], min(values))
    below = "gap captured against horizon: 0 % best history policy, 100 % oracle"
    return drawing.finish(figure, panels, f"{title} · {SCOPES.get(scope, scope)}\n{below}", configurations)


def _gaps(configurations: Sequence[Configuration], scope: str) -> dict[Configuration, dict[str, Interval]]:
    """Gap captured in percent, in each measure, of the configurations that have a horizon and a gap."""
    found = {}
    for group in grouped(configurations).values():
        for c in group:
            if c.scope == scope and not math.isnan(c.horizon):
                captured = {measure: gap(c, group, column).scaled(100) for measure, column in MEASURES.items()}
                if any(not math.isnan(interval.value) for interval in captured.values()):
                    found[c] = captured
    return found


def where_time_goes(configurations: Sequence[Configuration], title: str) -> Figure | None:
    """The parts of a step's time per policy as stacked bars, a column of panels per memory size."""
    shown = farthest(configurations)
    parts = [part for part in (*PARTS, "idle") if any(np.nansum(c.values(f"{part}_ns")) > 0 for c in shown)]
    if not parts:
        return None
    sizes, unit = drawing.sizes_of(shown)
    columns = sorted(set(sizes.values()))
    names = list(dict.fromkeys(_bar_name(c) for scope in _scopes(shown) for c in shown if c.scope == scope))
    figure, panels = drawing.panels_of(1, len(columns), (3.1, 0.9 + 0.24 * len(names)), sharey="all")
    for panel, size in zip(panels[0], columns, strict=True):
        here = [c for c in shown if sizes[c] == size]
        _draw_bars(panel, {names.index(_bar_name(c)): c for c in here}, parts)
        resident = np.mean([c.values("bound_resident_ns") / c.values("steps") for c in here]) / 1e6
        if resident > 0:
            panel.axvline(resident, color="#000000", linestyle=":", linewidth=1.2, label="all experts resident")
        panel.set_title(f"cache: {size:.3g} {unit}", fontsize=10)
        panel.set_xlabel("ms per step")
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].set_ylim(len(names) - 0.4, -0.6)
    heading = f"{title}\nwhere a step's time goes (each panel has its own scale)"
    return drawing.finish(figure, panels, heading, configurations, bars="")


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


def _scopes(configurations: Iterable[Configuration]) -> list[str]:
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
    panels[1, 0].set_ylabel("time per output token (ms)")


def _bar_name(c: Configuration) -> str:
    return f"{c.policy.replace(UNLIMITED, '∞')}, {c.scope}"


def _part_ms(c: Configuration, part: str) -> float:
    return float(np.mean(c.values(f"{part}_ns") / c.values("steps"))) / 1e6


def _horizon_places(configurations: Iterable[Configuration]) -> dict[float, float]:
    """Where each horizon stands on the logarithmic axis: 0 a step before the least, unlimited a step after the most."""
    found = sorted({c.horizon for c in configurations})
    finite = [h for h in found if 0 < h < math.inf] or [1.0]
    return {h: finite[0] / 2.5 if h == 0 else finite[-1] * 2.5 if h == math.inf else h for h in found}


def _bend(panels: Iterable[Axes], least: float) -> None:
    """Make an axis of percents logarithmic below -100, so that what is far below leaves room for what is near."""
    for panel in panels:
        panel.set_yscale("symlog", linthresh=100, linscale=2)
        panel.set_ylim(least * 1.5, 125)
        ticks = [tick for tick in (-10000, -3000, -1000, -300, -100, -50, 0, 50, 100) if tick >= least * 1.5]
        panel.set_yticks(ticks, [f"{tick}" for tick in ticks], minor=False)
        panel.set_yticks([], minor=True)
        panel.axhline(-100, color="#444444", linewidth=0.6, linestyle=(0, (1, 3)), label="logarithmic below -100 %")


def _at_horizons(
    everyone: Sequence[Configuration], places: dict[float, float], here: Sequence[Configuration]
) -> dict[Configuration, float]:
    lines = list(palette.families(everyone))
    shifts = {line: 1 + 0.03 * (number - (len(lines) - 1) / 2) for number, line in enumerate(lines)}
    return {c: places[c.horizon] * shifts[palette.family(c)] for c in here}


def _gap_frame(panel: Axes, place: dict[float, float], example: Configuration) -> None:
    panel.set_xscale("log")
    panel.set_xticks(list(place.values()), ["∞" if h == math.inf else f"{h:g}" for h in place])
    panel.minorticks_off()
    for level in (0, 100):
        panel.axhline(level, color="#444444", linewidth=0.8)
    layers = float(np.mean(example.values("layer_events") / example.values("steps")))
    if min(place.values()) <= layers <= max(place.values()):
        panel.axvline(layers, color="#444444", linewidth=0.8, linestyle=":", label=f"one step ({layers:.0f} layers)")
