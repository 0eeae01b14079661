"""Gap captured, worked out by hand, and every reason to leave it blank."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from moesim.analysis import gap
from moesim.analysis.configurations import grouped, read
from tests.analysis import factory

LRU = ("lru", "history", "", "layer", [10.0, 12.0, 11.0], [111.0, 99.0, 120.0])
GLOBAL_LRU = ("lru", "history", "", "global", [30.0, 31.0, 32.0], [90.0, 80.0, 100.0])
QUEUE = ("lookahead", "queue", 64, "layer", [8.0, 9.0, 8.5], [85.0, 70.0, 85.0])
ORACLE = ("lookahead", "oracle", "unlimited", "layer", [6.0, 6.0, 6.0], [71.0, 59.0, 80.0])
GLOBAL_ORACLE = ("lookahead", "oracle", "unlimited", "global", [5.0, 5.0, 5.0], [95.0, 75.0, 85.0])
ALL = [LRU, GLOBAL_LRU, QUEUE, ORACLE, GLOBAL_ORACLE]


def first(frame: pd.DataFrame, cache: str, level: str, scope: str = "layer") -> pd.Series:
    return frame[(frame["cache"] == cache) & (frame["level"] == level) & (frame["scope"] == scope)].iloc[0]


def test_gap_by_hand_with_the_best_of_both_scopes() -> None:
    """In misses LRU per layer is the baseline (11 against 31) and the global oracle the end (5 against 6); in time the
    baseline is the global LRU (90 against 110) and the end is the oracle per layer (70 against 85)."""
    got = first(gap.add_gaps(factory.plain(ALL)), "lookahead", "queue")
    assert got["gap_misses"] == pytest.approx((8.5 - 11) / (5 - 11))
    assert got["gap_time"] == pytest.approx((80 - 90) / (70 - 90))
    assert (got["gap_misses_baseline"], got["gap_time_baseline"]) == ("lru, layer", "lru, global")
    assert got["gap_misses_low"] < got["gap_misses"] < got["gap_misses_high"]


def test_the_ends_are_zero_and_one() -> None:
    frame = gap.add_gaps(factory.plain([LRU, QUEUE, ORACLE]))
    for cells, end in ((first(frame, "lru", "history"), 0), (first(frame, "lookahead", "oracle"), 1)):
        assert cells["gap_misses"] == cells["gap_time"] == end
        assert [cells["gap_misses_low"], cells["gap_misses_high"]] == pytest.approx([end, end], abs=1e-6)


def test_every_replication_carries_its_configurations_gap_and_rows_stay_in_place() -> None:
    plain = factory.plain(ALL)
    got = gap.add_gaps(plain)
    pd.testing.assert_frame_equal(got[plain.columns], plain)
    assert got.groupby(["cache", "level", "scope"])["gap_misses"].nunique().eq(1).all()
    pd.testing.assert_frame_equal(gap.add_gaps(got), got)
    shuffled = gap.add_gaps(plain.sample(frac=1, random_state=3)).sort_values("run", ignore_index=True)
    pd.testing.assert_frame_equal(shuffled, got)


SMALL_GAIN = ("lookahead", "oracle", "unlimited", "layer", [9.0, 12.5, 10.5], [110.0, 100.5, 119.5])
WORSE = ("lookahead", "oracle", "unlimited", "layer", [20.0, 22.0, 21.0], [200.0, 220.0, 210.0])
FINITE = ("lookahead", "oracle", 64, "layer", [6.0, 6.0, 6.0], [71.0, 59.0, 80.0])


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([LRU, QUEUE], {}),  # no oracle
        ([QUEUE, ORACLE], {}),  # no history policy
        ([LRU, QUEUE, FINITE], {}),  # an oracle with a horizon is no end
        ([LRU, QUEUE, SMALL_GAIN], {}),  # the oracle's gain may be none: its interval includes zero
        ([LRU, QUEUE, WORSE], {}),  # an oracle that loses leaves nothing to capture
        ([LRU, QUEUE, ORACLE], {"overloaded": True}),
        ([(*row[:4], row[4][:1], row[5][:1]) for row in (LRU, QUEUE, ORACLE)], {}),  # one replication: no interval
    ],
)
def test_blank_where_no_gain_was_shown(rows: list, columns: dict[str, object]) -> None:
    frame = gap.add_gaps(factory.plain(rows, **columns))
    assert frame[[f"gap_{m}{limit}" for m in gap.MEASURES for limit in gap.LIMITS]].isna().all(axis=None)
    assert not gap.add_gaps(factory.plain([LRU, QUEUE, ORACLE]))["gap_time"].isna().any()


@pytest.mark.parametrize("column", ["case", "prefetch", "batch", "bytes", "schedule", "model", "traffic.concurrency"])
def test_only_the_policy_and_its_scope_may_differ(column: str) -> None:
    """An oracle under other circumstances is no end for this group."""
    here = factory.plain([LRU, QUEUE], **{"model": "m", "traffic.concurrency": 8, "prefetch": "none", "batch": "b"})
    there = factory.plain(
        [ORACLE], **{"model": "m", "traffic.concurrency": 8, "prefetch": "none", "batch": "b"} | {column: 99}
    )
    assert gap.add_gaps(pd.concat([here, there]))["gap_misses"].isna().all()


def test_slots_may_differ_at_equal_bytes() -> None:
    mixed = pd.concat([factory.plain([LRU, QUEUE]), factory.plain([ORACLE], slots=math.nan, **{"memory.share": 0.5})])
    assert gap.add_gaps(mixed)["gap_misses"].notna().all()


def test_the_same_from_memory_and_from_a_csv_file() -> None:
    frame = factory.summary(replications=3, cases=("waiting",), slots=(4,))
    again = gap.add_gaps(factory.read_back(frame))
    assert frame["gap_time"].notna().all()
    pd.testing.assert_frame_equal(again[list(gap.COLUMNS)], frame[list(gap.COLUMNS)])


def test_pairs_are_matched_by_replication_and_the_unmatched_left_out() -> None:
    plain = factory.plain([LRU, QUEUE])
    frame = plain.drop(index=plain.index[0]).iloc[::-1]
    ours, theirs = gap.paired(read(frame), "misses_per_output_token")
    assert (ours.tolist(), theirs.tolist()) == ([9.0, 8.5], [12.0, 11.0])


def test_difference_from_the_baseline_is_relative() -> None:
    (group,) = grouped(read(factory.plain([LRU, GLOBAL_LRU, QUEUE]))).values()
    got = gap.against_baseline(group[2], group, "misses_per_output_token")
    assert got.value == pytest.approx(8.5 / 11 - 1) and got.excludes(0)
    assert not gap.against_baseline(group[0], group, "misses_per_output_token").excludes(0)


def test_what_is_added_to_a_frame_in_pieces_gives_one_that_may_be_worked_on(recwarn: pytest.WarningsRecorder) -> None:
    """pandas.read_csv gives a block a column, and warns of more than a hundred when a column is inserted."""
    frame = gap.add_gaps(factory.read_back(factory.summary(2, ("fresh",), (4,))))
    assert frame.shape[1] > 100
    frame["mine"] = 1
    frame.reset_index()
    assert not recwarn.list
