"""The table of an untimed replay, for a person: a column per policy and scope, a row per cache size, or across."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from moesim.analysis.layout import significant, wrapped

Row = dict[str, Any]
Column = tuple[str, str, str]
UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
TARGETS = (50, 80, 90, 95)
WIDE = 12
"""columns of policies beyond which each is a row instead"""


def render(found: dict[str, Any], width: int = 100) -> str:
    """One trace's document (`moesim cache --json`) as text."""
    rows: list[Row] = found["rows"]
    columns, same = columns_of(rows)
    lines = [*_head(found, width), ""]
    lines += _block("decode hits (%)", rows, columns, lambda row: _number(row["decode_hit_pct"]), width, best=True)
    if found["key_bytes_known"]:
        unit = "loaded per output token (MiB)"
        lines += _block(unit, rows, columns, lambda row: _significant(row["bytes_per_token"], 2**20), width)
    else:
        unit = "misses per output token (keys)"
        lines += _block(unit, rows, columns, lambda row: _significant(row["misses_per_token"]), width)
    if any(row["prompt_hits"] for row in rows):
        lines += _block("prompt hits (%)", rows, columns, lambda row: _number(row["prompt_hit_pct"]), width)
    return "\n".join([*lines, *_notes(found, rows, columns, same, width)]) + "\n"


def columns_of(rows: Sequence[Row]) -> tuple[list[Column], bool]:
    """(policy, scope, room) in order; room `event` is left out (True) where it changes nothing."""
    found: dict[Column, list[Row]] = {}
    for row in rows:
        found.setdefault((row["policy"], row["scope"], row["room"]), []).append(row)
    kept: list[Column] = []
    same = False
    for (policy, scope, room), mine in sorted(found.items(), key=lambda pair: pair[0][2] != "strict"):
        others = [found[(policy, scope, other)] for p, scope_of, other in kept if (p, scope_of) == (policy, scope)]
        if any(_hits(mine) == _hits(other) for other in others):
            same = True
        else:
            kept.append((policy, scope, room))
    return sorted(kept, key=lambda c: (c[1] != "global", c[2] == "event" and c[1] == "layer")), same


def size_text(number: float) -> str:
    """Bytes with a binary unit."""
    factor, unit = next(((f, u) for f, u in UNITS if number >= f), (1, "B"))
    return f"{significant(number / factor)} {unit}"


def _hits(rows: Sequence[Row]) -> list[tuple[int, int]]:
    return [(row["prompt_hits"], row["decode_hits"]) for row in rows]


def _head(found: dict[str, Any], width: int) -> list[str]:
    unit = f"{found['keys']:,} keys" + (f", {size_text(found['all_bytes'])}" if found["key_bytes_known"] else "")
    router = f"{found['router']} router, {found['layers']} layers of {found['experts']} experts, k = {found['k']}"
    order = "each layer event at once" if found["order"] == "event" else "key by key"
    start = "cache warmed by the prompts" if found["start"] == "warm" else "cold: prompts are left out"
    between = "kept between sequences" if found["between"] == "keep" else "emptied before each sequence"
    tokens = f"{found['decode_tokens']:,} output tokens in {found['sequences']:,} sequences, each alone"
    title = [f"{found['trace']}: {found['model']} ({found['label']})", router, unit]
    return [*wrapped(title, width), *wrapped([tokens, order, start, between], width)]


def _block(
    title: str,
    rows: Sequence[Row],
    columns: Sequence[Column],
    cell: Callable[[Row], str],
    width: int,
    best: bool = False,
) -> list[str]:
    """A table of one quantity; as many of its columns beside each other as fit."""
    by_place = {(r["capacity"], (r["policy"], r["scope"], r["room"])): r for r in rows}
    sizes = list(dict.fromkeys(row["capacity"] for row in rows))
    cells = {}
    for size in sizes:
        here = {c: by_place[size, c] for c in columns if (size, c) in by_place}
        winner = _winner(list(here.values())) if best else None
        for c, row in here.items():
            cells[size, c] = cell(row) + (_mark(row, winner) if best else "")
    heads = {c: (c[0] + ("!" if by_place[sizes[0], c]["oracle"] else ""), _scope(c)) for c in columns}
    if len(columns) > WIDE:
        return [title, *_lying(columns, sizes, cells, heads), ""]
    left = max(len("size"), *(len(size) for size in sizes))
    widths = {c: max(*map(len, heads[c]), *(len(cells.get((size, c), "")) for size in sizes)) for c in columns}
    lines = [title]
    for group in _groups(columns, widths, width - left):
        for part, name in ((0, "size"), (1, "")):
            lines.append(name.ljust(left) + "".join("  " + heads[c][part].rjust(widths[c]) for c in group))
        for size in sizes:
            line = size.rjust(left) + "".join("  " + cells.get((size, c), "").rjust(widths[c]) for c in group)
            lines.append(line.rstrip())
        lines.append("")
    return lines


