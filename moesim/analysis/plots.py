"""Writes the figures of an experiment as PNG and SVG, byte for byte the same for the same results."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim.analysis import figures, horizon, largest, latency, overview, ranking, splits
from moesim.analysis.configurations import Configuration, read, summary_of
from moesim.analysis.layout import DOT
from moesim.analysis.naming import Set, distinctions, heading, sets
from moesim.analysis.searched import largest_of
from moesim.analysis.sweep import Sweep, searches, sweeps
from moesim.files import write_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Drawn = tuple[str, Figure | None, str]

SCHEDULES = {"frozen": "frozen schedule", "free": "free schedule"}
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "moesim",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "figure.dpi": 100,
    "savefig.dpi": 150,
}
METADATA = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def save_all(results: Any, folder: Path | str, note: Callable[[str], object] | None = None) -> list[Path]:
    """Draw every figure that the results have data for into `folder`; give the files' paths.

    `results` is a summary or has one. One set of figures for each combination of what groups have in common but
    memory (case, traffic, prefetcher, batcher ...). `note` is told of each figure that is left out, and why;
    without it the log is.
    """
    import matplotlib

    say = note or logging.getLogger(__name__).info
    paths: list[Path] = []
    with matplotlib.rc_context(STYLE):
        for name, drawn, missing in _figures(read(summary_of(results))):
            if drawn is None:
                say(f"no figure {name}: {missing}")
            else:
                paths += save(drawn, Path(folder), name)
    return paths


def all_figures(results: Any) -> dict[str, Figure]:
    """The same figures by name, for a notebook. `results` is a summary or has one."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return {name: drawn for name, drawn, _ in _figures(read(summary_of(results))) if drawn is not None}


def _figures(configurations: Sequence[Configuration]) -> Iterator[Drawn]:
    """Name, figure and what is missing when there is none, of every figure."""
    yield from over_loads(configurations)
    found = sets(by_themselves(configurations))
    if len(found) > 1:
        yield across(found)
    yield from along_memory(found)
    for key, members in found.items():
        yield from of_set(key, list(found), members)


def by_themselves(configurations: Sequence[Configuration]) -> list[Configuration]:
    """Those with figures of their own: a sweep has its together, a search is of many loads."""
    together = {c for sweep in sweeps(configurations) if len(sweep.loads) > 2 for c in sweep.configurations}
    return [c for c in configurations if c not in together and not largest_of([c])]


def over_loads(configurations: Sequence[Configuration]) -> Iterator[Drawn]:
    """The figures against the load, and of the largest load that was found."""
    yield from _swept(sweeps(configurations))
    yield from _largest(configurations)


def across(found: dict[Set, list[Configuration]]) -> Drawn:
    """The figure that has all sets in it."""
    by_title = {DOT.join(distinctions(key, list(found))): members for key, members in found.items()}
    return "cases", overview.across_sets(by_title), "no time of a history policy, of another or of an oracle"


def along_memory(found: dict[Set, list[Configuration]]) -> Iterator[Drawn]:
    """The figures against sizes of memory, with all sets that have them."""
    for axis, drawn in splits.against_memory([c for members in found.values() for c in members]):
        yield axis, drawn, ""


def of_set(key: Set, keys: Sequence[Set], members: Sequence[Configuration]) -> Iterator[Drawn]:
    """The figures of one of several sets."""
    name, title = _names(key, keys)
    if any(c.whole for c in members):
        yield f"{name}-ranking", ranking.ranking(members, title), "neither presets nor batchers"
        yield f"{name}-time", figures.where_time_goes(members, title), "no parts of a step's time"
        return
    if not splits.axes_of(members):  # where it has that figure, the cache's size is not all that changes
        yield f"{name}-slots", figures.against_slots(members, title), "the cache has one size only"
    yield f"{name}-horizon", horizon.against_horizon(members, title), "no gap captured at two horizons or more"
    yield f"{name}-time", figures.where_time_goes(members, title), "no parts of a step's time"


def _largest(configurations: Sequence[Configuration]) -> Iterator[Drawn]:
    searched = searches(configurations)
    keys = [sweep.key for sweep in searched]
    for sweep, key in zip(searched, keys, strict=True):
        name, title = _names(key, keys)
        yield f"{name}-largest", largest.largest_load(sweep, title), "no load was found"


def _swept(swept: Sequence[Sweep]) -> Iterator[Drawn]:
    keys = [sweep.key for sweep in swept]
    for sweep, key in zip(swept, keys, strict=True):
        name, title = _names(key, keys)
        yield f"{name}-latency", latency.against_load(sweep, title), "no latency at two loads or more"
        yield f"{name}-objective", latency.kept_against_load(sweep, title), "no objective"


def _names(key: Set, keys: Sequence[Set]) -> tuple[str, str]:
    """File name and title: the name is of what tells the set from others, the title has all that is not usual too."""
    slug = re.sub(r"[^a-z0-9]+", "-", " ".join(distinctions(key, keys)).lower()).strip("-")
    words = [word for word in heading(key, keys) if not word.startswith("schedule ")]
    return slug or "all", DOT.join(filter(None, [*words, SCHEDULES.get(dict(key).get("schedule", ""), "")]))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write one figure in every format; call it within `matplotlib.rc_context(STYLE)`, as the drawing."""
    paths = [folder / f"{name}.{kind}" for kind in METADATA]
    for path, (kind, metadata) in zip(paths, METADATA.items(), strict=True):
        with write_aside(path) as aside:
            figure.savefig(aside, format=kind, metadata=metadata)
    return paths
