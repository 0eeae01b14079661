"""The figure of a trace's statistics, drawn from their document (`moesim trace stats --json`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from moesim.analysis.drawing import LETTERS, panels_of
from moesim.analysis.layout import wrapped
from moesim.analysis.palette import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURED, EVEN, OTHER = COLOURS[0], "#999999", COLOURS[1]
GUESSES = {"recorded": "recorded", "table": "table of pairs", "token_before": "token before", "popular": "popular"}
GUESS_COLOURS = (COLOURS[2], MEASURED, OTHER, EVEN)


def statistics_figure(found: dict[str, Any]) -> Figure:
    """Balance, reuse, overlap, unique experts of a batch, foresight by layer, and by distance or between domains."""
    figure, panels = panels_of(2, 3, (3.4, 2.7))
    last = _distances if (found["foresight"] or {}).get("by_distance") else _domains
    for panel, draw in zip(panels.flat, (_balance, _reuse, _overlap, _breadth, _foresight, last), strict=True):
        draw(panel, found)
        if panel.get_legend_handles_labels()[0]:
            panel.legend(fontsize=7, frameon=False)
    head = [
        f"{found['model']} ({found['label']}, {found['router']})",
        f"{found['layers']} layers of {found['experts']} experts, k = {found['k']}",
        f"{found['tokens']:,} {found['of']} in {found['sequences']:,} sequences",
    ]
    lines = wrapped(head, int(figure.get_figwidth() * LETTERS))
    figure.suptitle("\n".join(lines), fontsize=11, x=0.01, horizontalalignment="left")
    return figure


def _balance(panel: Axes, found: dict[str, Any]) -> None:
    data = found["balance"]
    places = range(found["experts"] + 1)
    panel.plot(places, _percent(data["curve"]), color=MEASURED, label="most popular of the whole")
    panel.plot(places, _percent(data["pinned_curve"]), color=OTHER, label="picked on one half, seen on the other")
    panel.plot([0, found["experts"]], [0, 100], color=EVEN, linestyle="--", label="if all were used alike")
    _axes(panel, "balance", "experts a layer", "share of choices (%)")


def _reuse(panel: Axes, found: dict[str, Any]) -> None:
    share = found["reuse"]["hit_share"]
    panel.plot(range(len(share)), _percent(share), color=MEASURED)
    panel.axvline(found["k"], color=EVEN, linestyle="--", label="k: one token's own")
    _axes(panel, "reuse: an LRU cache per layer", "experts a layer", "hits (%)")


def _overlap(panel: Axes, found: dict[str, Any]) -> None:
    data = found["overlap"]
    lags = {int(lag): 100 * value for lag, value in data["by_lag"].items() if value is not None}
    panel.plot(list(lags), list(lags.values()), color=MEASURED, marker="o", markersize=4)
    panel.axhline(100 * data["popular"], color=OTHER, linestyle=":", label="by popularity alone")
    panel.axhline(100 * data["even"], color=EVEN, linestyle="--", label="by chance")
    _powers(panel, list(lags))
    _axes(panel, "overlap with an earlier token", "tokens before", "shared experts (%)")


def _breadth(panel: Axes, found: dict[str, Any]) -> None:
    data = found["breadth"]
    panel.plot(data["batches"], data["unique"], color=MEASURED, marker="o", markersize=4, label="measured")
    panel.plot(data["batches"], data["even"], color=EVEN, linestyle="--", label="if all were used alike")
    panel.axhline(found["experts"], color="#000000", linewidth=0.8)
    _powers(panel, data["batches"])
    _axes(panel, "experts that a batch needs", "tokens in the batch", "unique experts a layer")


def _foresight(panel: Axes, found: dict[str, Any]) -> None:
    data = found["foresight"]
    if data is None:
        panel.set_axis_off()
        return
    for (name, label), colour in zip(GUESSES.items(), GUESS_COLOURS, strict=True):
        if name not in data["by_layer"]:
            continue
        values = [math.nan if value is None else 100 * value for value in data["by_layer"][name]]
        if len(values) > 1:
            panel.plot(range(1, len(values) + 1), values, color=colour, linewidth=1.2, label=label)
        else:
            panel.bar(label, values[0], color=colour, zorder=2)
    panel.set_ylim(0, 100)
    _axes(panel, f"{data['of']} foretold", "layer" if len(data["by_layer"]["table"]) > 1 else "", "its experts (%)")


def _distances(panel: Axes, found: dict[str, Any]) -> None:
    """How much is foretold of the layers 1 to 3 on."""
    by_distance = found["foresight"]["by_distance"]
    for (name, label), colour in zip(GUESSES.items(), GUESS_COLOURS, strict=True):
        seen = {int(distance): of[name] for distance, of in by_distance.items() if of.get(name) is not None}
        if seen:
            values = _percent(list(seen.values()))
            panel.plot(list(seen), values, color=colour, marker="o", markersize=4, label=label)
    panel.set_xticks([int(distance) for distance in by_distance])
    panel.set_ylim(0, 100)
    _axes(panel, "foretold by distance", "layers ahead", "their experts (%)")


def _domains(panel: Axes, found: dict[str, Any]) -> None:
    """How far each domain's choices are from those of all."""
    data = found["domains"]
    if data is None:
        panel.set_axis_off()
        return
    names = sorted(data["apart"], key=data["apart"].get)
    panel.barh(names, _percent([data["apart"][name] for name in names]), color=MEASURED, zorder=2)
    panel.set_xlim(0, 100)
    panel.tick_params(axis="y", labelsize=7)
    _axes(panel, "domains apart", "choices that would have to move (%)", "")


def _powers(panel: Axes, places: list[int]) -> None:
    """A logarithmic axis with the places themselves as ticks."""
    panel.set_xscale("log", base=2)
    panel.set_xticks(places, [str(place) for place in places])
    panel.minorticks_off()
    panel.set_ylim(bottom=0)


def _percent(values: list[float]) -> list[float]:
    return [100 * value for value in values]


def _axes(panel: Axes, title: str, x: str, y: str) -> None:
    panel.set_title(title, fontsize=10)
    panel.set_xlabel(x)
    panel.set_ylabel(y)
