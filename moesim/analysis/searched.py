"""Configurations that have searched for their largest load: how they are recognised, and what the search has to say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moesim.analysis.configurations import Configuration

LARGEST = {
    "max_rate": "largest rate (requests/s)",
    "max_scale": "largest rate (times that of the file)",
    "max_concurrency": "most users",
}
LIMITS = {"ttft": "TTFT", "tpot": "TPOT", "e2e": "end-to-end"}
NOT_FOUND = {"even from fails": ("below", "failed"), "even to meets": ("above", "met")}


def largest_of(group: Sequence[Configuration]) -> str:
    """The column of the largest load, if the configurations of a group have searched for it; else nothing.

    Each run is at a load of its own, so that nothing else of them compares.
    """
    return next((name for name in LARGEST if any(_tried(c, name) for c in group)), "")


def _tried(c: Configuration, name: str) -> bool:
    load = name.removeprefix("max_")
    columns = (name, f"{load}_met", f"{load}_failed")
    return any(not math.isnan(value) for column in columns for value in c.values(column))


def not_found(c: Configuration, column: str) -> str:
    """`below 0.5 in 2 of 4 replications`, or nothing."""
    told = []
    for outcome, (side, end) in NOT_FOUND.items():
        runs = c.runs[c.runs["search_outcome"] == outcome]
        if len(runs):
            limit = float(runs[f"{column.removeprefix('max_')}_{end}"].iloc[0])
            of = f" in {len(runs)} of {len(c.runs)} replications" if len(c.runs) > 1 else ""
            told.append(f"{side} {limit:g}{of}")
    return "; ".join(told)


def promise(c: Configuration) -> str:
    """The objective in words: `90 % of the requests keep TTFT 2 s, TPOT 200 ms`."""
    limits = {name: c.mean(f"objective_{name}_s") for name in LIMITS}
    kept = [f"{LIMITS[name]} {_seconds(limit)}" for name, limit in limits.items() if not math.isnan(limit)]
    return f"{c.mean('objective_share') * 100:.0f} % of the requests keep {', '.join(kept)}"


def _seconds(limit: float) -> str:
    return f"{limit:g} s" if limit >= 1 else f"{limit * 1000:g} ms"
