"""The curves of an untimed replay on one axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moesim.analysis.axes import legend, plain_axes
from moesim.analysis.cache_curves import DASHES, looks_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

NAMES = {
    "decode_hit_pct": "decode hits (%)",
    "misses_per_token": "misses per output token (expert keys)",
    "mb_per_token": "loaded per output token (MB)",
}


def draw(frame: pd.DataFrame, document: dict[str, Any], column: str, ax: Axes | None) -> Axes:
    """`frame` has the rows of one trace's `document`; `column` is one of NAMES."""
    ax = plain_axes(ax)
    looks = looks_of(document["rows"])
    several = frame["scope"].nunique() > 1
    for (policy, scope, room), rows in frame.groupby(["policy", "scope", "room"], sort=False):
        rows = rows.dropna(subset=[column]).sort_values("experts_per_layer")
        look = {**looks[str(policy)], "linestyle": "--" if rows["oracle"].any() else DASHES[str(room)]}
        if several and scope == "layer":
            look["markerfacecolor"] = "white"
        future = " (knows the future)" if rows["oracle"].any() else ""
        name = f"{policy}{future}" + (f", {scope}" if several else "") + (" (event)" if room == "event" else "")
        ax.plot(rows["experts_per_layer"], rows[column], label=name, linewidth=1.4, **look)
    ax.set_xlim(left=0)
    ax.set_ylim(0, 100 if column == "decode_hit_pct" else None)
    scopes = {"layer": "one cache per layer", "global": "one cache for all layers"}
    title = scopes[frame["scope"].iloc[0]] if not several and len(frame) else ""
    ax.set_xlabel(f"cache size (experts a layer, of {document['experts']})")
    ax.set_ylabel(NAMES[column])
    return legend(ax, title)
