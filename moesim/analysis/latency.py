"""Figures over the load: latency, and how much of what was promised is kept. A line per policy, named where it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis import compare, drawing
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import Configuration
from moesim.analysis.gap import paired
from moesim.analysis.sweep import AXES, Sweep, is_unsteady

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BANDS = ", with 95 % intervals as bands (cut at the frame)"
LETTER = 0.078  # inches of a letter of a line's name
LINE = 0.155  # inches between two names
PANEL = (3.6, 2.9)
GREY = "#444444"
FAR = 100  # % of difference, beyond which a line leaves the frame
STEEP = 8  # of largest to least, from which an axis is logarithmic
OPEN = "hollow: overloaded, latency would grow with the run"
LIMITS = {"ttft": "first token", "tpot": "per token", "e2e": "end to end"}


def against_load(sweep: Sweep, title: str) -> Figure | None:
    """Mean and 95th percentile of the latency against the load, and the mean's paired difference from the first line.

    End-to-end latency where the objective limits that, and normalized latency (per output token) elsewhere.
    """
    limit = _first(sweep, "objective_e2e_s")
    name, what, scale = ("e2e", "end-to-end latency (s)", 1e-9) if limit else NORMALIZED
    shown = {words: _values(sweep, f"{name}_{part}_ns", scale) for part, words in STATISTICS.items()}
    heights = [value for values in shown.values() for value in _settled(values)]
    if not heights:
        return None
    several = len(sweep.lines) > 1
    names = LETTER * max(map(len, sweep.lines)) + 0.5
    figure, panels = drawing.panels_of(1, 2 + several, PANEL, names, sharex="all")
    for panel, (words, values) in zip(panels[0], shown.items(), strict=False):
        _scale(panel, [*heights, limit] if limit else heights)
        _lines(panel, sweep, values, bands=words == "mean")
        panel.set_title(words, fontsize=10)
        panel.set_ylabel(what)
        if limit:
            _guide(panel, limit, f"{_first(sweep, 'objective_share') * 100:.0f} % within {_seconds(limit)}", 3)
    last = shown["95th percentile"]
    if several:
        last = _differences(panels[0, 2], sweep, f"{name}_mean_ns")
    _name_lines(panels[0, -1], sweep, last)
    return _finished(figure, panels, sweep, title, "latency against load")


NORMALIZED = ("normalized", "latency per output token (ms)", 1e-6)
STATISTICS = {"mean": "mean", "p95": "95th percentile"}


def kept_against_load(sweep: Sweep, title: str) -> Figure | None:
    """Share of the requests that kept the objective and each of its limits, and good requests per second."""
    share = _first(sweep, "objective_share")
    if not share:
        return None
    limits = {name: limit for name in LIMITS if (limit := _first(sweep, f"objective_{name}_s"))}
    shown = {"attainment": "requests that kept the objective"}
    if len(limits) > 1:
        shown |= {f"attainment_{n}": f"{LIMITS[n]} within {_seconds(limit)}" for n, limit in limits.items()}
    rows, columns = {1: (1, 2), 3: (2, 2), 4: (2, 3)}[len(shown)]
    figure, panels = drawing.panels_of(rows, columns, (PANEL[0], PANEL[1] if rows == 1 else 2.4), 2.0, sharex="all")
    whole, rate, *others = panels.flat
    for panel, (column, words) in zip((whole, *others), shown.items(), strict=False):
        panel.set_ylim(-3, 103)
        _lines(panel, sweep, _values(sweep, column, 100), within=(0, 100))
        _guide(panel, share * 100, f"objective: {share * 100:.0f} %" if panel is whole else "", -10)
        panel.set_title(words, fontsize=10)
        panel.set_ylabel("requests (%)")
    _lines(rate, sweep, _values(sweep, "goodput_requests_per_s", 1.0), labels=True)
    rate.set_title("goodput", fontsize=10)
    rate.set_ylabel("good requests per second")
    rate.set_ylim(bottom=0)
    for spare in others[len(shown) - 1 :]:
        spare.set_visible(False)
    return _finished(figure, panels, sweep, title, "what is kept of the objective, against load")


def _finished(figure: Figure, panels: np.ndarray, sweep: Sweep, title: str, words: str) -> Figure:
    places = sweep.loads
    even = [np.std(gaps) / np.mean(gaps) for gaps in (np.diff(places), np.diff(np.log(places)))]
    for panel in panels.flat:
        if even[1] < even[0]:
            panel.set_xscale("log")
            room = (places[-1] / places[0]) ** 0.06
            panel.set_xlim(places[0] / room, places[-1] * room)
        else:
            room = 0.06 * (places[-1] - places[0])
            panel.set_xlim(places[0] - room, places[-1] + room)
        if len(places) <= 9:
            panel.set_xticks(places, [f"{place:g}" for place in places])
            panel.minorticks_off() if panel.get_yscale() == "linear" else panel.xaxis.set_minor_locator(_no_ticks())
    for panel in panels[-1]:
        panel.set_xlabel(AXES[sweep.axis])
    hollow = f"; {OPEN}" if any(map(is_unsteady, sweep.configurations)) else ""
    return drawing.finish(figure, panels, (title, words + hollow), sweep.configurations, bars=BANDS)


def _no_ticks() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def _first(sweep: Sweep, column: str) -> float:
    """A value that all have in common, 0 where there is none."""
    value = sweep.configurations[0].mean(column)
    return 0.0 if math.isnan(value) else value


def _seconds(limit: float) -> str:
    return f"{limit:g} s" if limit >= 1 else f"{limit * 1000:g} ms"


def _values(sweep: Sweep, column: str, scale: float) -> dict[Configuration, Interval]:
    return {c: compare.mean(c.values(column) * scale) for c in sweep.configurations}


def _settled(values: dict[Configuration, Interval]) -> list[float]:
    """The values that are steady; all of them where nothing else is there."""
    found = {c: interval.value for c, interval in values.items() if not math.isnan(interval.value)}
    return [value for c, value in found.items() if not is_unsteady(c)] or [*found.values()]


def _lines(
    panel: Axes,
    sweep: Sweep,
    values: dict[Configuration, Interval],
    bands: bool = True,
    within: tuple[float, float] = (-math.inf, math.inf),
    labels: bool = False,
    overloaded: bool = True,
) -> None:
    """Each line with its interval as a band, as far as it is steady; the rest hollow, not connected, in the frame."""
    from matplotlib.transforms import ScaledTranslation

    for place, (name, style) in enumerate(sweep.styles.items()):
        stable, over = ([c for c in sweep.lines[name] if is_unsteady(c) is state] for state in (False, True))
        places, found = [sweep.load(c) for c in stable], [values[c] for c in stable]
        label = name if labels else "_"
        panel.plot(places, [i.value for i in found], linewidth=1.6, gid=name, label=label, **style)
        if bands:
            ends = [(i.low, i.high) if i.bounded else (i.value, i.value) for i in found]
            low, high = np.clip(np.array(ends, dtype=float).reshape(-1, 2), *within).T
            panel.fill_between(places, low, high, color=style["color"], alpha=0.13, linewidth=0)
        hollow = style | {"linestyle": "none", "markerfacecolor": "white", "clip_on": False, "zorder": 4}
        top = panel.get_ylim()[1] if panel.get_autoscaley_on() is False else math.inf
        heights = [min(top, math.inf if math.isnan(values[c].value) else values[c].value) for c in over]
        if over and overloaded:  # a line of no points that is not clipped would have no bounds
            aside = 6 * (place - (len(sweep.lines) - 1) / 2)  # points, so that marks do not cover each other
            moved = panel.transData + ScaledTranslation(aside / 72, 0, panel.figure.dpi_scale_trans)
            loads = [sweep.load(c) for c in over]
            panel.plot(loads, heights, gid=f"{name} overloaded", label="_", transform=moved, **hollow)


def _differences(panel: Axes, sweep: Sweep, column: str) -> dict[Configuration, Interval]:
    """Of each line the paired relative difference from the first, where neither is overloaded."""
    first, *_ = sweep.lines
    base = {sweep.load(c): c for c in sweep.lines[first] if not is_unsteady(c)}
    values = dict.fromkeys(sweep.configurations, compare.NOTHING)
    for c in sweep.configurations:
        if (other := base.get(sweep.load(c))) is not None and not is_unsteady(c):
            ours, theirs = paired((c, other), column)
            values[c] = compare.ratio(ours - theirs, theirs).scaled(100)
    drawing.cut(panel, [0, *(min(interval.value, FAR) for interval in values.values())])
    _lines(panel, sweep, values, overloaded=False)
    panel.set_title(f"mean, against {first}", fontsize=10)
    panel.set_ylabel("paired difference (%)")
    return values


def _guide(panel: Axes, value: float, words: str, above: int) -> None:
    panel.axhline(value, color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
    if words:
        at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        panel.annotate(words, (0, value), xytext=(3, above), fontsize=8, color=GREY, **at)


def _scale(panel: Axes, values: Sequence[float]) -> None:
    """A scale on which what is settled is seen, logarithmic where it spans much."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    least, most = min(values), max(values)
    if most < STEEP * least or least <= 0:
        panel.set_ylim(0, most * 1.12)
        return
    panel.set_yscale("log")
    panel.set_ylim(least / 1.2, most * 1.3)
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _name_lines(panel: Axes, sweep: Sweep, values: dict[Configuration, Interval]) -> None:
    """Names beside the panel, at the heights at which the lines end, moved apart where they would cover each other.

    A line that has no point there is named at the top.
    """
    ends = {name: end for name, line in sweep.lines.items() if (end := _end(panel, sweep, line, values))}
    heights = {name: _height(panel, ends[name]) if name in ends else 1.0 for name in sweep.lines}
    for name, height in _spread(heights, LINE / PANEL[1]).items():
        colour = sweep.styles[name]["color"]
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6, "shrinkA": 1, "shrinkB": 3}
        panel.annotate(
            name,
            ends.get(name, (1.06, height)),
            xycoords="data" if name in ends else "axes fraction",
            xytext=(1.06, height),
            textcoords="axes fraction",
            color=colour,
            fontsize=9,
            verticalalignment="center",
            annotation_clip=False,
            arrowprops=line if name in ends else None,
        )


