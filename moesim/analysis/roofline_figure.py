"""The figure of a measured cost table against the device's own roofline, and of a link's speed over sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moesim.analysis.drawing import LETTERS, panels_of
from moesim.analysis.layout import wrapped
from moesim.analysis.palette import COLOURS, MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOF = "#444444"


def roofline_figure(
    title: Sequence[str],
    points: Mapping[str, Sequence[tuple[float, float]]],
    peaks: Mapping[str, float],
    link: Mapping[str, Sequence[tuple[int, int]]],
) -> Figure:
    """points: component -> (FLOPs a byte, FLOPs a second); peaks: `bytes_per_second`, `flops_per_second`; link:
    direction -> (bytes, ns)."""
    figure, panels = panels_of(1, 2 if link else 1, (4.6, 3.6))
    _roofline(panels[0][0], points, peaks)
    if link:
        _speeds(panels[0][1], link)
    figure.suptitle(
        "\n".join(wrapped(title, int(figure.get_figwidth() * LETTERS))), fontsize=10, x=0.01, horizontalalignment="left"
    )
    return figure


def _roofline(
    panel: Axes, points: Mapping[str, Sequence[tuple[float, float]]], peaks: Mapping[str, float]
) -> None:
    moved, done = peaks["bytes_per_second"], peaks["flops_per_second"]
    every = [intensity for of_component in points.values() for intensity, _ in of_component]
    low, high = min(every, default=0.1) / 2, max([*every, done / moved]) * 2
    panel.plot([low, done / moved, high], [low * moved, done, done], color=ROOF, label="most that was seen")
    for number, (name, of_component) in enumerate(points.items()):
        panel.plot(
            *zip(*of_component, strict=True), linestyle="", markersize=4, alpha=0.7,
            marker=MARKERS[number % len(MARKERS)], color=COLOURS[number % len(COLOURS)], label=name,
        )  # fmt: skip
    panel.set(xscale="log", yscale="log", xlabel="FLOPs a byte", ylabel="FLOPs a second")
    panel.set_title("pieces of a layer and of a step", fontsize=9, loc="left")
    panel.legend(fontsize=7, frameon=False)


def _speeds(panel: Axes, link: Mapping[str, Sequence[tuple[int, int]]]) -> None:
    for number, (name, times) in enumerate(link.items()):
        sizes = [nbytes for nbytes, _ in times]
        speeds = [nbytes / ns for nbytes, ns in times]
        panel.plot(sizes, speeds, marker=MARKERS[number], markersize=4, color=COLOURS[number], label=name)
    panel.set(xscale="log", xlabel="bytes of a copy", ylabel="GB/s", ylim=(0, None))
    panel.set_title("copies", fontsize=9, loc="left")
    panel.legend(fontsize=7, frameon=False)


def documents_figure(amounts: Mapping[str, Any], costs: Mapping[str, Any], link: Mapping[str, Any] | None) -> Figure:
    """The same from a table's and a link's documents; `amounts`: component -> [(bytes, flops, ns)]."""
    peaks = {row["name"].removeprefix("peak "): row["value"] for row in costs["constants"]}
    points = {
        name: [(flops / moved, flops * 1e9 / ns) for moved, flops, ns in rows if flops and ns]
        for name, rows in amounts.items()
    }
    directions = {"pinned": "to the device", "pageable": "to the device, pageable", "to_host": "to the host"}
    copies = {text: link[name]["points"] for name, text in directions.items() if link and link.get(name)}
    title = [f"{costs['name']}: MEASURED {costs['date']}", costs["device"], f"shape {costs['shape']['name']}"]
    return roofline_figure(title, points, peaks, copies)
