"""Plots of results on one matplotlib axes each, for notebooks: `results.plot.policies()` and the like.

Every method takes `ax`, an axes to draw on, makes a figure where it is not given, and returns the axes. Whole figures,
with several panels and notes below, are those of `Results.figures()`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis import compare, drawing, palette
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import (
    CASE,
    LATENCY,
    Configuration,
    baseline,
    grouped,
    is_estimated,
    judged_by,
    oracle_is_no_bound,
)
from moesim.analysis.contrast import Comparison, said
from moesim.analysis.figures import BOUNDS
from moesim.analysis.frames import GB, HORIZON, SIZE, labels, measures, requests, telling
from moesim.analysis.gap import MEASURES, against_baseline, column_of, gap
from moesim.analysis.horizon import DEEP, bend
from moesim.analysis.layout import DOT
from moesim.analysis.metrics import PARTS
from moesim.analysis.sweep import AXES as LOADS
from moesim.analysis.units import TIME, Measure
from moesim.errors import InputError, Problem, unknown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "#444444"
WIDTH, ROW = 6.4, 0.27  # inches of a figure, and of a row of it
AXIS_NAMES = {SIZE: "cache size (experts a layer)", GB: "cache size (GB)", HORIZON: "horizon (layer events)", **LOADS}
ALL = "all experts resident"
RESIDENT, TRANSFER = "bound_resident_ns_per_output_token", "bound_transfer_ns_per_output_token"
Values = dict[Configuration, Interval]
Looks = dict[Configuration, dict[str, Any]]


class Plots:
    """The plots of some results; called, it draws a metric against what varies: memory, horizon, load, or policies."""

    def __init__(self, results: Any) -> None:
        self.results = results

    def __call__(self, metric: str = TIME, ax: Axes | None = None) -> Axes:
        """Lines against the cache's size where it varies, a row per policy elsewhere."""
        sizes = {labels(c)[SIZE] for c in self._shown}
        return self.against(SIZE, metric, ax) if len(sizes) > 1 else self.policies(metric, ax)

    @property
    def _shown(self) -> list[Configuration]:
        return list(self.results.shown_configurations())

    @property
    def _groups(self) -> dict[Any, list[Configuration]]:
        return grouped(self.results.configurations)

    def policies(self, metric: str = TIME, ax: Axes | None = None) -> Axes:
        """A row per configuration, the lowest first: its mean and 95 % interval; bounds as lines where they are one.

        metric: as of `moesim.compare`. A star is an oracle, which is not to be deployed.
        """
        shown, found = self._shown, self._measures(metric)
        values = {c: compare.mean(c.values(found[c.group].column)).scaled(found[c.group].scale) for c in shown}
        what = _one(found.values())
        order = sorted(shown, key=lambda c: (math.isnan(values[c].value), _sign(what) * values[c].value))
        ax = _rows(ax, [_name(c, shown) for c in order])
        _dots(ax, order, values, self._looks(shown))
        if what.name == TIME:
            for bound, (name, dashes) in BOUNDS.items():
                levels = {round(c.mean(bound) / 1e6, 9) for c in shown if not math.isnan(c.mean(bound))}
                if len(levels) == 1:
                    ax.axvline(levels.pop(), color=GREY, linestyle=dashes, linewidth=1.2, label=name)
        ax.set_xlim(left=0)
        return _finish(ax, what.axis, "", shown, what.is_time)

    def against(self, x: str = SIZE, metric: str = TIME, ax: Axes | None = None) -> Axes:
        """A line per policy and scope: the metric's mean and 95 % interval against a label that is a number.

        x: "experts_per_layer", "cache_gb", "horizon", "traffic.rate" or any other label of `runs` that is a number.
        """
        shown, found = self._shown, self._measures(metric)
        values = {c: compare.mean(c.values(found[c.group].column)).scaled(found[c.group].scale) for c in shown}
        what = _one(found.values())
        ax = plain_axes(ax)
        places = self._lines(ax, shown, x, values)
        if what.name == TIME:
            _bounds(ax, shown, places)
        if min((i.value for i in values.values() if not math.isnan(i.value)), default=-1.0) >= 0:
            ax.set_ylim(bottom=0)
        return _finish(ax, AXIS_NAMES.get(x, x), what.axis, shown, what.is_time)

    def difference(self, x: str = SIZE, metric: str = TIME, ax: Axes | None = None) -> Axes:
        """Paired difference from the best policy of level history at equal bytes, in percent, against a label."""
        shown, found = self._shown, self._measures(metric)
        values = {c: against_baseline(c, self._groups[c.group], found[c.group].column).scaled(100) for c in shown}
        what = _one(found.values())
        ax = plain_axes(ax)
        self._lines(ax, shown, x, values)
        ax.axhline(0, color=GREY, linewidth=0.8)
        drawing.cut(ax, [0, *(i.value for i in values.values())])
        y = f"{what.words},\nagainst the best history policy (%)"
        return _finish(ax, AXIS_NAMES.get(x, x), y, shown, what.is_time)

    def gap(self, x: str = HORIZON, measure: str = TIME, ax: Axes | None = None) -> Axes:
        """Share of the oracle's gain that each policy captures, in misses or in time, against a label."""
        if measure not in MEASURES:
            raise InputError(Problem("measure", unknown("measure of a gap", measure, MEASURES)))
        groups = self._groups
        values = {c: gap(c, groups[c.group], column_of(measure, groups[c.group])).scaled(100) for c in self._shown}
        shown = [c for c in self._shown if not math.isnan(values[c].value) and c is not self._base(c)]
        if not shown:
            raise InputError(Problem("gap", "no gap is captured: the oracle was not shown to gain anything here"))
        ax = plain_axes(ax)
        self._lines(ax, shown, x, values)
        for level in (0, 100):
            ax.axhline(level, color=GREY, linewidth=0.8)
        drawing.cut(ax, [0, 100, *(values[c].value for c in shown)])
        if (least := min(values[c].value for c in shown)) < DEEP:
            bend(ax, least)
        y = f"gap captured in {measure} (%)\n0: best history policy, 100: oracle"
        return _finish(ax, AXIS_NAMES.get(x, x), y, shown, measure == TIME)

    def parts(self, ax: Axes | None = None) -> Axes:
        """Where a step's time goes, a bar per configuration: kernels, host, stalls by cause (ms a step)."""
        shown = sorted(self._shown, key=lambda c: c.mean("ns_per_step"))
        parts = [p for p in (*PARTS, "kv_stall", "idle") if any(np.nansum(c.values(f"{p}_ns")) > 0 for c in shown)]
        ax = _rows(ax, [_name(c, shown) for c in shown])
        left = np.zeros(len(shown))
        for part in parts:
            widths = np.array([float(np.mean(c.values(f"{part}_ns") / c.values("steps"))) / 1e6 for c in shown])
            colour, name = palette.PART_COLOURS[part], palette.PART_NAMES[part]
            ax.barh(range(len(shown)), widths, left=left, height=0.75, zorder=2, color=colour, label=name)
            left += widths
        resident = {round(float(np.mean(c.values("bound_resident_ns") / c.values("steps"))) / 1e6, 9) for c in shown}
        if len(resident) == 1 and (line := resident.pop()) > 0:
            ax.axvline(line, color="#000000", linestyle=":", linewidth=1.2, label=ALL)
        return _finish(ax, "time of a step (ms)", "", shown, True)

    def requests(self, metric: str = "ttft", ax: Axes | None = None) -> Axes:
        """Of the requests that were answered, the share whose latency is at most so long; a line per configuration.

        metric: ttft, tpot, e2e, normalized or queueing.
        """
        shown = self._shown
        frame = requests(self.results.requests, shown)
        column = f"{metric}_ms"
        if column not in frame:
            there = [name.removesuffix("_ms") for name in map(str, frame) if name.endswith("_ms")]
            raise InputError(Problem("metric", unknown("latency", metric, there)))
        if frame.empty:
            text = "none of the measured ones was answered in these runs; give them more steps"
            raise InputError(Problem("requests", text))
        ax = plain_axes(ax)
        looks = self._looks(shown)
        for c in shown:
            values = np.sort(frame.loc[frame["run"].isin(c.runs["run"]), column].dropna().to_numpy())
            if len(values):
                share = 100 * np.arange(1, len(values) + 1) / len(values)
                look = {**looks[c], "marker": "", "linewidth": 1.4}
                ax.step(values, share, where="post", label=_name(c, shown), **look)
        ax.set_ylim(0, 101)
        ax.set_xlim(left=0)
        return _finish(ax, f"{metric} (ms)", "requests within it (%)", shown, True)

    # -- what they share

    def _measures(self, name: str) -> dict[Any, Measure]:
        """What the metric is in each group: of the time, latencies where there are any; those overloaded have none."""
        found = measures(name, self.results.configurations)
        latency = next((what for what in found.values() if name == TIME and what.column == LATENCY), None)
        return dict.fromkeys(found, replace(latency, name=TIME)) if latency else found

    def _looks(self, shown: Sequence[Configuration]) -> Looks:
        return looks_of(shown, self.results.configurations)

    def _base(self, c: Configuration) -> Configuration | None:
        group = self._groups[c.group]
        return baseline(group, judged_by(group))

    def _lines(self, ax: Axes, shown: Sequence[Configuration], x: str, values: Values) -> dict[Configuration, float]:
        """Draw each line, and give where each configuration stands."""
        at = _places(shown, x)
        lines: dict[str, list[Configuration]] = {}
        for c in shown:
            if c in at:
                lines.setdefault(_line(c, shown, x), []).append(c)
        _apart(lines, at, x)
        looks, shifts = self._looks(shown), _shifts(at, len(lines), x)
        for (name, members), shift in zip(lines.items(), shifts, strict=True):
            ordered = sorted(members, key=at.__getitem__)
            there = [c for c in ordered if not math.isnan(values[c].value)]
            spots = [shift(_finite(at, c, x)) for c in there]
            drawing.intervals(ax, spots, [values[c] for c in there], label=name, **looks[members[0]])
        _ticks(ax, at, x)
        return {c: _finite(at, c, x) for c in at}


