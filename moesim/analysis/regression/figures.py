"""Baseline against now: all metrics of an experiment on one sheet, and each that changed close up."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moesim.analysis import drawing
from moesim.analysis.layout import DOT
from moesim.analysis.regression import words
from moesim.analysis.regression.numbers import Change, Number, Verdict
from moesim.analysis.regression.rules import meaning

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MORE, LESS, SAME, BEFORE = "#D55E00", "#0072B2", "#999999", "#444444"
MOST_POINTS, MOST_CHANGES, BESIDE = 60, 24, 5
LETTER = 0.075  # inches of a letter of a name
LOOKS: dict[str, dict[str, Any]] = {
    "as its baseline": {"marker": "o", "color": SAME, "markersize": 3.5},
    "baseline": {"marker": "o", "color": BEFORE, "markersize": 6, "markerfacecolor": "none"},
    "now, more than the baseline": {"marker": ">", "color": MORE, "markersize": 6},
    "now, less than the baseline": {"marker": "<", "color": LESS, "markersize": 6},
}
Marks = dict[str, list[tuple[float, int]]]
LONGEST = 200
"""percent: bars beyond it are cut"""
SCALES = {"_ns": (1e-6, "ms"), "_bytes": (1e-9, "GB"), "_keys": (1.0, "expert keys"), "_tokens": (1.0, "tokens"),
          "evictions": (1.0, "experts")}  # fmt: skip


def scale_of(metric: str) -> tuple[float, str]:
    """Factor and unit in which a metric is drawn."""
    plain = ("ns_per_output_token", "ns_per_step")
    if metric in plain:
        return 1e-6, "ms"
    return next((scale for ending, scale in SCALES.items() if metric.endswith(ending)), (1.0, ""))


def overview(verdict: Verdict) -> Figure | None:
    """Every metric of every run, a panel a metric and a line a point; None where nothing can be compared."""
    if verdict.now is None or verdict.before is None or not verdict.compared or not verdict.metrics:
        return None
    points, left_out = _points(verdict)
    everyone = [*dict.fromkeys(verdict.now.runs[name].point for name in verdict.compared)]
    names = [words.short(point, everyone) for point in points]
    metrics, constant = _shown(verdict)
    columns = min(len(metrics), BESIDE)
    rows = math.ceil(len(metrics) / columns)
    room = LETTER * max(map(len, names))
    figure, panels = drawing.panels_of(rows, columns, (1.9, 0.55 + 0.15 * len(points)), room, sharey="all")
    changed = verdict.changed()
    for place, panel in enumerate(panels.flat):
        if place >= len(metrics):
            panel.set_visible(False)
            continue
        metric = metrics[place]
        _draw(panel, metric, verdict, points)
        _title(panel, metric, len(changed.get(metric, ())))
    panels[0, 0].set_yticks(range(len(points)), names, fontsize=7)
    panels[0, 0].set_ylim(len(points) - 0.4, -0.6)
    some = f", {len(points)} of {len(everyone)} configurations (those that changed, and others)" if left_out else ""
    title = f"{_estimated(verdict, metrics)}{verdict.name}: every metric of every run{some}"
    told = [f"{len(verdict.changes):,} numbers changed" if verdict.changes else "nothing changed"]
    if constant:
        same = ", ".join(f"{metric} {words.number(value)}" for metric, value in constant.items())
        told.append(f"the same in every run, then and now: {same}")
    caption = f"A line a configuration, a panel a metric; {'; '.join(told)}"
    return _finish(figure, title, "; ".join(told), caption)


def _shown(verdict: Verdict) -> tuple[list[str], dict[str, Number]]:
    """Metrics that have a panel, and those that have one value in all runs, as they had; all, where all are such."""
    assert verdict.now
    changed, panels, constant = verdict.changed(), [], {}
    for metric in verdict.metrics:
        values = [verdict.now.runs[name].values[metric] for name in verdict.compared]
        if metric in changed or any(value != values[0] for value in values):
            panels.append(metric)
        else:
            constant[metric] = values[0]
    return (panels, constant) if panels else (verdict.metrics, {})


def _points(verdict: Verdict) -> tuple[list[str], bool]:
    """The points that are drawn, in the order of the runs; of too many, those that changed before others."""
    assert verdict.now
    everyone = list(dict.fromkeys(verdict.now.runs[name].point for name in verdict.compared))
    if len(everyone) <= MOST_POINTS:
        return everyone, False
    changed = {change.point for change in verdict.changes}
    first = [p for p in everyone if p in changed] + [p for p in everyone if p not in changed]
    chosen = set(first[:MOST_POINTS])
    return [p for p in everyone if p in chosen], True


def _draw(panel: Axes, metric: str, verdict: Verdict, points: Sequence[str]) -> None:
    """The runs of a panel: grey where they are as before, else the baseline and what is now, joined."""
    assert verdict.now and verdict.before
    factor, unit = scale_of(metric)
    by_interval = verdict.rules[metric].kind == "interval"
    differing = {c.run for c in verdict.changes if c.metric == metric}
    rows = {point: row for row, point in enumerate(points)}
    marks: Marks = {}
    for name in verdict.compared:
        run = verdict.now.runs[name]
        if run.point in rows:
            old, new = verdict.before.runs[name].values[metric], run.values[metric]
            moved = (run.point if by_interval else name) in differing
            _run(panel, rows[run.point], old * factor, new * factor, moved, marks)
    _mark(panel, marks)
    panel.set_xlabel(unit, fontsize=7)
    panel.tick_params(labelsize=7)
    panel.locator_params(axis="x", nbins=3)


def _run(panel: Axes, row: int, old: Number, new: Number, moved: bool, marks: Marks, shade: bool = True) -> None:
    """Gather the marks of a run; a blank value has none."""
    if not moved:
        marks.setdefault("as its baseline", []).append((new, row))
        return
    if shade:
        panel.axhspan(row - 0.5, row + 0.5, color=SAME, alpha=0.13, linewidth=0)
    look = "now, less than the baseline" if new < old else "now, more than the baseline"
    panel.plot([old, new], [row, row], color=LOOKS[look]["color"], linewidth=1.2)
    marks.setdefault("baseline", []).append((old, row))
    marks.setdefault(look, []).append((new, row))


def _mark(panel: Axes, marks: Marks) -> None:
    for look in (look for look in LOOKS if look in marks):
        panel.plot(*zip(*marks[look], strict=True), linestyle="", label=look, **LOOKS[look])


def _title(panel: Axes, metric: str, changed: int) -> None:
    text = f"{metric}\n{changed} changed" if changed else f"{metric}\n "
    panel.set_title(text, fontsize=8, color=MORE if changed else "#444444", fontweight="bold" if changed else "normal")


def closeup(verdict: Verdict, metric: str, changes: Sequence[Change]) -> Figure:
    """The runs that changed in one metric, the largest change first: both values, and the change in percent."""
    shown = changes[:MOST_CHANGES]
    names = [words.run_words(change.run, verdict) for change in shown]
    factor, unit = scale_of(metric)
    numbers = [words.pair(change).replace("->", "→") for change in shown]
    room = LETTER * (max(map(len, names)) + max(map(len, numbers)))
    figure, panels = drawing.panels_of(1, 2, (2.6, 0.6 + 0.24 * len(shown)), room)
    left, right = panels[0]
    marks: Marks = {}
    for row, change in enumerate(shown):
        _run(left, row, change.before * factor, change.after * factor, True, marks, shade=False)
    _mark(left, marks)
    left.set_yticks(range(len(shown)), names, fontsize=8)
    left.set_xlabel(f"{metric} ({unit})" if unit else metric)
    left.set_axisbelow(True)
    _bars(right, shown, numbers)
    for panel in (left, right):
        panel.set_ylim(len(shown) - 0.4, -0.6)
        panel.locator_params(axis="x", nbins=4)
    some = f", the {len(shown)} largest of {len(changes)} changes" if len(shown) < len(changes) else ""
    told = f"{metric} {words.of_metric(verdict, metric, changes)}"
    caption = f"Left: baseline and now; right: the change{some}"
    title = f"{_estimated(verdict, [metric])}{verdict.name}: {meaning(metric)}{some}"
    return _finish(figure, title, told, caption)


def _estimated(verdict: Verdict, metrics: Sequence[str]) -> str:
    """Said before anything else where a time that is drawn follows from costs that nobody measured."""
    timed = any(metric.endswith("_ns") or metric.startswith("ns_") for metric in metrics)
    return f"ESTIMATED times{DOT}" if timed and any("ESTIMATED" in label for label in verdict.labels) else ""


def _bars(panel: Axes, shown: Sequence[Change], numbers: Sequence[str]) -> None:
    """The relative changes, cut where one would dwarf the others; from 0 and to a blank the numbers say it."""
    sizes = [change.relative * 100 for change in shown]
    long = any(math.isfinite(size) and abs(size) > LONGEST for size in sizes)
    for row, size in enumerate(sizes):
        if math.isfinite(size):
            panel.barh([row], [min(max(size, -LONGEST), LONGEST)], color=MORE if size > 0 else LESS, height=0.5)
    panel.axvline(0, color="#444444", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.set_xlabel(f"change against the baseline (%{', longer ones cut' * long})")
    panel.yaxis.tick_right()
    panel.set_yticks(range(len(shown)), numbers, fontsize=8)
    panel.tick_params(axis="y", length=0)


def _finish(figure: Figure, title: str, below: str, caption: str) -> Figure:
    """Title and legend; the label has the caption, for a page that draws no title."""
    found: dict[str, Any] = {}
    for panel in figure.axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    figure.set_label(f"{title}\n{caption}")
    width = int(figure.get_figwidth() * drawing.LETTERS)
    above = [*textwrap.wrap(title, width), *textwrap.wrap(below.replace("->", "→"), width)]
    figure.suptitle("\n".join(above), fontsize=10, x=0.01, horizontalalignment="left")
    order = [look for look in LOOKS if look in found]
    figure.legend([found[look] for look in order], order, loc="outside lower left", ncols=2, fontsize=8, frameon=False)
    return figure
