"""The figures of an experiment, drawn from configurations that share all but memory, scope and cache policy.

Each function gives a matplotlib Figure, or None where the configurations have nothing to show on its axes. Colours are
those of Okabe and Ito, which colour-blind people can tell apart; lines differ in their markers too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis import compare
from moesim.analysis.configurations import UNLIMITED, Configuration, grouped, is_estimated, labels_of, text
from moesim.analysis.gap import MEASURES, gap
from moesim.analysis.metrics import PARTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MISSES, TIME = MEASURES["misses"], MEASURES["time"]
SCOPES = {"layer": "one cache per layer", "global": "one cache for all layers"}
KNOWN = {
    ("lru", "history", ""): ("#0072B2", "o"),
    ("lfu", "history", ""): ("#009E73", "s"),
    ("fifo", "history", ""): ("#56B4E9", "v"),
    ("random", "history", ""): ("#999999", "x"),
    ("lookahead", "step", ""): ("#E69F00", "^"),
    ("lookahead", "queue", ""): ("#D55E00", "D"),
    ("lookahead", "queue", "persist"): ("#CC79A7", "P"),
    ("lookahead", "oracle", ""): ("#000000", "*"),
}
OTHERS = [("#F0E442", "<"), ("#7F4F24", ">"), ("#5E3C99", "h"), ("#1B7837", "X"), ("#762A83", "d"), ("#B2182B", "p")]
PART_COLOURS = dict(
    zip(
        (*PARTS, "idle"),
        ("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#999999", "#D55E00", "#E69F00", "#DDDDDD"),
        strict=True,
    )
)
PART_NAMES = {
    "attention": "attention",
    "rest": "rest of layer and step",
    "gate": "gate",
    "router": "router",
    "experts": "experts",
    "host": "host",
    "miss_stall": "stall: misses",
    "late_stall": "stall: late hits",
    "idle": "idle",
}
BOUNDS = {
    "bound_transfer_ns_per_output_token": ("transfer bound (MIN)", (0, (4, 1, 1, 1))),
    "bound_resident_ns_per_output_token": ("all experts resident", (0, (1, 1))),
}
Family = tuple[str, str, str]


def family(configuration: Configuration) -> Family:
    """Policy, level and other options: what a line of a figure is of; its points differ in memory or horizon."""
    return configuration.cache, configuration.level, " ".join(configuration.options)


def farthest(configurations: Iterable[Configuration]) -> list[Configuration]:
    """Of each family, scope and memory the configuration that looks farthest ahead, in the order of the file."""
    found: dict[tuple[Any, ...], Configuration] = {}
    for c in configurations:
        key = (c.group, c.scope, family(c))
        if key not in found or _reach(c) > _reach(found[key]):
            found[key] = c
    return list(found.values())


def against_slots(configurations: Sequence[Configuration], title: str) -> Figure | None:
    """Misses and time per output token against the cache's memory, a column of panels per scope."""
    shown = farthest(configurations)
    scopes = _scopes(shown)
    if len({_memory(c) for c in shown}) < 2:
        return None
    figure, panels = _panels(2, len(scopes), (4.6, 3.3), sharex="all", sharey="row")
    for column, scope in enumerate(scopes):
        here = [c for c in shown if c.scope == scope]
        panels[0, column].set_title(SCOPES.get(scope, scope), fontsize=10)
        for row, (measure, scale) in enumerate(((MISSES, 1.0), (TIME, 1e-6))):
            for line, points in _families(here).items():
                _draw_means(panels[row, column], points, measure, scale, line)
        for measure, (name, dashes) in BOUNDS.items():
            _draw_bound(panels[1, column], here, measure, name, dashes)
        panels[1, column].set_xlabel(_memory_label(shown))
    panels[0, 0].set_ylabel("misses per output token\n(expert keys)")
    panels[1, 0].set_ylabel("time per output token (ms)")
    _whole_ticks(panels, shown)
    for panel in panels.flat:
        panel.set_ylim(bottom=0)
    return _finish(figure, panels, f"{title}\nmisses and time against cache size", configurations)


def against_horizon(configurations: Sequence[Configuration], title: str, scope: str) -> Figure | None:
    """Gap captured in misses and in time against the horizon in layer events, a column of panels per memory size."""
    groups = [(c, group) for group in grouped(configurations).values() for c in group]
    lines = [(c, group) for c, group in groups if c.scope == scope and not math.isnan(c.horizon)]
    values = {(id(c), m): gap(c, group, column) for c, group in lines for m, column in MEASURES.items()}
    lines = [(c, g) for c, g in lines if any(not math.isnan(values[id(c), m].value) for m in MEASURES)]
    sizes = sorted({_memory(c) for c, _ in lines})
    if len({c.horizon for c, _ in lines}) < 2:
        return None
    place = _horizon_places([c for c, _ in lines])
    figure, panels = _panels(2, len(sizes), (3.1, 3.0), sharex="all", sharey="row")
    for column, size in enumerate(sizes):
        here = _families([c for c, _ in lines if _memory(c) == size])
        for row, measure in enumerate(MEASURES):
            for number, (line, points) in enumerate(here.items()):
                ranked = sorted(points, key=_reach)
                shift = 1 + 0.03 * (number - (len(here) - 1) / 2)
                spots = [place[c.horizon] * shift for c in ranked]
                _errorbar(panels[row, column], spots, [values[id(c), measure] for c in ranked], 100, line)
            _gap_frame(panels[row, column], place, lines[0][0])
        panels[0, column].set_title(_size_name([c for c, _ in lines], size), fontsize=10)
        panels[1, column].set_xlabel("horizon (layer events)")
    for row, measure in enumerate(MEASURES):
        panels[row, 0].set_ylabel(f"gap captured in {measure} (%)")
    heading = (
        f"{title} · {SCOPES.get(scope, scope)}\ngap captured against horizon: 0 % best history policy, 100 % oracle"
    )
    return _finish(figure, panels, heading, configurations)


