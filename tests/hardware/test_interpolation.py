"""The error of interpolation on functions of which it is known."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.hardware.files import LeftOut
from moesim.hardware.interpolation import between, left_out


def test_a_line_is_met_exactly() -> None:
    axes = {"tokens": [1, 4, 16]}
    found = left_out(axes, [10 * n for n in axes["tokens"]], {(2,): 20, (8,): 80})
    assert found == {"points": 2, "median": 0, "p90": 0, "largest": 0, "worst": {"tokens": 2}}
    assert LeftOut.model_validate(found).again is None


def test_a_square_is_off_by_what_the_chord_says() -> None:
    # Between 2 and 6 the chord of n^2 is 8 n - 12: 20 at 4, where 16 is true, and 12 at 3, where 9 is.
    found = left_out({"tokens": [2, 6]}, [4, 36], {(4,): 16, (3,): 9}, again=[0.5, 0.1, 0.3])
    assert found is not None
    assert (found["largest"], found["worst"]) == (0.33333, {"tokens": 3})
    assert found["median"] == 0.29167  # of 4/16 and 3/9
    assert found["again"] == 0.3


def test_nothing_left_out_is_no_claim() -> None:
    assert left_out({"tokens": [1, 2]}, [1, 2], {}) is None


def test_points_between_are_in_the_middle_of_gaps() -> None:
    assert between({"tokens": [1, 4, 16]}) == [(2,), (8,)]
    assert between({"tokens": [1, 2, 4]}) == [(3,)]  # nothing is between 1 and 2
    assert between({"tokens": [1, 2]}) == []
    assert between({}) == between({"tokens": [1, 2], "active": [1, 2, 3]}) == []
    assert between({"tokens": [1, 4, 16], "active": [1, 2]}) == [(2, 2), (8, 1)]  # an axis without gaps is on its grid


@given(st.lists(st.integers(1, 10**6), min_size=2, max_size=9, unique=True).map(sorted), st.integers(1, 5))
@settings(derandomize=True, max_examples=60)
def test_they_are_within_the_grid_and_never_on_it(points: list[int], most: int) -> None:
    axes = {"tokens": points, "past": [0, *points]}
    found = between(axes, most)
    assert len(found) <= most
    gaps = any(b - a > 1 for a, b in pairwise(points))
    for tokens, past in found:
        assert (tokens not in points) == gaps and points[0] <= tokens <= points[-1] and 0 <= past <= points[-1]
        assert (tokens, past) not in {(a, b) for a in points for b in axes["past"]}
