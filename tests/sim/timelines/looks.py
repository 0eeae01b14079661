"""Sizes, colours and names of what timelines are drawn with; the colours are those of the other figures."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.analysis.palette import PART_COLOURS

LOOK = {
    "svg.hashsalt": "moesim",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 8,
    "hatch.linewidth": 0.7,
}
WIDTH, LEFT, RIGHT = 7.6, 0.62, 0.18
"""inches of the figure and its margins"""
TITLE, ROW, GAP, MARKS, TICKS, LEGEND = 0.165, 0.25, 0.09, 0.17, 0.24, 0.2
"""inches: a line of a title, a lane, between lanes, a line of marks, the numbers of the axis, the legend"""
LETTER, MARK_LETTER = 0.063, 0.058
"""inches: a letter of a bar's name, and of a mark's"""


@dataclass(frozen=True)
class Look:
    """Colour of a kind of bar, its names from long to short, and whether it is a wait (hatched)."""

    colour: str
    names: tuple[str, ...]
    wait: bool = False


DEMAND, PROMOTED, PREFETCH = PART_COLOURS["miss_stall"], PART_COLOURS["late_stall"], PART_COLOURS["gate"]
LOOKS = {
    "attention": Look(PART_COLOURS["attention"], ("attention", "att.")),
    "rest": Look(PART_COLOURS["rest"], ("rest",)),
    "sample": Look("#A9DBF5", ("sampling",)),
    "gate": Look(PART_COLOURS["gate"], ("gate",)),
    "router": Look(PART_COLOURS["router"], ("router",)),
    "experts": Look(PART_COLOURS["experts"], ("experts {}", "{}")),
    "host": Look("#777777", ("waits for host", "host"), wait=True),
    "miss stall": Look(DEMAND, ("stall: miss", "miss"), wait=True),
    "late stall": Look(PROMOTED, ("stall: late", "late"), wait=True),
    "demand": Look(DEMAND, ("demand {}", "{}")),
    "promoted": Look(PROMOTED, ("promoted {}", "{}")),
    "prefetch": Look(PREFETCH, ("prefetch {}", "{}")),
    "launch attention": Look("#999999", ("launch",)),
    "launch gate": Look("#999999", ("launch",)),
    "launch experts": Look("#999999", ("launch",)),
    "launch sample": Look("#999999", ("launch",)),
    "launch router": Look("#999999", ("launch",)),
    "submit": Look("#5E3C99", ("submit a copy", "submit")),
    "decide": Look("#1B7837", ("prefetcher decides", "decide")),
    "batch": Look("#7F4F24", ("form the batch", "batch")),
    "read back": Look("#444444", ("read back",)),
    "key": Look("#CFE3F1", ("key {}", "{}")),
    "staged": Look("#E4D7EC", ("key {}, staged", "{}")),
    "cancelled": Look("#F6D9C6", ("key {}, given up", "{}")),
    "route": Look(PART_COLOURS["router"], ("{} tokens", "{}")),
}
