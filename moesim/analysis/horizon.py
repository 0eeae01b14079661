"""The figure of how far ahead a policy must look: gap captured against its horizon."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from moesim.analysis import drawing, palette
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import Configuration, grouped, sizes_of
from moesim.analysis.figures import SCOPES, scopes_of
from moesim.analysis.gap import MEASURES, column_of, gap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DEEP = -300  # percent of the gap
BELOW = "gap captured against how far ahead a policy looks: 0 % best history policy, 100 % best oracle, in either scope"


def against_horizon(configurations: Sequence[Configuration], title: str) -> Figure | None:
    """Gap captured in misses and in time against the horizon in layer events, for each scope and memory size.

    Two rows of panels for the measures. Beside each other stand the scopes where the memory has one size, else the
    sizes, each scope having two rows of its own. All panels have one scale, so that scopes compare.
    """
    gaps = _gaps(configurations)
    shown = list(gaps)
    if len({c.horizon for c in shown}) < 2:
        return None
    sizes, unit = sizes_of(shown)
    places, columns, scopes = _horizon_places(shown), sorted(set(sizes.values())), scopes_of(shown)
    spread = len(columns) > 1
    shape = (2 * len(scopes), len(columns)) if spread else (2, len(scopes))
    figure, panels = drawing.panels_of(*shape, (3.1, 2.6), 1.9, sharex="all", sharey="all")
    for place, scope in enumerate(scopes):
        for column, size in enumerate(columns):
            here = _at_horizons(shown, places, [c for c in shown if c.scope == scope and sizes[c] == size])
            pair = panels[2 * place : 2 * place + 2, column] if spread else panels[:, place]
            for panel, measure in zip(pair, MEASURES, strict=True):
                drawing.lines(panel, shown, here, {c: captured[measure] for c, captured in gaps.items()})
                panel.set_ylabel(f"gap captured\nin {measure} (%)" if panel in panels[:, 0] else "")
                _frame(panel, places, shown[0])
            pair[0].set_title(f"{SCOPES.get(scope, scope)}, {size:.3g} {unit}", fontsize=9)
    for panel in panels[-1]:
        panel.set_xlabel("horizon (layer events)")
    _scale(panels, [captured[measure].value for captured in gaps.values() for measure in MEASURES])
    return drawing.finish(figure, panels, (title, BELOW), configurations)


def _gaps(configurations: Sequence[Configuration]) -> dict[Configuration, dict[str, Interval]]:
    """Gap captured in percent, in each measure, of the configurations that have a horizon and a gap."""
    found = {}
    for group in grouped(configurations).values():
        for c in group:
            if not math.isnan(c.horizon):
                captured = {m: gap(c, group, column_of(m, group)).scaled(100) for m in MEASURES}
                if any(not math.isnan(interval.value) for interval in captured.values()):
                    found[c] = captured
    return found


def _horizon_places(configurations: Iterable[Configuration]) -> dict[float, float]:
    """Where each horizon stands on the logarithmic axis: 0 a step before the least, unlimited a step after the most."""
    found = sorted({c.horizon for c in configurations})
    finite = [h for h in found if 0 < h < math.inf] or [1.0]
    return {h: finite[0] / 2.5 if h == 0 else finite[-1] * 2.5 if h == math.inf else h for h in found}


def _at_horizons(
    everyone: Sequence[Configuration], places: dict[float, float], here: Sequence[Configuration]
) -> dict[Configuration, float]:
    """Places at which the intervals of different lines do not cover each other."""
    lines = list(palette.families(everyone))
    shifts = {line: 1 + 0.05 * (number - (len(lines) - 1) / 2) for number, line in enumerate(lines)}
    return {c: places[c.horizon] * shifts[palette.family(c)] for c in here}


def _frame(panel: Axes, place: dict[float, float], example: Configuration) -> None:
    panel.set_xscale("log")
    panel.set_xticks(list(place.values()), ["∞" if h == math.inf else f"{h:g}" for h in place])
    panel.minorticks_off()
    for level in (0, 100):
        panel.axhline(level, color="#444444", linewidth=0.8)
    layers = float(np.mean(example.values("layer_events") / example.values("steps")))
    if min(place.values()) <= layers <= max(place.values()):
        panel.axvline(layers, color="#444444", linewidth=0.8, linestyle=":", label=f"one step ({layers:.0f} layers)")


def _scale(panels: np.ndarray, values: Sequence[float]) -> None:
    """One scale for all, logarithmic below -100 % where a value is so low that it would leave the others no room."""
    drawing.cut(panels[0, 0], [0, 100, *values])
    least = min(value for value in values if not math.isnan(value))
    if least < DEEP:
        for panel in panels.flat:
            bend(panel, least)


def bend(panel: Axes, least: float) -> None:
    """Make the axis logarithmic below -100 %."""
    panel.set_yscale("symlog", linthresh=100, linscale=2)
    panel.set_ylim(least * 1.5, 125)
    ticks = [tick for tick in (-10000, -3000, -1000, -300, -100, -50, 0, 50, 100) if tick >= least * 1.5]
    panel.set_yticks(ticks, [f"{tick}" for tick in ticks], minor=False)
    panel.set_yticks([], minor=True)
    panel.axhline(-100, color="#444444", linewidth=0.6, linestyle=(0, (1, 3)), label="logarithmic below -100 %")
