"""The figure of the best split of GPU memory: time per output token against a size of memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moesim.analysis import compare, drawing, palette
from moesim.analysis.configurations import BUDGET, TIME, Configuration, best, deployable, size_text, text
from moesim.analysis.figures import SCOPES, farthest
from moesim.analysis.gap import paired
from moesim.analysis.layout import DOT, wrapped
from moesim.analysis.naming import Set, distinctions, in_words, set_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OWN = ("memory.slots", "memory.bytes", "memory.share")
"""the cache's size alone: more is better and has a figure of its own, but where KV memory gets what it leaves"""
GIGABYTES = {"memory.gpu": BUDGET, "memory.bytes": "bytes", "memory.kv.bytes": "kv_bytes"}
"""axes whose values may have a unit, and columns of their bytes"""
ROW = 3  # panels
WIDE = 44  # letters above a panel
LOGARITHMIC = 10  # the largest of an axis is at least so many times its smallest
FEWEST = 3  # sizes of an axis, for an optimum to lie between two others
BELOW = "ringed: each policy's best; filled: not shown to be slower than that (paired 95 % interval of the difference)"


def axes_of(configurations: Sequence[Configuration]) -> list[str]:
    """Numeric axes of the memory section on which a best place may lie, in the order of the file."""
    names = dict.fromkeys(str(name) for c in configurations for name in c.runs.columns)
    found = [name for name in names if name.startswith("memory.") and not name.endswith(".label")]
    return [name for name in found if len({_place(c, name) for c in _along(configurations, name)}) >= FEWEST]


def against_memory(configurations: Sequence[Configuration]) -> Iterator[tuple[str, Figure]]:
    """A name and a figure for each such axis: a panel for what differs but in it and in the policy, a line a policy."""
    for axis in axes_of(configurations):
        sets: dict[Set, list[Configuration]] = {}
        for c in _along(configurations, axis):
            dropped = (axis, BUDGET if axis == "memory.gpu" else "")
            sets.setdefault(tuple(pair for pair in set_of(c) if pair[0] not in dropped), []).append(c)
        panels: dict[str, list[Configuration]] = {}
        for key, members in sets.items():
            for c in members:
                title = DOT.join([*distinctions(key, list(sets)), *_beside(c, members, axis)])
                panels.setdefault(title, []).append(c)
        shown = {title: here for title, here in panels.items() if len({_place(c, axis) for c in here}) > 1}
        yield axis.replace(".", "-"), _draw(shown, axis)


def _along(configurations: Sequence[Configuration], axis: str) -> list[Configuration]:
    budget = [c for c in configurations if axis not in OWN or text(c.value(BUDGET))]
    return [c for c in budget if not math.isnan(_place(c, axis))]


def _place(c: Configuration, axis: str) -> float:
    if axis in GIGABYTES:
        return c.mean(GIGABYTES[axis]) / 1e9 if text(c.value(axis)) else math.nan
    try:
        return float(c.value(axis))
    except (TypeError, ValueError):  # no such axis here, or one of words
        return math.nan


def _beside(c: Configuration, members: Sequence[Configuration], axis: str) -> list[str]:
    """The other memory axes in words, where the set has several values."""
    others = [str(k) for k in c.runs.columns if str(k).startswith("memory.") and k not in (axis, "memory.scope")]
    named = [in_words(k, text(c.value(k))) for k in others if len({text(o.value(k)) for o in members}) > 1]
    return [*named, *[SCOPES.get(c.scope, c.scope)] * (len({o.scope for o in members}) > 1)]


def _draw(shown: Mapping[str, Sequence[Configuration]], axis: str) -> Figure:
    everyone = [c for here in shown.values() for c in here]
    columns = min(ROW, len(shown))
    rows = -(-len(shown) // columns)
    figure, panels = drawing.panels_of(rows, columns, (3.6, 3.0), 1.6)
    wide = max(_spread([_place(c, axis) for c in here]) for here in shown.values()) >= LOGARITHMIC
    for panel, (title, here) in zip(panels.flat, shown.items(), strict=False):
        _draw_panel(panel, farthest(here), everyone, axis)
        panel.set_title("\n".join(wrapped(title.split(DOT), WIDE, indent="")), fontsize=9)
        if wide:
            ticks = _ticks([_place(c, axis) for c in here])
            panel.set_xscale("log")
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.set_xticks([], minor=True)
    for panel in panels.flat[len(shown) :]:
        panel.remove()
    for panel in panels[:, 0]:
        panel.set_ylabel("time per output token (ms)")
    used = panels.reshape(-1, 1)[: len(shown)]
    return drawing.finish(figure, used, (f"time against {_name(axis)}", BELOW), everyone, drawing.BANDS)


def _spread(values: Sequence[float]) -> float:
    return max(values) / min(values) if min(values) > 0 else 0.0


def _ticks(values: Sequence[float]) -> list[float]:
    """1, 2, 3 and 5 of each decade that the values reach."""
    least = math.floor(math.log10(min(values)))
    ticks = [digit * 10.0**power for power in range(least, least + 8) for digit in (1, 2, 3, 5)]
    return [tick for tick in ticks if min(values) * 0.99 <= tick <= max(values) * 1.01]


def _name(axis: str) -> str:
    words = axis.removeprefix("memory.").replace(".", " ").replace("kv", "KV").replace("gpu", "GPU")
    return f"{words} (GB)" if axis in GIGABYTES else words


def _draw_panel(panel: Axes, here: Sequence[Configuration], everyone: Sequence[Configuration], axis: str) -> None:
    for line, style in palette.styles(everyone).items():
        points = sorted((c for c in here if palette.family(c) == line), key=lambda c: _place(c, axis))
        if points:
            _draw_line(panel, points, axis, palette.name(line), style)
    panel.set_ylim(0)
    panel.set_xlabel(_name(axis))
    first = best(deployable(here), TIME)  # of those that know no future
    if first is not None:
        panel.set_xlabel(f"{_name(axis)}\nfastest: {_place(first, axis):g} ({size_text(first)})", fontsize=8)


def _draw_line(panel: Axes, points: Sequence[Configuration], axis: str, name: str, style: dict[str, Any]) -> None:
    places = [_place(c, axis) for c in points]
    means = [compare.mean(c.values(TIME) * 1e-6) for c in points]
    drawing.band(panel, places, means, label=name, **style)
    top = best(points, TIME)
    if top is None:
        return
    marker: dict[str, Any] = {"color": style["color"], "marker": style["marker"], "linestyle": "none"}
    for c, place, mean in zip(points, places, means, strict=True):
        ours, least = paired((c, top), TIME)
        worse = compare.difference(ours, least)
        shown = worse.excludes(0) and worse.value > 0
        panel.plot([place], [mean.value], markersize=5, markerfacecolor="white" if shown else None, **marker)
    at = points.index(top)
    ring: dict[str, Any] = {"color": style["color"], "marker": "o", "fillstyle": "none", "linestyle": "none"}
    panel.plot([places[at]], [means[at].value], markersize=13, **ring)
