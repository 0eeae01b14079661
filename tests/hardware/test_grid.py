"""Interpolation: exact on the grid, between its neighbours inside, refused or linear outside."""

from __future__ import annotations

import pickle
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.hardware.grid import CostRangeError, Grid


def square(extrapolate: bool = False) -> Grid:
    return Grid("t", "c", {"x": [0, 10, 20], "y": [0, 4]}, [0, 40, 100, 140, 400, 440], extrapolate=extrapolate)


def test_grid_points_are_exact() -> None:
    values = [square().at(point) for point in product((0, 10, 20), (0, 4))]
    assert values == [0, 40, 100, 140, 400, 440]


def test_between_points_is_bilinear() -> None:
    assert square().at((5, 2)) == 70
    assert square().at((15, 0)) == 250
    assert square().at((10, 1)) == 110


def test_without_axes_is_a_constant() -> None:
    assert Grid("t", "c", {}, [7]).at(()) == 7


@pytest.mark.parametrize("point", [(-1, 0), (21, 0), (0, 5)])
def test_outside_is_refused_and_says_where(point: tuple[int, int]) -> None:
    with pytest.raises(CostRangeError, match="allow_extrapolation: true") as caught:
        square().at(point)
    error = caught.value
    assert isinstance(error, InputError)
    assert (error.component, error.axis) == ("c", "y" if point[1] else "x")
    assert (error.low, error.high) == ((0, 4) if point[1] else (0, 20))


def test_the_error_crosses_process_borders() -> None:
    error = CostRangeError("t", "experts", "tokens", 9, 1, 8)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.axis, again.value) == (str(error), "tokens", 9)


def test_extrapolation_goes_on_from_the_last_two_points_and_never_below_zero() -> None:
    assert square(True).at((30, 0)) == 700
    assert square(True).at((30, 8)) == 780
    falling = Grid("t", "c", {"x": [0, 10]}, [50, 10], extrapolate=True)
    assert falling.at((20,)) == 0


def test_one_point_is_flat_when_extrapolated() -> None:
    assert Grid("t", "c", {"x": [5]}, [9], extrapolate=True).at((50,)) == 9


@given(st.lists(st.integers(0, 10**9), min_size=12, max_size=12), st.integers(0, 100), st.integers(0, 50))
def test_inside_stays_between_the_smallest_and_the_largest(ns: list[int], x: int, y: int) -> None:
    grid = Grid("t", "c", {"x": [0, 1, 30, 100], "y": [0, 7, 50]}, ns)
    assert min(ns) <= grid.at((x, y)) <= max(ns)
