"""The figures of an experiment, drawn from configurations that share all but memory, scope and cache policy.

Each function gives a matplotlib Figure, or None where the configurations have nothing to show on its axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis import compare, palette
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import UNLIMITED, Configuration, grouped, is_estimated, labels_of, text
from moesim.analysis.gap import MEASURES, gap
from moesim.analysis.metrics import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSES, TIME = MEASURES["misses"], MEASURES["time"]
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
    """Misses and time per output token against the cache's memory, a column of panels per scope."""
    shown = farthest(configurations)
    scopes, (sizes, unit) = _scopes(shown), _sizes(shown)
    if len(set(sizes.values())) < 2:
        return None
    figure, panels = _panels(2, len(scopes), (4.6, 3.3), sharex="all", sharey="row")
    styles = palette.styles(shown)
    for column, scope in enumerate(scopes):
        here = sorted((c for c in shown if c.scope == scope), key=sizes.__getitem__)
        for panel, measure, scale in ((panels[0, column], MISSES, 1.0), (panels[1, column], TIME, 1e-6)):
            for line in styles:
                points = [c for c in here if palette.family(c) == line]
                found = [compare.mean(c.values(measure) * scale) for c in points]
                _errorbar(panel, [sizes[c] for c in points], found, label=palette.name(line), **styles[line])
        for measure, (name, dashes) in BOUNDS.items():
            _draw_bound(panels[1, column], {sizes[c]: c.mean(measure) / 1e6 for c in here}, name, dashes)
        panels[0, column].set_title(SCOPES.get(scope, scope), fontsize=10)
        panels[1, column].set_xlabel(f"cache size ({unit})")
    panels[0, 0].set_ylabel("misses per output token\n(expert keys)")
    panels[1, 0].set_ylabel("time per output token (ms)")
    for panel in panels.flat:
        panel.set_xticks(sorted(set(sizes.values())), [f"{size:g}" for size in sorted(set(sizes.values()))])
        panel.set_ylim(bottom=0)
    return _finish(figure, panels, f"{title}\nmisses and time against cache size", configurations)


def against_horizon(configurations: Sequence[Configuration], title: str, scope: str) -> Figure | None:
    """Gap captured in misses and in time against the horizon in layer events, a column of panels per memory size."""
    gaps = _gaps(configurations, scope)
    shown = list(gaps)
    if len({c.horizon for c in shown}) < 2:
        return None
    sizes, unit = _sizes(shown)
    places, styles = _horizon_places(shown), palette.styles(shown)
    columns = sorted(set(sizes.values()))
    figure, panels = _panels(2, len(columns), (3.1, 3.0), sharex="all", sharey="row")
    for column, size in enumerate(columns):
        for row, measure in enumerate(MEASURES):
            for number, line in enumerate(styles):
                points = sorted((c for c in shown if sizes[c] == size and palette.family(c) == line), key=_reach)
                shift = 1 + 0.03 * (number - (len(styles) - 1) / 2)  # intervals stand beside each other
                spots = [places[c.horizon] * shift for c in points]
                found = [gaps[c][measure] for c in points]
                _errorbar(panels[row, column], spots, found, label=palette.name(line), **styles[line])
            _gap_frame(panels[row, column], places, shown[0])
        panels[0, column].set_title(f"cache: {size:g} {unit}", fontsize=10)
        panels[1, column].set_xlabel("horizon (layer events)")
    for row, measure in enumerate(MEASURES):
        panels[row, 0].set_ylabel(f"gap captured in {measure} (%)")
    below = "gap captured against horizon: 0 % best history policy, 100 % oracle"
    return _finish(figure, panels, f"{title} · {SCOPES.get(scope, scope)}\n{below}", configurations)


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
    sizes, unit = _sizes(shown)
    columns = sorted(set(sizes.values()))
    names = list(dict.fromkeys(_bar_name(c) for scope in _scopes(shown) for c in shown if c.scope == scope))
    figure, panels = _panels(1, len(columns), (3.1, 0.9 + 0.24 * len(names)), sharey="all")
    for panel, size in zip(panels[0], columns, strict=True):
        here = [c for c in shown if sizes[c] == size]
        _draw_bars(panel, {names.index(_bar_name(c)): c for c in here}, parts)
        resident = np.mean([c.values("bound_resident_ns") / c.values("steps") for c in here]) / 1e6
        if resident > 0:
            panel.axvline(resident, color="#000000", linestyle=":", linewidth=1.2, label="all experts resident")
        panel.set_title(f"cache: {size:g} {unit}", fontsize=10)
        panel.set_xlabel("ms per step")
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].set_ylim(len(names) - 0.4, -0.6)
    return _finish(figure, panels, f"{title}\nwhere a step's time goes (each panel has its own scale)", configurations)


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


