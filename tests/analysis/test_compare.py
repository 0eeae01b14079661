"""Intervals against tables, scipy and hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from moesim.analysis import compare


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 7, 12, 29, 30, 199])
def test_t_quantile_is_scipys(freedom: int, confidence: float) -> None:
    assert compare.t_quantile(freedom, confidence) == pytest.approx(
        stats.t.ppf(0.5 + confidence / 2, freedom), rel=1e-9
    )


@pytest.mark.parametrize(("freedom", "confidence"), [(0, 0.95), (3, 0), (3, 1)])
def test_t_quantile_refuses_what_has_no_meaning(freedom: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="freedom must be"):
        compare.t_quantile(freedom, confidence)


def test_mean_interval_by_hand() -> None:
    got = compare.mean([1.0, 2.0, 3.0, 4.0])  # sd 1.29099, /sqrt 4, times 3.18245
    assert (got.value, got.half) == (2.5, pytest.approx(2.05426, abs=1e-5))
    assert got.excludes(0) and not got.excludes(1) and not got.excludes(4.5)


def test_pairing_removes_what_both_runs_saw() -> None:
    ours, theirs = [10.0, 20.0, 30.0], [11.0, 21.5, 30.5]
    got = compare.difference(ours, theirs)
    assert got.value == -1.0 and got.half == pytest.approx(4.302653 * 0.5 / math.sqrt(3), rel=1e-6)
    assert compare.mean(ours).half > 19 * got.half


@pytest.mark.parametrize("values", [[3.0], [1.0, math.nan]])
def test_no_interval_from_one_replication_or_a_missing_value(values: list[float]) -> None:
    got = compare.mean(values)
    assert not got.bounded and not got.excludes(-1e9)
    assert math.isnan(compare.mean([]).value)


def test_ratio_by_hand() -> None:
    """Fieller: t = 4.302653, y = 10 +- 0, so the interval is that of the numerator divided by ten."""
    got = compare.ratio([1.0, 2.0, 3.0], [10.0, 10.0, 10.0])
    half = 4.302653 * 1.0 / math.sqrt(3) / 10
    assert [got.value, got.low, got.high] == pytest.approx([0.2, 0.2 - half, 0.2 + half], rel=1e-6)


def test_ratio_of_equal_and_of_zero_samples_is_exact() -> None:
    below = [-3.0, -4.0, -3.5]
    same, none = compare.ratio(below, below), compare.ratio([0.0] * 3, below)
    assert (same.value, none.value) == (1.0, 0.0)
    assert [same.low, same.high, none.low, none.high] == pytest.approx([1, 1, 0, 0], abs=1e-6)


samples = st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=2, max_size=8)


@given(samples)
def test_ratio_is_bounded_where_its_denominator_excludes_zero(pairs: list[tuple[float, float]]) -> None:
    above, below = np.array(pairs).T
    denominator = compare.mean(below)
    assume(abs(abs(denominator.value) - denominator.half) > 1e-9)
    got = compare.ratio(above, below)
    assert got.bounded == denominator.excludes(0)
    if got.bounded:
        assert got.low <= got.value + 1e-9 and got.value - 1e-9 <= got.high
        for limit in (got.low, got.high):  # Fieller's definition: at a limit, above - limit * below just includes zero
            edge = compare.mean(above - limit * below)
            assert abs(edge.value) == pytest.approx(edge.half, abs=1e-5 * (1 + abs(limit)) * 9)