def where_time_goes(configurations: Sequence[Configuration], title: str) -> Figure | None:
    """The parts of a step's time per policy as stacked bars, a column of panels per memory size."""
    shown = farthest(configurations)
    parts = [part for part in (*PARTS, "idle") if any(np.nansum(c.values(f"{part}_ns")) > 0 for c in shown)]
    if not parts:
        return None
    sizes = sorted({_memory(c) for c in shown})
    names = list(dict.fromkeys(_bar_name(c) for scope in _scopes(shown) for c in shown if c.scope == scope))
    figure, panels = _panels(1, len(sizes), (3.1, 0.9 + 0.24 * len(names)), sharey="all")
    for panel, size in zip(panels[0], sizes, strict=True):
        here = [c for c in shown if _memory(c) == size]
        _draw_bars(panel, {names.index(_bar_name(c)): c for c in here}, parts)
        resident = np.mean([c.values("bound_resident_ns") / c.values("steps") for c in here]) / 1e6
        if resident > 0:
            panel.axvline(resident, color="#000000", linestyle=":", linewidth=1.2, label="all experts resident")
        panel.set_title(_size_name(here, size), fontsize=10)
        panel.set_xlabel("ms per step")
    panels[0, 0].set_yticks(range(len(names)), names)
    panels[0, 0].set_ylim(len(names) - 0.4, -0.6)
    return _finish(figure, panels, f"{title}\nwhere a step's time goes (each panel has its own scale)", configurations)


def _draw_bars(panel: Axes, rows: dict[int, Configuration], parts: Sequence[str]) -> None:
    left = np.zeros(len(rows))
    for part in parts:
        widths = np.array([_part_ms(c, part) for c in rows.values()])
        panel.barh(list(rows), widths, left=left, color=PART_COLOURS[part], label=PART_NAMES[part], height=0.75)
        left += widths
    panel.set_axisbelow(True)
    panel.grid(axis="y", visible=False)


def _reach(c: Configuration) -> float:
    return -1.0 if math.isnan(c.horizon) else c.horizon


def _scopes(configurations: Iterable[Configuration]) -> list[str]:
    return sorted({c.scope for c in configurations}, key=lambda scope: (scope != "layer", scope))


def _families(configurations: Iterable[Configuration]) -> dict[Family, list[Configuration]]:
    found: dict[Family, list[Configuration]] = {}
    for c in configurations:
        found.setdefault(family(c), []).append(c)
    return found


def _memory(c: Configuration) -> float:
    """The cache's size on an axis: experts a layer where that is given, else GB."""
    slots = text(c.value("slots"))
    return float(slots) if slots else float(text(c.value("bytes")) or "nan") / 1e9


def _memory_label(configurations: Sequence[Configuration]) -> str:
    return "cache size (experts a layer)" if text(configurations[0].value("slots")) else "cache size (GB)"


def _size_name(configurations: Sequence[Configuration], size: float) -> str:
    unit = "experts a layer" if text(configurations[0].value("slots")) else "GB"
    return f"cache: {size:g} {unit}"


def _name(line: Family) -> str:
    cache, level, options = line
    return " ".join(filter(None, (cache, "" if level == "history" else level, options)))


def _bar_name(c: Configuration) -> str:
    return f"{c.policy.replace(UNLIMITED, '∞')}, {c.scope}"


def _part_ms(c: Configuration, part: str) -> float:
    return float(np.mean(c.values(f"{part}_ns") / c.values("steps"))) / 1e6


def _style(line: Family) -> dict[str, Any]:
    colour, marker = KNOWN.get(line) or OTHERS[sum(map(ord, _name(line))) % len(OTHERS)]
    return {
        "color": colour,
        "marker": marker,
        "markersize": 9 if marker == "*" else 5,
        "linestyle": "--" if line[1] == "oracle" else "-",
    }


def _draw_means(panel: Axes, points: list[Configuration], measure: str, scale: float, line: Family) -> None:
    ranked = sorted(points, key=_memory)
    _errorbar(panel, [_memory(c) for c in ranked], [compare.mean(c.values(measure)) for c in ranked], scale, line)


def _errorbar(panel: Axes, places: list[float], found: list[compare.Interval], scale: float, line: Family) -> None:
    value = np.array([i.value for i in found]) * scale
    limits = np.array([[i.value - i.low, i.high - i.value] if i.bounded else [0, 0] for i in found]).T * scale
    panel.errorbar(places, value, yerr=limits, label=_name(line), elinewidth=0.8, linewidth=1.4, **_style(line))


def _draw_bound(panel: Axes, here: list[Configuration], measure: str, name: str, dashes: Any) -> None:
    sizes = {_memory(c): c.mean(measure) / 1e6 for c in here}
    places = sorted(size for size, value in sizes.items() if not math.isnan(value))
    if places:
        panel.plot(
            places, [sizes[size] for size in places], color="#444444", linestyle=dashes, linewidth=1.4, label=name
        )


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


def _whole_ticks(panels: np.ndarray, shown: Sequence[Configuration]) -> None:
    sizes = sorted({_memory(c) for c in shown})
    for panel in panels.flat:
        panel.set_xticks(sizes, [f"{size:g}" for size in sizes])


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