def _end(
    panel: Axes, sweep: Sweep, line: Sequence[Configuration], values: dict[Configuration, Interval]
) -> tuple[float, float] | None:
    """Where a line ends, at the frame where it has left it."""
    there = [c for c in line if not math.isnan(values[c].value) and not is_unsteady(c)]
    if not there:
        return None
    return sweep.load(there[-1]), float(np.clip(values[there[-1]].value, *panel.get_ylim()))


def _height(panel: Axes, end: tuple[float, float]) -> float:
    """In the axes' fractions, whatever the layout is going to be."""
    _, y = panel.transLimits.transform(panel.transScale.transform(end))
    return float(y)


def _spread(heights: dict[str, float], step: float) -> dict[str, float]:
    """The names in order of height, each at least `step` above the one below it, as near as can be to where it was."""
    order = sorted(heights, key=lambda name: (heights[name], name))
    blocks: list[list[str]] = []
    for name in order:
        blocks.append([name])
        while len(blocks) > 1 and _middle(blocks[-1], heights) - _middle(blocks[-2], heights) < (
            step * (len(blocks[-1]) + len(blocks[-2])) / 2
        ):
            last = blocks.pop()
            blocks[-1] += last
    return {
        name: _middle(block, heights) + step * (place - (len(block) - 1) / 2)
        for block in blocks
        for place, name in enumerate(block)
    }


def _middle(block: Sequence[str], heights: dict[str, float]) -> float:
    return sum(heights[name] for name in block) / len(block)