# -- lines and rows


def plain_axes(ax: Axes | None, size: tuple[float, float] = (WIDTH, 3.8)) -> Axes:
    """The axes to draw on: those that are given, or those of a new figure."""
    if ax is None:
        from matplotlib import pyplot

        ax = pyplot.subplots(figsize=size, layout="constrained")[1]
    ax.grid(visible=True, color="#E5E5E5", linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _rows(ax: Axes | None, names: Sequence[str]) -> Axes:
    ax = plain_axes(ax, (WIDTH + 0.06 * max(map(len, names), default=0), ROW * len(names) + 1.3))
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)
    return ax


def looks_of(shown: Sequence[Configuration], everyone: Sequence[Configuration]) -> Looks:
    """As policies are drawn elsewhere, whatever is shown of everyone.

    Where scopes share the axes, those of a cache per layer are hollow; a star is an oracle.
    """
    styles = palette.styles(everyone)
    mixed = len({c.scope for c in shown}) > 1
    looks = {}
    for c in shown:
        hollow = {"markerfacecolor": "white"} if mixed and c.scope == "layer" else {}
        star = {"marker": "*", "markersize": 9} if c.level == "oracle" else {}
        looks[c] = {**styles[palette.family(c)], **hollow, **star}
    return looks


def _dots(ax: Axes, order: Sequence[Configuration], values: Values, looks: Looks) -> None:
    for y, c in enumerate(order):
        found = values[c]
        if not math.isnan(found.value):
            limits = [[found.value - found.low], [found.high - found.value]] if found.bounded else None
            ax.errorbar([found.value], [y], xerr=limits, elinewidth=0.9, **{**looks[c], "linestyle": ""})