def _lying(
    columns: Sequence[Column], sizes: Sequence[str], cells: dict[tuple[str, Column], str], heads: dict[Column, Any]
) -> list[str]:
    """A row per policy and scope, a column per size: for many policies."""
    names = {c: f"{heads[c][0]} {heads[c][1]}" for c in columns}
    left = max(len(name) for name in names.values())
    widths = {size: max(len(size), *(len(cells.get((size, c), "")) for c in columns)) for size in sizes}
    lines = [" " * left + "".join("  " + size.rjust(widths[size]) for size in sizes)]
    for c in columns:
        line = names[c].ljust(left) + "".join("  " + cells.get((size, c), "").rjust(widths[size]) for size in sizes)
        lines.append(line.rstrip())
    return lines


def _groups(columns: Sequence[Column], widths: dict[Column, int], room: int) -> list[list[Column]]:
    groups: list[list[Column]] = [[]]
    for column in columns:
        if groups[-1] and sum(widths[c] + 2 for c in [*groups[-1], column]) > room:
            groups.append([])
        groups[-1].append(column)
    return groups


def _scope(column: Column) -> str:
    return column[1] + ("+" if column[2] == "event" and column[1] == "layer" else "")


def _winner(rows: Sequence[Row]) -> float | None:
    """The best share of hits among policies that do not know the future and stay within the size."""
    fair = [row["decode_hit_pct"] for row in rows if not row["oracle"] and row["room"] == "strict"]
    return max((value for value in fair if value is not None), default=None)


def _mark(row: Row, winner: float | None) -> str:
    if row["peak"] > row["amount"]:
        return "+"
    fair = not row["oracle"] and row["room"] == "strict"
    return "*" if fair and winner is not None and row["decode_hit_pct"] == winner else " "


def _notes(found: dict[str, Any], rows: Sequence[Row], columns: Sequence[Column], same: bool, width: int) -> list[str]:
    notes = []
    oracles = any(row["oracle"] for row in rows)
    if oracles:
        exact = found["equal_sizes"] or all(row["counted"] for row in rows)
        notes.append("! knows the future" + ("" if exact else " (no strict bound: keys differ in size)"))
    notes.append(f"* the best of those that {'do not, and ' if oracles else ''}hold no more than the size")
    if any(row["peak"] > row["amount"] for row in rows):
        notes.append("+ held more than the size: a layer event's own keys are never cut (room: event)")
    if same:
        notes.append("global caches are the same in both rooms")
    cycle = found["cycle"]
    size = f", {size_text(cycle['bytes'])}" if found["key_bytes_known"] else ""
    notes.append(f"an output token uses {cycle['keys']:.0f} keys{size}; a global LRU smaller than that hits nothing")
    if found["start"] == "warm" and not any(row["prompt_hits"] for row in rows):
        notes.append("prompts hit nothing")
    return [*wrapped(notes, width), *_answers(rows, columns, width)]


def _answers(rows: Sequence[Row], columns: Sequence[Column], width: int) -> list[str]:
    """The smallest of the sizes that reaches a share of hits, for the best honest policy and for MIN."""
    honest = [row for row in rows if not row["oracle"] and row["room"] == "strict"]
    oracle = [row for row in rows if row["policy"] == "min"]
    parts = []
    for target in TARGETS:
        mine, bound = _least(honest, target), _least(oracle, target)
        if mine is not None:
            text = f"{target} %: {mine['capacity']} ({mine['policy']} {mine['scope']})"
            parts.append(text + (f", MIN {bound['capacity']}" if bound else ""))
    return wrapped([f"least size for decode hits of {parts[0]}", *parts[1:]], width) if parts else []


def _least(rows: Sequence[Row], target: float) -> Row | None:
    enough = [row for row in rows if row["decode_hit_pct"] is not None and row["decode_hit_pct"] >= target]
    return min(enough, key=lambda row: (row["amount"], -row["decode_hit_pct"]), default=None)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _significant(value: float | None, unit: float = 1.0) -> str:
    return significant(math.nan if value is None else value / unit)
