"""The figures of free runs, cell by cell: intervals, what is real, who has none, which replications count as one."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from moesim.analysis import compare, digest, gap, latency_table, table
from moesim.analysis.configurations import LATENCY, TIME, baseline, grouped, judged_by, read
from tests.analysis import factory

T = compare.t_quantile(2)
LRU = ("lru", "history", "", "layer", [9.0, 9.0, 9.0], [50e6, 50e6, 50e6])
FIFO = ("fifo", "history", "", "layer", [9.0, 9.0, 9.0], [49e6, 49e6, 49e6])
QUEUE = ("lookahead", "queue", "unlimited", "layer", [8.0, 8.0, 8.0], [50e6, 50e6, 50e6])
ORACLE = ("lookahead", "oracle", "unlimited", "layer", [5.0, 5.0, 5.0], [50e6, 50e6, 50e6])
BASE = np.array([100e6, 110e6, 90e6])
TIMES = {
    "lru": (BASE, BASE),
    "fifo": (BASE * 2, BASE * 2),
    "queue": (BASE * 0.8, BASE * np.array([0.8, 1.3, 0.9])),
    "oracle": (BASE * 0.5, BASE * 0.5),
}
"""normalized latency and TTFT, one a replication"""


def free(*rows: tuple[str, str, object, str, list[float], list[float]], **columns: object) -> pd.DataFrame:
    frame = factory.plain(list(rows), schedule="free")
    name = frame["level"].where(frame["level"].isin(["queue", "oracle"]), frame["cache"])
    for place, column in enumerate((LATENCY, "ttft_mean_ns")):
        frame[column] = [TIMES[key][place][r] for key, r in zip(name, frame["replication"], strict=True)]
    return frame.assign(**({"open_traffic": True, "overloaded": False, "cut_off": False} | columns))


def cells(lines: list[str]) -> list[str]:
    return [" ".join(line.split()) for line in lines]


def block(frame: pd.DataFrame, width: int = 100) -> list[str]:
    (group,) = grouped(read(frame)).values()
    return cells([line.text for line in latency_table.lines(group, width)])


def lost(frame: pd.DataFrame, cache: str, why: str = "overloaded") -> pd.DataFrame:
    """The frame with one policy overloaded, its latencies blank."""
    rows = frame["cache"] == cache
    frame.loc[rows, why] = True
    frame.loc[rows, [LATENCY, "ttft_mean_ns"]] = math.nan
    return frame


def test_every_cell() -> None:
    """The mean of lru is 100 ms, its deviation 10: ± t 10 / sqrt 3. The queue's TTFT is 80, 143, 81: 101.3, deviation
    36.1, and its difference from 100, 110, 90 is -20, +33, -9: its interval holds 0."""
    half, wide = T * 10 / 3**0.5, T * np.std([80, 143, 81], ddof=1) / 3**0.5
    assert block(free(LRU, FIFO, QUEUE)) == [
        "TTFT mean normalized mean",
        "ms ms",
        f"B lru, layer 100 ±{half:.0f} 100 ±{half:.0f}",
        f"fifo, layer 200 ±{2 * half:.0f} +100% 200 ±{2 * half:.0f} +100%",
        f"* lookahead queue ∞, layer 101 ±{wide:.0f} (+1.3%) 80.0 ±{0.8 * half:.1f} -20%",
        "lookahead queue ∞, layer against lru, layer:",
        "real: normalized mean -20.0 % [-20.0, -20.0]",
        "not shown to differ: TTFT mean",
    ]


def test_open_traffic_is_judged_by_latency_and_other_by_time() -> None:
    """fifo has the least time per token, by nothing that it did; lru answers in half the time."""
    for frame, column, base in ((free(LRU, FIFO), LATENCY, "lru"), (free(LRU, FIFO, open_traffic=False), TIME, "fifo")):
        (group,) = grouped(read(frame)).values()
        assert judged_by(group) == column
        assert baseline(group, judged_by(group)).cache == base  # type: ignore[union-attr]
    text = table.render(free(LRU, FIFO))
    assert "open traffic: ms per token is the mean normalized latency" in text
    assert next(line.split()[1] for line in text.splitlines() if line.startswith("B ")) == "lru"


def test_the_gap_in_time_is_one_of_latency_in_open_traffic() -> None:
    found = gap.add_gaps(free(LRU, QUEUE, ORACLE))
    assert found[found["level"] == "queue"]["gap_time"].unique().item() == pytest.approx((80 - 100) / (50 - 100))
    shut = gap.add_gaps(free(LRU, QUEUE, ORACLE, open_traffic=False))
    assert shut["gap_time"].isna().all(), "all took the same time"


def test_an_overloaded_policy_has_the_word_in_place_of_its_latencies_and_compares_with_nothing() -> None:
    frame = lost(free(LRU, FIFO, QUEUE, ORACLE), "fifo")
    rows = block(frame)
    assert rows[3] == "fifo, layer overloaded overloaded"
    assert "overloaded: fifo, layer" in rows
    text = table.render(frame)
    assert text.startswith("OVERLOADED: 1 of 4 configurations cannot keep up")
    assert "fifo layer 9.00 ±0.00 overloaded" in cells(text.splitlines())
    assert gap.add_gaps(frame)[frame["cache"] == "fifo"]["gap_misses"].isna().all()
    told = cells(digest.render(frame).splitlines())
    assert told[0].startswith("OVERLOADED") and "overloaded: fifo, layer" in told
    assert not any("fifo, layer against" in line for line in told)


def test_where_all_are_overloaded_what_they_can_do_is_compared() -> None:
    frame = free(LRU, (*QUEUE[:5], [40e6, 40e6, 40e6]), throughput_tokens_per_s=20.0)
    frame.loc[frame["level"] == "queue", "throughput_tokens_per_s"] = 30.0
    frame = lost(lost(frame, "lru"), "lookahead")
    (group,) = grouped(read(frame)).values()
    assert judged_by(group) == TIME
    assert block(frame) == [
        "throughput",
        "tokens/s",
        "B lru, layer 20.0 ±0.0",
        "* lookahead queue ∞, layer 30.0 ±0.0 +50%",
        "overloaded: all of them",
        "lookahead queue ∞, layer against lru, layer:",
        "real: throughput tokens/s +50.0 % [+50.0, +50.0]",
    ]


def test_a_run_that_was_cut_off_says_so() -> None:
    frame = lost(free(LRU, FIFO, QUEUE), "fifo", "cut_off")
    assert "cut off: fifo, layer" in block(frame)
    assert table.render(frame).startswith("CUT OFF: 1 of 3 configurations ran out of `steps`")


def test_one_replication_claims_nothing() -> None:
    frame = free(LRU, FIFO, QUEUE)
    rows = block(frame[frame["replication"] == 0])
    assert not any("against" in row or "±" in row for row in rows)
    assert rows[3] == "fifo, layer 200 (+100%) 200 (+100%)"


def test_it_is_as_wide_as_there_is_room() -> None:
    frame = free(LRU, FIFO, QUEUE, tpot_mean_ns=3e6, e2e_p95_ns=5e9)
    assert len(block(frame, 200)) < len(block(frame, 80)) < len(block(frame, 60))
    (group,) = grouped(read(frame)).values()
    assert max(len(line.text) for line in latency_table.lines(group, 80)) <= 80


def test_frozen_runs_keep_their_columns_and_have_no_block() -> None:
    text = table.render(factory.plain([LRU, QUEUE], ttft_p50_ns=1e6, ttft_mean_ns=1e6))
    assert "TTFT" in text and "TTFT mean" not in text and "real" not in text


def test_a_cluster_is_one_observation() -> None:
    frame = free(LRU, QUEUE)
    frame["cluster"] = frame["replication"] % 2
    (group,) = grouped(read(frame)).values()
    lru = group[0]
    assert lru.units == [0, 1]
    assert lru.values(LATENCY).tolist() == [95e6, 110e6] and lru.mean(LATENCY) == 102.5e6
    assert gap.paired(group, LATENCY)[1].tolist() == pytest.approx([76e6, 88e6])
    assert "3 replications share 2 sets of captured sequences and count as 2" in table.render(frame)
    alone = free(LRU, QUEUE, cluster=0)
    text = table.render(alone)
    assert "one replication: no intervals" in text and "±" not in text.split("\n\n")[0]


@pytest.mark.parametrize(("first", "text"), [([50] * 9, "50 to 149 of"), ([50] * 3 + [0] * 6, "0 to 99 or 50 to")])
def test_what_is_measured_is_said(first: list[int], text: str) -> None:
    frame = free(LRU, FIFO, QUEUE, window_first=first, window_requests=100, unsettled=[True] + [False] * 8)
    shown = table.render(frame)
    assert text in shown and "1 of 9 runs may not have settled" in shown