def _name(c: Configuration, shown: Sequence[Configuration]) -> str:
    """What tells a configuration from the others: policy, scope, and what else differs."""
    told = telling(shown)[shown.index(c)]
    policy, scope = str(told.pop("policy")), told.pop("scope")
    told.pop(HORIZON, None)
    marks = {"oracle": " (oracle)"} if c.level == "oracle" and "oracle" not in policy else {}
    rest = [f"{value:g}" if isinstance(value, float) else str(value) for value in told.values() if value not in ("",)]
    scopes = [str(scope)] if len({other.scope for other in shown}) > 1 else []
    return ", ".join([policy + "".join(marks.values()), *scopes, *rest])


def _line(c: Configuration, shown: Sequence[Configuration], x: str) -> str:
    """Of which line a configuration is: its policy without what the axis says."""
    name = c.whole or palette.name(palette.family(c))
    return f"{name}, {c.scope}" if len({other.scope for other in shown}) > 1 else name


def _places(shown: Sequence[Configuration], x: str) -> dict[Configuration, float]:
    named = {c: labels(c) for c in shown}
    known = dict.fromkeys(name for row in named.values() for name in row)
    if x not in known:
        raise InputError(Problem("x", unknown("label", x, known)))
    numbers = {c: row[x] for c, row in named.items() if isinstance(row.get(x), int | float) and row[x] == row[x]}
    if not numbers:
        raise InputError(Problem("x", f"{x} is no number in any of these results; policies() draws a row for each"))
    return {c: float(value) for c, value in numbers.items()}


def _apart(lines: dict[str, list[Configuration]], at: dict[Configuration, float], x: str) -> None:
    """Raises InputError where a line would have two points at one place, and says what to choose by."""
    double = [c for line in lines.values() for c in line if sum(at[o] == at[c] for o in line) > 1]
    if not double:
        return
    told = telling(double)
    differ = {name: list(dict.fromkeys(row[name] for row in told)) for name in told[0] if name not in ("policy", x)}
    several = {name: values for name, values in differ.items() if len(values) > 1}
    name, values = next(iter(several.items()), (CASE, ["..."]))
    choice = f"results.where({name.replace('.', '__')}={values[0]!r})" if name.isidentifier() else f"where of {name}"
    text = f"lines have several points at one {x}, which differ in {', '.join(several)}; choose one, as in {choice}"
    raise InputError(Problem("plot", text))


