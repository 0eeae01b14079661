"""How far a table's interpolation is off at points that were measured and left out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from moesim.hardware.grid import Grid

Point = tuple[int, ...]
DIGITS = 5


def left_out(
    axes: dict[str, list[int]], ns: Sequence[int], measured: Mapping[Point, int], again: Sequence[float] = ()
) -> dict[str, object] | None:
    """Errors of interpolation relative to what was measured, as a table holds them (`LeftOut`); None without points.

    axes, ns: the grid in row-major order; measured: point, within the grid -> ns; again: by how much, relatively, grid
    points differed when they were measured a second time.
    """
    grid = Grid("", "", axes, list(ns))
    errors = {point: abs(grid.at(point) - true) / max(1, true) for point, true in measured.items()}
    if not errors:
        return None
    ranked = sorted(errors.values())
    worst = max(errors, key=lambda point: errors[point])
    found: dict[str, object] = {
        "points": len(errors),
        "median": round(percentile(ranked, 0.5), DIGITS),
        "p90": round(percentile(ranked, 0.9), DIGITS),
        "largest": round(ranked[-1], DIGITS),
        "worst": dict(zip(axes, worst, strict=True)),
    }
    return found | ({"again": round(percentile(sorted(again), 0.5), DIGITS)} if again else {})


def between(axes: dict[str, list[int]], most: int = 8) -> list[Point]:
    """At most `most` points between those of a grid: of each axis the middle of a gap, spread over its range.

    Middles are geometric, where a grid of doubling points is as far from both neighbours as it can be. Of an axis that
    has no gaps the points of the grid are taken; where none has any there is nothing to leave out.
    """
    if not any(map(_middles, axes.values())):
        return []
    middles = [_middles(points) or points for points in axes.values()]
    longest = max(len(values) for values in middles)
    count = min(most, longest)
    picked = [round(i * (longest - 1) / max(1, count - 1)) for i in range(count)]
    # Axes turn at different speeds, so that not all points lie on the diagonal.
    turned = [tuple(v[(at * (2 * axis + 1) + axis) % len(v)] for axis, v in enumerate(middles)) for at in picked]
    return list(dict.fromkeys(turned))


def _middles(points: Sequence[int]) -> list[int]:
    """A whole number between each two points that have one."""
    found = [(low, round((max(low, 1) * high) ** 0.5), high) for low, high in pairwise(points)]
    return [at for low, at, high in found if low < at < high]


def percentile(ranked: Sequence[float], share: float) -> float:
    """The value below which `share` of `ranked` (sorted, one or more) lies."""
    at = share * (len(ranked) - 1)
    low = int(at)
    return ranked[low] + (ranked[min(low + 1, len(ranked) - 1)] - ranked[low]) * (at - low)
