"""Colours, markers and names of the figures' lines and bars.

The colours are those of Okabe and Ito, which colour-blind people can tell apart; lines differ in their markers too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from moesim.analysis.configurations import Configuration
from moesim.analysis.metrics import PARTS

Family = tuple[str, str, str]
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
OTHERS = [("#7F4F24", ">"), ("#5E3C99", "h"), ("#B2182B", "p"), ("#1B7837", "X"), ("#762A83", "d"), ("#F0E442", "<")]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = ("o", "D", "s", "P", "^", "v", "*", "x")
PART_COLOURS = dict(
    zip(
        (*PARTS, "kv_stall", "idle"),
        ("#0072B2", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#999999", "#D55E00", "#E69F00", "#7F4F24", "#5E3C99",
         "#DDDDDD"),
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
    "cpu_stall": "stall: experts on the CPU",
    "kv_stall": "stall: KV memory",
    "idle": "idle",
}


def family(configuration: Configuration) -> Family:
    """Policy, level and other options: what a line of a figure is of; its points differ in memory or horizon."""
    if configuration.whole:
        return configuration.whole, configuration.level, ""
    return configuration.cache, configuration.level, " ".join(configuration.options)


def families(configurations: Iterable[Configuration]) -> dict[Family, list[Configuration]]:
    """The configurations by family, in the order of the file."""
    found: dict[Family, list[Configuration]] = {}
    for c in configurations:
        found.setdefault(family(c), []).append(c)
    return found


def name(line: Family) -> str:
    """A family in words; the level of an ordinary cache goes without saying."""
    cache, level, options = line
    return " ".join(filter(None, (cache, "" if level == "history" else level, options)))


def styles(configurations: Iterable[Configuration]) -> dict[Family, dict[str, Any]]:
    """How to draw each family: oracles dashed, policies without a colour of their own in order of appearance."""
    lines = list(families(configurations))
    spare = [line for line in lines if line not in KNOWN]
    looks = KNOWN | {line: OTHERS[place % len(OTHERS)] for place, line in enumerate(spare)}
    return {line: _style(*looks[line], oracle=line[1] == "oracle") for line in lines}


def _style(colour: str, marker: str, oracle: bool) -> dict[str, Any]:
    size = 9 if marker == "*" else 5
    return {"color": colour, "marker": marker, "markersize": size, "linestyle": "--" if oracle else "-"}
