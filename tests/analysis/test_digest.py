"""The digest, cell by cell, from numbers whose means, intervals and gaps are worked out by hand."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from moesim.analysis import compare, digest
from moesim.analysis.compare import Interval
from tests.analysis import factory

T = compare.t_quantile(2)  # three replications
BASE = [100e6, 110e6, 90e6]
ROWS = [
    ("random", "history", "", "layer", [12.0, 13.0, 11.0], [120e6, 130e6, 110e6]),
    ("lru", "history", "", "global", [10.0, 11.0, 9.0], BASE),
    ("lookahead", "queue", 64, "layer", [9.0, 9.9, 8.1], [ns * 0.9 for ns in BASE]),
    ("lookahead", "queue", "unlimited", "global", [8.0, 8.8, 7.2], [ns * 0.8 for ns in BASE]),
    ("lookahead", "oracle", "unlimited", "layer", [6.0, 6.6, 5.4], [ns * 0.6 for ns in BASE]),
]


def cells(frame: pd.DataFrame, width: int = 100) -> list[str]:
    """The digest without its notes, spaces run together."""
    body = digest.render(frame, width).split("\n\n")[0]
    return [" ".join(line.split()) for line in body.splitlines()]


def test_every_cell_of_a_row() -> None:
    """Replication by replication the policies take 0.8 and 0.6 of the baseline's time: nothing is uncertain but means.

    The best policy's mean is 80 ms, its deviation 8 ms: ± t 8 / sqrt 3.
    """
    half = T * 8 / math.sqrt(3)
    assert cells(factory.plain(ROWS, prefetch="none")) == [
        "experts best history best policy time against gap, % gap, % oracle",
        "a layer policy (B) ms without an oracle ms B, % misses time vs B, %",
        "a",
        f"4 lru, global 100 queue, global 80.0 ±{half:.1f} -20 [-20, -20] 50±0 50±0 -40",
    ]


def test_a_difference_that_is_not_shown_is_in_parentheses() -> None:
    unsure = [*ROWS[:2], ("lookahead", "queue", "unlimited", "layer", [9.0, 9.0, 9.0], [60e6, 110e6, 100e6])]
    (row,) = cells(factory.plain(unsure))[3:]
    interval = compare.ratio([-40e6, 0, 10e6], BASE)
    limits = ", ".join(f"{limit * 100:+.0f}" for limit in (interval.low, interval.high))
    assert row == f"4 lru, global 100 queue, layer 90.0 ±{T * 26.4575 / 3**0.5:.1f} (-10 [{limits}])"


def test_a_baseline_that_nothing_beats_says_so() -> None:
    assert cells(factory.plain([ROWS[1], ROWS[4]]))[3:] == ["4 lru, global 100 B, none better -40"]


def test_without_a_history_policy_there_is_nothing_to_compare_with() -> None:
    (row,) = cells(factory.plain(ROWS[3:]))[3:]
    assert row == f"4 queue, global 80.0 ±{T * 8 / math.sqrt(3):.1f}"
    assert cells(factory.plain(ROWS[4:]))[3:] == ["4"]


def test_one_replication_claims_nothing() -> None:
    rows = [(*row[:4], row[4][:1], row[5][:1]) for row in ROWS]
    assert cells(factory.plain(rows))[3:] == ["4 lru, global 100 queue, global 80.0 (-20) (-40)"]


def test_a_case_is_named_once_above_its_sizes_and_a_free_one_says_that_its_oracle_is_no_bound() -> None:
    common = {"batch": "decode-first", "prefetch": "none"}
    sizes = [factory.plain(ROWS, slots=slots, bytes=slots * 100, **common) for slots in (4, 5)]
    other = factory.plain(ROWS, case="b", batch="aged patience=8", prefetch="none")
    free = sizes[0].assign(case="c", schedule="free", oracle="oracle, not a bound")
    text = cells(pd.concat([sizes[0], other, free, sizes[1]]))
    assert [line.split()[0] if "lru" in line else line for line in text[2:]] == [
        "a", "4", "5", "b · batch aged patience=8", "4", "c · schedule free · oracle: not a bound", "4",
    ]  # fmt: skip


def test_memory_that_is_no_whole_number_of_experts_is_in_gigabytes() -> None:
    text = cells(factory.plain(ROWS, slots=math.nan, bytes=4_600_000_000))
    assert text[0].startswith("cache best") and text[1].startswith("GB policy") and text[3].startswith("4.6 lru")


def test_a_real_size_of_digest_fits_and_says_what_it_is_of() -> None:
    text = digest.render(factory.summary(4))
    assert max(map(len, text.splitlines())) <= 100
    assert text.startswith("Times are ESTIMATED") and all(label in text for label in factory.LABELS.values())
    assert all(mark in text for mark in digest.MARKS) and "where nothing else is said: prefetch none" in text
    assert len(digest.MARKS) <= 6


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_keeps_the_policies_and_their_times(width: int) -> None:
    head, *_, row = cells(factory.plain(ROWS), width)
    assert "oracle" not in head and row.startswith("4 lru, global 100 queue, global 80.0 ±")
    body = digest.render(factory.plain(ROWS), width).split("\n\n")[0]
    assert max(map(len, body.splitlines())) <= width


def test_long_names_are_cut() -> None:
    rows = [("least-stale-with-a-very-long-name", *row[1:]) if row[0] == "lru" else row for row in ROWS]
    assert cells(factory.plain(rows))[3].startswith("4 least-stale-wit…, global 100 ")


@pytest.mark.parametrize(
    ("relative", "text"),
    [
        (Interval(-0.241, -0.28, -0.204), "-24 [-28, -20] "),
        (Interval(-0.021, -0.024, -0.018), "-2.1 [-2.4, -1.8] "),
        (Interval(-0.211, -0.218, -0.204), "-21 [-22, -20] "),
        (Interval(-0.02, -0.05, 0.01), "(-2 [-5, +1])"),
        (Interval(0.5, math.nan, math.nan), "(+50)"),
        (compare.NOTHING, ""),
    ],
)
def test_differences(relative: Interval, text: str) -> None:
    assert digest.difference(relative) == text


def test_it_says_how_long_a_batcher_passed_somebody_over() -> None:
    frame = factory.plain(ROWS, batch="aged").assign(longest_pass_over=7, pass_over_bound=18)
    assert "batch aged: passed somebody over for 7 steps in a row (bound: 18)" in digest.render(frame)
