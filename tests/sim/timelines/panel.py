"""One panel of a timeline: where its bars, names, ticks and marks go, from the top down."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tests.sim.timelines.looks import (
    GAP,
    LEFT,
    LETTER,
    LOOKS,
    MARK_LETTER,
    MARKS,
    RIGHT,
    ROW,
    TICKS,
    TITLE,
    WIDTH,
)
from tests.sim.timelines.timeline import Bar, Mark, Panel


@dataclass(frozen=True)
class Box:
    """A bar at its place: `top` and `height` in inches, from the panel's top; `loaded` is when its copy is over."""

    bar: Bar
    top: float
    height: float
    loaded: int | None = None


class Drawing:
    """One panel, from the top down."""

    def __init__(self, panel: Panel, first: float, end: int) -> None:
        self.panel = panel
        self.first, self.end = first, end
        """of the axis of time"""
        self.last = max(bar.end or 0 for lane in ("stream", "link") for bar in panel.lane(lane))
        self.scale = (WIDTH - LEFT - RIGHT) / (end * 1.005 - self.first)
        """inches a nanosecond"""
        self.title = textwrap.wrap(panel.title[0].upper() + panel.title[1:], 108)
        self.down = self.top = 0.05 + TITLE * len(self.title)
        self.boxes: list[Box] = []
        self.names: list[tuple[float, float, str]] = []
        """middle and height of a lane, and its name"""
        self.marks: list[tuple[int, float, str]] = []
        """instant, foot of its tick, text"""
        events = panel.events
        asked = [event for event in events if event.what == "asked"]
        self._lane("host", "host", [(e.at, "asked") for e in asked])
        self._lane("stream", "GPU", [])
        self._lane("link", "link", _together([e for e in events if e not in asked]))
        self._memory()
        self._lane("router", "router", [])
        self.bottom = self.down

    def _lane(self, lane: str, name: str, marks: list[tuple[int, str]]) -> None:
        bars = self.panel.lane(lane)
        if not bars and not marks:
            return
        row = ROW if bars or lane == "link" else 0.0
        if marks:
            self.marks += [(at, self.down + MARKS, text) for at, text in marks]
            self.down += MARKS
        self.names.append((self.down + row / 2, row, name) if row else (self.down - MARKS / 2, MARKS, name))
        self.boxes += [Box(bar, self.down, row) for bar in bars]
        self.down += row + GAP

    def _memory(self) -> None:
        """Keys at addresses of their own: the lowest that are free."""
        server = self.panel.server
        sizes = server.key_sizes or (server.key_bytes,) * (server.layers * server.experts)
        for name, kinds in (("cache", ("key", "cancelled")), ("staging", ("staged",))):
            bars = [bar for bar in self.panel.lane("cache") if bar.kind in kinds]
            if not bars:
                continue
            placed = _placed(bars, sizes)
            unit = 0.19 / max(min(sizes), 500)
            height = max(address + size for _, address, size in placed) * unit
            for bar, address, size in placed:
                self.boxes.append(Box(bar, self.down + address * unit, size * unit, self._loaded(bar)))
            self.names.append((self.down + height / 2, height, name))
            self.down += height + GAP

    def _loaded(self, bar: Bar) -> int | None:
        """When the copy of a key that was loaded within the window was over."""
        if bar.start is None or bar.kind == "cancelled":
            return bar.end if bar.kind == "cancelled" else None
        last = self.last if bar.end is None else bar.end
        chunks = [b for b in self.panel.lane("link") if b.keys == bar.keys and b.start is not None]
        return max(b.end or 0 for b in chunks if bar.start <= (b.start or 0) < last)

    @property
    def height(self) -> float:
        """Inches, with the numbers of the axis."""
        return self.bottom + TICKS

    @property
    def kinds(self) -> list[str]:
        """Kinds of its bars, in the order of the lanes."""
        return list(dict.fromkeys(box.bar.kind for box in self.boxes))

    @property
    def unnamed(self) -> list[str]:
        """Kinds of bars of which none has its name on it."""
        named = {box.bar.kind for box in self.boxes if self._name(box.bar) not in ("", box.bar.keys)}
        return [kind for kind in self.kinds if kind not in named]

    # -- onto the canvas ---------------------------------------------------------------------------------------

    def draw(self, axes: Axes) -> None:
        axes.set_xlim(self.first, self.end * 1.005)
        axes.set_ylim(self.bottom, 0)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        for line, text in enumerate(self.title):
            axes.text(self.first, 0.14 + TITLE * line, text, fontsize=8.5, va="baseline")
        for middle, height, name in self.names:
            ground = {"facecolor": "#F6F6F6", "edgecolor": "none", "zorder": 0}
            axes.add_patch(Rectangle((self.first, middle - height / 2), self.end * 1.01 - self.first, height, **ground))
            axes.annotate(
                name, (self.first, middle), (-6, 0), textcoords="offset points", ha="right", va="center", fontsize=8.5
            )
        self._ticks(axes)
        for box in self.boxes:
            self._box(axes, box)
        self._marks(axes)

    def _ticks(self, axes: Axes) -> None:
        ends = [end for _, end in self.panel.steps]
        lanes = (self.panel.steps, *(self._edges(lane) for lane in ("stream", "link", "host", "router")))
        chosen = _spaced((edge for lane in lanes for pair in lane for edge in pair), self.scale)
        axes.set_xticks(chosen, [f"{at}" for at in chosen], fontsize=7.5)
        axes.tick_params(length=2, pad=1.5)
        for label, at in zip(axes.get_xticklabels(), chosen, strict=True):
            label.set_fontweight("bold" if at in ends else "normal")
        for at in chosen:
            axes.plot([at, at], [self.top, self.bottom], color="#DDDDDD", linewidth=0.6, zorder=0)
        for at in ends:
            dashes: dict[str, Any] = {"linewidth": 0.9, "linestyle": (0, (3, 2)), "zorder": 3}
            axes.plot([at, at], [self.top, self.bottom], color="#444444", **dashes)

    def _edges(self, lane: str) -> list[tuple[int, int]]:
        return [(bar.start or 0, bar.end or 0) for bar in self.panel.lane(lane)]

    def _box(self, axes: Axes, box: Box) -> None:
        bar, look = box.bar, LOOKS[box.bar.kind]
        start, end = self._span(bar)
        fill: dict[str, Any] = {"facecolor": look.colour, "edgecolor": "white", "linewidth": 0.8}
        if look.wait:
            fill = {"facecolor": "white", "edgecolor": look.colour, "hatch": "////", "linewidth": 0.6}
        axes.add_patch(Rectangle((start, box.top), end - start, box.height, zorder=2, **fill))
        if box.loaded is not None:
            hatch = {"facecolor": "none", "edgecolor": "white", "hatch": "\\\\\\\\", "linewidth": 0}
            axes.add_patch(Rectangle((start, box.top), min(box.loaded, end) - start, box.height, zorder=2, **hatch))
        if name := self._name(bar):
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8} if look.wait else None
            colour = "black" if look.wait or _light(look.colour) else "white"
            middle = ((start + end) / 2, box.top + box.height / 2)
            place = {"ha": "center", "va": "center_baseline", "fontsize": 7.5, "zorder": 4}
            axes.text(*middle, name, color=colour, bbox=ground, **place)

    def _span(self, bar: Bar) -> tuple[float, float]:
        return self.first if bar.start is None else bar.start, self.last if bar.end is None else bar.end

    def _name(self, bar: Bar) -> str:
        """The longest of its names for which there is room, if there is any."""
        start, end = self._span(bar)
        names = [name.format(bar.keys) for name in LOOKS[bar.kind].names]
        return next((name for name in names if len(name) * LETTER + 0.04 <= (end - start) * self.scale), "")

    def _marks(self, axes: Axes) -> None:
        for number, (at, foot, text) in enumerate(self.marks):
            after = [m for m in self.marks[number + 1 :] if m[1] == foot]
            before = [m for m in self.marks[:number] if m[1] == foot]
            wide = self._wide(text)
            crowded = (after and at + wide > after[0][0]) or at + wide > self.end
            left = crowded and at - wide > (before[-1][0] + self._wide(before[-1][2]) if before else 0)
            axes.plot([at, at], [foot - MARKS + 0.03, foot + 0.02], color="black", linewidth=1.1, zorder=5)
            axes.annotate(
                text, (at, foot - MARKS / 2 + 0.01), (-3 if left else 3, 0), textcoords="offset points",
                ha="right" if left else "left", va="center", fontsize=7.5,
            )  # fmt: skip

    def _wide(self, text: str) -> float:
        """Nanoseconds that a mark's text takes on the axis."""
        return (len(text) * MARK_LETTER + 0.1) / self.scale


