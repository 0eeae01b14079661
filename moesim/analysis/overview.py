"""The figure that shows all cases of an experiment beside each other: the digest as a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis import compare, drawing
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import (
    Configuration,
    baseline,
    best,
    bound,
    deployable,
    grouped,
    judged_by,
    kv_text,
    sizes_of,
    time_words,
)
from moesim.analysis.gap import against_baseline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESIDENT = "bound_resident_ns_per_output_token"
LETTER, LEGEND = 0.078, 2.3  # inches of a letter of a name, and of the legend
LEAST = 1.9  # inches of a panel, for the name of its axis
BASE = "best history policy"
LOOKS: dict[str, dict[str, Any]] = {
    BASE: {"color": "#0072B2", "marker": "o", "markersize": 5, "markerfacecolor": "white"},
    "best policy without an oracle": {"color": "#D55E00", "marker": "D", "markersize": 5},
    "best unlimited oracle": {"color": "#000000", "marker": "*", "markersize": 8},
}
SHIFTS = (-0.18, 0.0, 0.18)  # of a row, so that intervals do not cover each other
BELOW = "time per output token, and its change against the best history policy: left of 0 is faster"

ALONE = "time per output token of the best history policy: none is faster"
LINE = "\n"


@dataclass(frozen=True, slots=True)
class Row:
    """A set's name, a group of it, and what is shown of the group, by its word in LOOKS."""

    name: str
    group: list[Configuration]
    shown: dict[str, Configuration]


def across_sets(sets: dict[str, list[Configuration]]) -> Figure | None:
    """A row per set and memory size: what its best history policy, best policy and best oracle take, and their gain.

    Left the time per output token, right its paired difference from the best history policy, where there is any. A
    best policy that is the best history policy has no mark of its own.
    """
    groups = [(name, group) for name, members in sets.items() for group in grouped(members).values()]
    rows = [Row(name, group, _shown(group)) for name, group in groups]
    if not any(row.shown for row in rows):
        return None
    everyone = [c for row in rows for c in row.group]
    sizes, unit = sizes_of(everyone)
    room = LETTER * (max(len(row.name) for row in rows) + 6) + LEGEND
    height = max(0.2 * len(rows) + 0.4, LEAST)
    others = any(word != BASE for row in rows for word in row.shown)
    figure, panels = drawing.panels_of(1, 1 + others, (3.0, height), room, sharey="all")
    for word, shift in zip(LOOKS, SHIFTS, strict=True):
        found = {y + shift: (row.shown[word], row.group) for y, row in enumerate(rows) if word in row.shown}
        times = {y: compare.mean(c.values(judged_by(group)) / 1e6) for y, (c, group) in found.items()}
        _dots(panels[0, 0], times, word)
        if word != BASE and found:
            changes = {y: against_baseline(c, group, judged_by(group)).scaled(100) for y, (c, group) in found.items()}
            _dots(panels[0, 1], changes, word)
    _resident(panels[0, 0], {y: row.group[0].mean(RESIDENT) / 1e6 for y, row in enumerate(rows)})
    kv = ", KV" if any(map(kv_text, everyone)) else ""
    firsts = [row.group[0] for row in rows]
    _frame(panels[0], [row.name for row in rows], [_size(sizes[c], kv_text(c)) for c in firsts])
    panels[0, 0].set_xlabel(time_words(group for _, group in groups))
    unit = f"{unit}, GB" if kv and unit != "GB" else unit
    panels[0, 0].set_ylabel(f"case, and{LINE if kv else ' '}cache size{kv}\n({unit})")
    return drawing.finish(figure, panels, ("the cases beside each other", BELOW if others else ALONE), everyone)


def _size(cache: float, kv: str) -> str:
    return f"{cache:.3g}, {kv}" if kv else f"{cache:.3g}"


def _shown(group: Sequence[Configuration]) -> dict[str, Configuration]:
    time = judged_by(group)
    base, ours = baseline(group, time), best(deployable(group), time)
    found = zip(LOOKS, (base, None if ours is base else ours, bound(group, time)), strict=True)
    return {word: c for word, c in found if c is not None}


def _dots(panel: Axes, found: dict[float, Interval], word: str) -> None:
    """Points with their intervals, a row each."""
    shown = {y: interval for y, interval in found.items() if not math.isnan(interval.value)}
    if shown:
        limits = np.array([[i.value - i.low, i.high - i.value] if i.bounded else [0, 0] for i in shown.values()]).T
        points = [i.value for i in shown.values()]
        panel.errorbar(points, list(shown), xerr=limits, label=word, linestyle="", elinewidth=0.8, **LOOKS[word])


def _resident(panel: Axes, found: dict[int, float]) -> None:
    shown = {y: value for y, value in found.items() if not math.isnan(value)}
    if shown:
        panel.plot(list(shown.values()), list(shown), "|", color="#444444", markersize=8, label="all experts resident")


def _frame(panels: Sequence[Axes], names: Sequence[str], sizes: Sequence[str]) -> None:
    """Rows from above, a case's name at its first; ms on a logarithmic axis, percent on a linear one."""
    from matplotlib.ticker import LogLocator

    first = [y for y, name in enumerate(names) if y == 0 or names[y - 1] != name]
    labels = [f"{names[y]}   {size}" if y in first else size for y, size in enumerate(sizes)]
    panels[0].set_yticks(range(len(names)), labels)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    panels[0].set_xscale("log")
    panels[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panels[0].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[0].minorticks_off()
    for panel in panels[1:]:
        panel.set_xlabel("against the best history policy (%)")
        panel.axvline(0, color="#444444", linewidth=0.8)
    for panel in panels:
        panel.grid(axis="y", visible=False)
        for y in first[1:]:
            panel.axhline(y - 0.5, color="#CCCCCC", linewidth=0.6)