def _sizes(configurations: Sequence[Configuration]) -> tuple[dict[Configuration, float], str]:
    """Each cache's size and its unit: experts a layer where all have that, else GB."""
    slots = [text(c.value("slots")) for c in configurations]
    if all(slots):
        return dict(zip(configurations, map(float, slots), strict=True)), "experts a layer"
    return {c: c.mean("bytes") / 1e9 for c in configurations}, "GB"


def _bar_name(c: Configuration) -> str:
    return f"{c.policy.replace(UNLIMITED, '∞')}, {c.scope}"


def _part_ms(c: Configuration, part: str) -> float:
    return float(np.mean(c.values(f"{part}_ns") / c.values("steps"))) / 1e6


def _errorbar(panel: Axes, places: list[float], found: list[Interval], **style: Any) -> None:
    if found:
        limits = np.array([[i.value - i.low, i.high - i.value] if i.bounded else [0, 0] for i in found]).T
        panel.errorbar(places, [i.value for i in found], yerr=limits, elinewidth=0.8, linewidth=1.4, **style)


def _draw_bound(panel: Axes, values: dict[float, float], name: str, dashes: Any) -> None:
    points = sorted((size, value) for size, value in values.items() if not math.isnan(value))
    if points:
        panel.plot(*zip(*points, strict=True), color="#444444", linestyle=dashes, linewidth=1.4, label=name)


def _horizon_places(configurations: Iterable[Configuration]) -> dict[float, float]:
    """Where each horizon stands on the logarithmic axis: 0 a step before the least, unlimited a step after the most."""
    found = sorted({c.horizon for c in configurations})
    finite = [h for h in found if 0 < h < math.inf] or [1.0]
    return {h: finite[0] / 2.5 if h == 0 else finite[-1] * 2.5 if h == math.inf else h for h in found}


def _gap_frame(panel: Axes, place: dict[float, float], example: Configuration) -> None:
    panel.set_xscale("log")
    panel.set_xticks(list(place.values()), ["∞" if h == math.inf else f"{h:g}" for h in place])
    panel.minorticks_off()
    for level in (0, 100):
        panel.axhline(level, color="#444444", linewidth=0.8)
    layers = float(np.mean(example.values("layer_events") / example.values("steps")))
    if min(place.values()) < layers < max(place.values()):
        panel.axvline(layers, color="#444444", linewidth=0.8, linestyle=":", label=f"one step ({layers:.0f} layers)")


def _panels(rows: int, columns: int, size: tuple[float, float], **share: Any) -> tuple[Figure, np.ndarray]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(size[0] * columns, 6.4), size[1] * rows + 1.3), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **share)
    for panel in panels.flat:
        panel.grid(visible=True, color="#E5E5E5", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, panels


def _finish(figure: Figure, panels: np.ndarray, title: str, configurations: Sequence[Configuration]) -> Figure:
    """Title, what the figures are of, and one legend for all panels."""
    from matplotlib.lines import Line2D

    found: dict[str, Any] = {}
    for panel in panels.flat:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    notes = [*_marks(configurations), *dict.fromkeys(label for c in configurations for label in labels_of(c))]
    estimated = "ESTIMATED times · " if any(is_estimated(c) for c in configurations) else ""
    figure.suptitle(estimated + title, fontsize=11)
    order = sorted(found, key=lambda label: isinstance(found[label], Line2D))  # guides after the policies
    figure.legend([found[label] for label in order], order, loc="outside right upper", fontsize=8, frameon=False)
    figure.supxlabel("\n".join(notes), fontsize=7, color="#444444")
    return figure


def _marks(configurations: Sequence[Configuration]) -> list[str]:
    replications = max(len(c.runs) for c in configurations)
    bars = f"means, and 95 % intervals over {replications} replications" if replications > 1 else "one replication"
    oracles = {c.oracle for c in configurations if c.level == "oracle"}
    bound = "; not a bound, as the schedule is free" if any("not a bound" in name for name in oracles) else ""
    return [f"oracle (dashed lines): knows the future{bound}"] * bool(oracles) + [bars]
