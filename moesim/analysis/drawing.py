"""What the figures share: panels, lines with intervals, and title, legend and labels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis import palette
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import Configuration, is_estimated, labels_of, oracle_is_no_bound
from moesim.analysis.layout import DOT, wrapped

LETTERS = 11.5  # of a title, in an inch
INTERVALS = ", with 95 % intervals (long ones are cut at the frame)"
BANDS = ", with 95 % intervals as bands"

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def lines(
    panel: Axes,
    everyone: Sequence[Configuration],
    places: dict[Configuration, float],
    values: dict[Configuration, Interval],
) -> None:
    """A line for each family of what is placed, each in the look that it has among everyone."""
    for line, style in palette.styles(everyone).items():
        points = sorted((c for c in places if palette.family(c) == line), key=places.__getitem__)
        spots, found = [places[c] for c in points], [values[c] for c in points]
        intervals(panel, spots, found, label=palette.name(line), **style)


def cut(panel: Axes, values: list[float]) -> None:
    """Scale an axis to its points; a long interval is cut at the frame."""
    shown = [value for value in values if not math.isnan(value)]
    margin = 0.12 * (max(shown) - min(shown)) or 1.0
    panel.set_ylim(min(shown) - margin, max(shown) + margin)


def intervals(panel: Axes, places: list[float], found: list[Interval], **style: Any) -> None:
    """Points with their intervals, joined by a line."""
    if found:
        limits = np.array([[i.value - i.low, i.high - i.value] if i.bounded else [0, 0] for i in found]).T
        panel.errorbar(places, [i.value for i in found], yerr=limits, elinewidth=0.8, linewidth=1.4, **style)


def band(panel: Axes, places: list[float], found: list[Interval], **style: Any) -> None:
    """A line through points whose intervals are a band, as wide as they are."""
    (line,) = panel.plot(places, [i.value for i in found], linewidth=1.4, **style)
    limits = np.array([[i.low, i.high] if i.bounded else [i.value, i.value] for i in found]).T
    panel.fill_between(places, *limits, color=line.get_color(), alpha=0.15, linewidth=0)


def bound(panel: Axes, values: dict[float, float], name: str, dashes: Any) -> None:
    """A line without points; nothing where there is no bound."""
    points = sorted((size, value) for size, value in values.items() if not math.isnan(value))
    if points:
        panel.plot(*zip(*points, strict=True), color="#444444", linestyle=dashes, linewidth=1.4, label=name)


def panels_of(
    rows: int, columns: int, size: tuple[float, float], beside: float = 0.0, **share: Any
) -> tuple[Figure, np.ndarray]:
    """A figure and its panels [rows, columns], each of `size` inches, with room `beside` them for names and legend."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(size[0] * columns + beside, 6.4), size[1] * rows + 1.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **share)
    for panel in panels.flat:
        panel.grid(visible=True, color="#E5E5E5", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def finish(
    figure: Figure,
    panels: np.ndarray,
    titles: tuple[str, str],
    configurations: Sequence[Configuration],
    bars: str = INTERVALS,
) -> Figure:
    """Titles (what it is of, what to see), notes with what its `bars` are, and one legend for all panels."""
    from matplotlib.lines import Line2D

    found: dict[str, Any] = {}
    for panel in panels.flat:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    notes = [*_marks(configurations, bars), *dict.fromkeys(label for c in configurations for label in labels_of(c))]
    estimated = f"ESTIMATED times{DOT}" if any(is_estimated(c) for c in configurations) else ""
    width = int(figure.get_figwidth() * LETTERS)
    above = [*wrapped((estimated + titles[0]).split(DOT), width), *textwrap.wrap(titles[1], width)]
    figure.set_label("\n".join([*titles, *_captions(configurations)]))  # where no title is drawn, a caption says it
    figure.suptitle("\n".join(above), fontsize=11, x=0.01, horizontalalignment="left")
    order = sorted(found, key=lambda label: isinstance(found[label], Line2D))  # guides after the policies
    if found:
        figure.legend([found[label] for label in order], order, loc="outside right center", fontsize=8, frameon=False)
    figure.supxlabel("\n".join(notes), fontsize=7, color="#444444")
    return figure


def _captions(configurations: Sequence[Configuration]) -> list[str]:
    """What a caption says beside the titles: whether times were measured, and what an oracle is."""
    labels = [label for c in configurations for label in labels_of(c)]
    said = next((word for word in ("ESTIMATED", "MEASURED") if any(word in label for label in labels)), "")
    oracles = any(c.level == "oracle" for c in configurations)
    bound = "; in a free schedule it is no bound" if oracle_is_no_bound(configurations) else ""
    oracle = f"an oracle (dashed where it is a line) knows the future and is no policy to deploy{bound}"
    return [f"times {said}"] * bool(said) + [oracle] * oracles


def _marks(configurations: Sequence[Configuration], bars: str) -> list[str]:
    replications = max(len(c.units) for c in configurations)
    means = f"means over {replications} replications{bars}" if replications > 1 else "one replication"
    oracles = any(c.level == "oracle" for c in configurations)
    bound = "; not a bound where the schedule is free" if oracle_is_no_bound(configurations) else ""
    return [f"oracle: knows the future, not a policy to deploy{bound}"] * oracles + [means]
