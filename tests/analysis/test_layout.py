from __future__ import annotations

import math

import pytest

from moesim.analysis import layout
from moesim.analysis.compare import NOTHING, Interval
from moesim.analysis.layout import Column


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.000"), (0.01234, "0.0123"), (1.234, "1.23"), (99.96, "100.0"), (12345, "12345"), (math.nan, "")],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert layout.significant(value) == text


@pytest.mark.parametrize(
    ("captured", "text"),
    [(Interval(0.5, 0.4, 0.62), "50±11"), (Interval(0.5, -0.6, 1.6), "unclear"), (NOTHING, "")],
)
def test_a_share_is_in_percent_and_unclear_where_its_interval_is_wide(captured: Interval, text: str) -> None:
    assert layout.share(captured) == text


def test_parts_are_broken_where_they_do_not_fit() -> None:
    assert layout.wrapped(["aa", "bb", "cc"], 12) == ["aa · bb · cc"]
    assert layout.wrapped(["aa", "bb", "cc"], 11) == ["aa · bb", "  cc"]
    assert layout.wrapped(["a word that is too long", "b"], 5) == ["a word that is too long", "  b"]


def test_what_is_least_needed_goes_first_and_what_is_needed_stays() -> None:
    columns = [Column(("", "one"), str), Column(("", "two"), str, give_up=1), Column(("long", "three"), str, give_up=2)]
    rows = [["1", "22222", "3"]]
    assert layout.fit(columns, rows, 15) == ([0, 1, 2], [3, 5, 5])
    assert layout.fit(columns, rows, 14) == ([0, 1], [3, 5])
    assert layout.fit(columns, rows, 2) == ([0], [3])
