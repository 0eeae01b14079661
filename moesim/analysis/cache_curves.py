"""The curve of an untimed replay: decode hits against cache size, a panel per scope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moesim.analysis import palette
from moesim.analysis.cache_table import Row, columns_of
from moesim.analysis.drawing import LETTERS, panels_of
from moesim.analysis.layout import wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCOPES = {"layer": "one cache per layer", "global": "one cache for all layers"}
OFFLINE = {"min": ("#000000", "*"), "min-bypass": ("#444444", "P")}
DASHES = {"strict": "-", "event": ":"}
HOLLOW = "hollow: never below an event's own keys"


def curves(found: dict[str, Any]) -> Figure | None:
    """The figure of one trace's document (`moesim cache --json`); None where there is one size only."""
    rows: list[Row] = found["rows"]
    if len({row["capacity"] for row in rows}) < 2:
        return None
    columns, _ = columns_of(rows)
    scopes = [scope for scope in ("global", "layer") if any(c[1] == scope for c in columns)]
    figure, panels = panels_of(1, len(scopes), (4.4, 3.2), 1.8, sharey="all")
    looks = looks_of(rows)
    places, unit = _places(rows, found)
    for panel, scope in zip(panels[0], scopes, strict=True):
        for policy, _, room in (c for c in columns if c[1] == scope):
            mine = [r for r in rows if (r["policy"], r["scope"], r["room"]) == (policy, scope, room)]
            _line(panel, mine, places, looks[policy], room)
        panel.set_title(SCOPES[scope], fontsize=10)
        panel.set_xlabel(f"cache size ({unit})")
        panel.set_ylim(0, 100)
        panel.set_xlim(left=0)
    panels[0, 0].set_ylabel("decode hits (%)")
    handles = {label: h for p in panels[0] for h, label in zip(*p.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside right center", fontsize=8, frameon=False)
    title = [f"{found['model']} ({found['label']})", "decode hits of an untimed replay, each sequence alone"]
    lines = wrapped(title, int(figure.get_figwidth() * LETTERS))
    figure.suptitle("\n".join(lines), fontsize=11, x=0.01, horizontalalignment="left")
    return figure


def looks_of(rows: list[Row]) -> dict[str, dict[str, Any]]:
    """How each policy is drawn."""
    known = {line[0]: look for line, look in palette.KNOWN.items() if line[1] == "history"} | OFFLINE
    spare = iter([*palette.OTHERS, *palette.KNOWN.values()] * 10)
    looks = {}
    for policy in dict.fromkeys(row["policy"] for row in rows):
        colour, marker = known.get(policy) or next(spare)
        looks[policy] = {"color": colour, "marker": marker, "markersize": 8 if marker == "*" else 4.5}
    return looks


def _places(rows: list[Row], found: dict[str, Any]) -> tuple[dict[str, float], str]:
    """Where each size stands on the axis, and its unit."""
    if all(row["counted"] for row in rows):
        return {row["capacity"]: row["amount"] for row in rows}, "experts"
    if found["key_bytes_known"] and not any(row["counted"] for row in rows):
        return {row["capacity"]: row["amount"] / 2**30 for row in rows}, "GiB"
    whole = {True: found["keys"], False: found["all_bytes"]}
    return {row["capacity"]: 100 * row["amount"] / whole[row["counted"]] for row in rows}, "% of all keys"


def _line(panel: Axes, rows: list[Row], places: dict[str, float], look: dict[str, Any], room: str) -> None:
    there = [row for row in rows if row["decode_hit_pct"] is not None]
    points = sorted((places[row["capacity"]], row["decode_hit_pct"]) for row in there)
    if not points:
        return
    dashes = "--" if rows[0]["oracle"] else DASHES[room]
    label = rows[0]["policy"] + (" (knows the future)" if rows[0]["oracle"] else "")
    if room == "event":
        look = look | {"markerfacecolor": "none"}
        label = HOLLOW
    panel.plot(*zip(*points, strict=True), label=label, linestyle=dashes, linewidth=1.4, **look)