def _finite(at: dict[Configuration, float], c: Configuration, x: str) -> float:
    """Where it stands: unlimited horizons a step behind the last, a horizon of 0 a step before the first."""
    if x != HORIZON:
        return at[c]
    finite = sorted({value for value in at.values() if 0 < value < math.inf}) or [1.0]
    return finite[0] / 2.5 if at[c] == 0 else finite[-1] * 2.5 if at[c] == math.inf else at[c]


def _shifts(at: dict[Configuration, float], count: int, x: str) -> list[Callable[[float], float]]:
    """Of each line, so that intervals do not cover each other."""
    middle = (count - 1) / 2
    if x == HORIZON:
        return [lambda value, i=i: value * (1 + 0.05 * (i - middle)) for i in range(count)]  # type: ignore[misc]
    places = np.diff(sorted(set(at.values())))
    step = 0.05 * float(places.min()) if len(places) else 0.0
    return [lambda value, i=i: value + step * (i - middle) for i in range(count)]  # type: ignore[misc]


def _ticks(ax: Axes, at: dict[Configuration, float], x: str) -> None:
    places = {_finite(at, c, x): value for c, value in at.items()}
    if x == HORIZON:
        ax.set_xscale("log")
        ax.minorticks_off()
    if len(places) <= 12:
        names = {place: "∞" if value == math.inf else f"{value:g}" for place, value in sorted(places.items())}
        ax.set_xticks(list(names), list(names.values()))


def _bounds(ax: Axes, shown: Sequence[Configuration], places: dict[Configuration, float]) -> None:
    for bound, (name, dashes) in BOUNDS.items():
        levels: dict[float, float] = {}
        for c, place in places.items():
            value = c.mean(bound) / 1e6
            if not math.isnan(value):
                levels[place] = min(levels.get(place, math.inf), value)
        drawing.bound(ax, levels, name, dashes)


def _one(found: Iterable[Measure]) -> Measure:
    return next(iter(found))


def _sign(what: Measure) -> int:
    return -1 if what.more_is_better else 1


def _finish(ax: Axes, x: str, y: str, shown: Sequence[Configuration], time: bool) -> Axes:
    """Names of the axes, what all have in common above, a legend beside where lines have names."""
    ax.set_xlabel(x)
    if y:
        ax.set_ylabel(y)
    cases = {c.case for c in shown}
    words = [cases.pop()] if len(cases) == 1 else []
    words += ["ESTIMATED times"] * (time and any(is_estimated(c) for c in shown))
    words += ["oracle: no bound"] * oracle_is_no_bound(shown)
    words += ["overloaded ones have no latency"] * (time and any(c.unmeasured for c in shown))
    return legend(ax, DOT.join(filter(None, words)))


def legend(ax: Axes, title: str) -> Axes:
    """What is above the axes, and the names of its lines beside it."""
    ax.set_title(title, fontsize=10, loc="left")
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return ax


# -- a comparison


def draw_comparison(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Relative paired differences with their intervals, a row each; hollow where the interval holds 0."""
    pairs = [pair for pair in comparison.pairs if not math.isnan(pair.relative.value)]
    several = len({pair.measure.name for pair in pairs}) > 1
    names = [f"{said(pair)}: {pair.measure.name}" if several else said(pair) for pair in pairs]
    ax = _rows(ax, names)
    looks = palette.styles([pair.ours for pair in pairs])
    for y, pair in enumerate(pairs):
        found = pair.relative.scaled(100)
        limits = [[found.value - found.low], [found.high - found.value]] if found.bounded else None
        look = {**looks[palette.family(pair.ours)], "linestyle": ""}
        if not found.excludes(0):
            look["markerfacecolor"] = "white"
        ax.errorbar([found.value], [y], xerr=limits, elinewidth=0.9, **look)
    ax.axvline(0, color=GREY, linewidth=0.8)
    drawn = [0.0, *(pair.relative.value * 100 for pair in pairs)]
    margin = max(0.25 * (max(drawn) - min(drawn)), 1.0)
    ax.set_xlim(min(drawn) - margin, max(drawn) + margin)
    against = {pair.against for pair in pairs}
    base = against.pop() if len(against) == 1 else "what each is compared with"
    words = {pair.measure.words for pair in pairs}
    what = words.pop() if len(words) == 1 else "difference"
    label = f"{what}, against {base} (%)"
    ax = _finish(ax, label, "", [pair.ours for pair in pairs], comparison.estimated)
    hollow = any(not pair.relative.excludes(0) for pair in pairs)
    return legend(ax, DOT.join(filter(None, [ax.get_title("left"), "hollow: not shown to differ" * hollow])))