def _together(events: Sequence[Mark]) -> list[tuple[int, str]]:
    """Marks of one instant as one text: `demand 0, 1`."""
    found = []
    for at, of_instant in groupby(events, key=lambda e: e.at):
        words: dict[str, list[str]] = {}
        for event in of_instant:
            word, key = event.what.split()
            words.setdefault(word, []).append(key)
        found.append((at, "; ".join(f"{word} {', '.join(keys)}" for word, keys in words.items())))
    return found


def _placed(bars: list[Bar], sizes: Sequence[int]) -> list[tuple[Bar, int, int]]:
    """Bars with an address and a size; what starts later goes where room is by then."""
    placed: list[tuple[Bar, int, int]] = []
    for bar in sorted(bars, key=lambda b: -1 if b.start is None else b.start):
        start, size = -1 if bar.start is None else bar.start, sizes[int(bar.keys)]
        taken = sorted((a, a + s) for other, a, s in placed if other.end is None or other.end > start)
        address = 0
        for low, high in taken:
            if address + size <= low:
                break
            address = max(address, high)
        placed.append((bar, address, size))
    return placed


def _spaced(instants: Iterable[int], scale: float) -> list[int]:
    """Those that leave room for their numbers; the first come first."""
    chosen: list[int] = []
    for at in instants:
        if all(abs(at - other) * scale > 0.055 * len(str(max(at, other))) + 0.07 for other in chosen):
            chosen.append(at)
    return sorted(chosen)


def _light(colour: str) -> bool:
    red, green, blue = (int(colour[n : n + 2], 16) for n in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue > 140
