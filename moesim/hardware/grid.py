"""Multilinear interpolation between the points of a measured grid."""

from __future__ import annotations

from bisect import bisect_right

from moesim.errors import InputError, Problem


class CostRangeError(InputError):
    """A cost was asked for outside the range that was measured.

    Attributes: component, axis, value, low, high (the range of that axis in the table).
    """

    def __init__(self, table: str, component: str, axis: str, value: int, low: int, high: int) -> None:
        self.component, self.axis, self.value, self.low, self.high = component, axis, value, low, high
        text = (
            f"{component} is tabulated for {axis} {low} to {high}, and {value} was asked for; use a cost table that "
            f"covers it, or set allow_extrapolation: true"
        )
        super().__init__(Problem(table, text))
        self._asked = (table, component, axis, value, low, high)

    def __reduce__(self) -> tuple[object, ...]:  # crosses process borders, which rebuild it from its arguments
        return type(self), self._asked


class Grid:
    """One component of a cost table: nanoseconds on the product of its axes.

    axes: name -> strictly increasing points; ns: the values in row-major order (last axis fastest). A component without
    axes is a constant.
    """

    __slots__ = ("axes", "component", "extrapolate", "ns", "points", "strides", "table")

    def __init__(
        self, table: str, component: str, axes: dict[str, list[int]], ns: list[int], *, extrapolate: bool = False
    ) -> None:
        self.table, self.component, self.extrapolate = table, component, extrapolate
        self.axes = tuple(axes)
        self.points = tuple(tuple(points) for points in axes.values())
        self.ns = tuple(ns)
        strides, step = [], 1
        for points in reversed(self.points):
            strides.append(step)
            step *= len(points)
        self.strides = tuple(reversed(strides))

    def at(self, point: tuple[int, ...]) -> int:
        """Nanoseconds at `point`, one value per axis: exact on the grid, multilinear between its points.

        Outside the grid: CostRangeError, or where allowed the line through the last two points of that axis, never
        below 0.
        """
        base, corners = 0, [(0, 1.0)]
        for axis, value in enumerate(point):
            points = self.points[axis]
            if not points[0] <= value <= points[-1] and not self.extrapolate:
                raise CostRangeError(self.table, self.component, self.axes[axis], value, points[0], points[-1])
            if len(points) == 1:
                continue
            low = min(max(bisect_right(points, value) - 1, 0), len(points) - 2)
            share = (value - points[low]) / (points[low + 1] - points[low])
            stride = self.strides[axis]
            base += low * stride
            if share == 1.0:
                base += stride
            elif share:
                corners = [pair for at, w in corners for pair in ((at, w * (1.0 - share)), (at + stride, w * share))]
        ns = self.ns
        if len(corners) == 1:
            return ns[base]
        # One by one, as moesim.sim.kernel does it: from Python 3.12 on, `sum` of floats rounds in another way.
        total = 0.0
        for at, weight in corners:
            total += weight * ns[base + at]
        return max(0, round(total))
