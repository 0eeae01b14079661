"""Searches in table and digest: the largest load of each policy, and nothing that is of another load."""

from __future__ import annotations

import math

import pandas as pd
import pytest

from moesim.analysis import digest, gap, latency_table, table
from moesim.analysis.configurations import LATENCY, baseline, best, deployable, grouped, judged_by, ranked, read
from moesim.analysis.searched import largest_of, not_found
from tests.analysis import factory

AHEAD = "lookahead"
NAMES = {"lru": ("lru", "history"), "lfu": ("lfu", "history"), "queue": (AHEAD, "queue"), "oracle": (AHEAD, "oracle")}
RATES = {"lru": [2.0, 2.2, 2.4], "lfu": [1.0, 1.1, 1.2], "queue": [2.4, 2.64, 2.88], "oracle": [4.0, 4.4, 4.8]}
"""lfu answers fastest, for it has the least to do"""
TIMES = {"lru": 40e6, "lfu": 10e6, "queue": 50e6, "oracle": 60e6}


def found(**columns: object) -> pd.DataFrame:
    rows = [
        (*NAMES[name], "unlimited" if NAMES[name][0] == AHEAD else "", "layer", [9.0] * 3, [TIMES[name]] * 3)
        for name in RATES
    ]
    frame = factory.plain(rows, schedule="free")  # type: ignore[arg-type]
    rates = [rate for name in RATES for rate in RATES[name]]
    frame = frame.assign(max_rate=rates, rate_met=rates, rate_failed=[rate * 1.02 for rate in rates])
    frame = frame.assign(open_traffic=True, search_outcome="found", objective_ttft_s=1.0, objective_share=0.9)
    frame[LATENCY] = frame["ns_per_output_token"]
    return frame.assign(ttft_mean_ns=1e6, **columns)


def ended(frame: pd.DataFrame, cache: str, outcome: str, runs: int) -> pd.DataFrame:
    """The frame with some searches of a policy that ended at their first load, 0.5, or their last, 8."""
    rows = frame.index[frame["cache"] == cache][:runs]
    low = outcome == "even from fails"
    frame.loc[rows, "search_outcome"] = outcome
    bracket = (math.nan, 0.5) if low else (8.0, math.nan)
    frame.loc[rows, ["max_rate", "rate_met", "rate_failed"]] = [math.nan, *bracket]
    return frame


def cells(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_search_is_judged_by_its_largest_load() -> None:
    (group,) = grouped(read(found())).values()
    assert largest_of(group) == judged_by(group) == "max_rate"
    assert baseline(group, "max_rate").cache == "lru", "lfu has the least time"  # type: ignore[union-attr]
    assert best(deployable(group), "max_rate").level == "queue"  # type: ignore[union-attr]
    assert gap.add_gaps(found())[["gap_misses", "gap_time"]].isna().all(axis=None)


def test_the_table_has_the_largest_load_and_no_times() -> None:
    rows = cells(table.render(found()))
    start = rows.index("largest rate")
    assert rows[start + 1] == "requests/s"
    assert [row.split("±")[0] for row in rows[start + 2 : start + 6]] == [
        "B lru, layer 2.20 ",
        "lfu, layer 1.10 ",
        "* lookahead queue ∞, layer 2.64 ",
        "o lookahead oracle ∞, layer 4.40 ",
    ]
    assert [row.split()[-1] for row in rows[start + 3 : start + 6]] == ["-50%", "+20%", "+100%"]
    assert "real: largest rate requests/s +20.0 % [+20.0, +20.0]" in rows
    text = " ".join(rows)
    assert "90 % of the requests keep TTFT 1 s" in text and "TTFT mean" not in text
    assert "40.0" not in text and "50.0 ±" not in text and "open traffic" not in text


def test_the_digest_says_it_in_words() -> None:
    rows = cells(digest.render(found(), 200))
    told = next(row for row in rows if row.startswith("largest rate requests/s"))
    order = [part.split(", layer ")[0].removeprefix("largest rate requests/s: ") for part in told.split(" · ")]
    assert order == ["lookahead oracle ∞", "lookahead queue ∞", "lru", "lfu"], "the best first"
    row = next(row for row in rows if row.startswith("4 "))
    assert row == "4 lru, layer queue, layer", "no time, no difference in time, no gap"


def test_other_cases_keep_their_times() -> None:
    other = factory.plain([("lru", "history", "", "layer", [9.0] * 3, [70e6] * 3)], schedule="free")
    frame = pd.concat([found(), other.assign(case="b", open_traffic=True, **{LATENCY: 70e6})], ignore_index=True)
    groups = list(grouped(read(frame)).values())
    assert [largest_of(group) for group in groups] == ["max_rate", ""]
    rows = cells(table.render(frame))
    assert any(row.startswith("B lru layer 9.00") and "70.0" in row for row in rows)
    assert sum("2.20 ±" in row for row in rows) == 1


@pytest.mark.parametrize(("outcome", "side"), [("even from fails", "below 0.5"), ("even to meets", "above 8")])
def test_a_search_that_enclosed_nothing_says_where_it_ended(outcome: str, side: str) -> None:
    frame = ended(found(), "lru", outcome, 1)
    (group,) = grouped(read(frame)).values()
    assert not_found(group[0], "max_rate") == f"{side} in 1 of 3 replications"
    assert largest_of(group) == "max_rate" and baseline(group, "max_rate").cache == "lfu"  # type: ignore[union-attr]
    for text in (table.render(frame), digest.render(frame)):
        assert f"lru, layer: {side} in 1 of 3 replications" in cells(text)
    for cache in ("lru", "lfu", "lookahead"):
        frame = ended(frame, cache, outcome, 9)
    (group,) = grouped(read(frame)).values()
    assert largest_of(group) == "max_rate", "though none was found"
    assert latency_table.loads(group, 100) == []
    assert f"lfu, layer: {side} in 3 of 3 replications" in cells(table.render(frame))


def test_a_load_at_which_the_server_is_overloaded_is_pointed_out() -> None:
    frame = found()
    frame["overloaded"] = frame["cache"] == "lru"
    text = table.render(frame)
    assert "overloaded at the load found (measure more requests): lru, layer" in text
    assert "OVERLOADED" not in text, "its load was chosen, and met"


def test_presets_stand_in_the_order_of_their_loads() -> None:
    frame = found()
    frame.insert(2, "preset", [name for name in RATES for _ in range(3)])
    (group,) = grouped(read(frame)).values()
    assert [c.whole for c in ranked(group)] == ["oracle", "queue", "lru", "lfu"]
    assert "fewer misses" not in table.render(frame)


def test_a_free_run_has_the_latencies_between_tokens_and_what_it_kept() -> None:
    frame = found().drop(columns=["max_rate", "rate_met", "rate_failed"])
    frame = frame.assign(itl_mean_ns=2e6, itl_p95_ns=3e6, attainment=0.95, goodput_requests_per_s=1.5)
    (group,) = grouped(read(frame)).values()
    names = [figure.name for figure in latency_table.figures_of(group)]
    assert names == ["TTFT mean", "ITL mean", "ITL p95", "normalized mean", "attainment %", "goodput requests/s"]
    rows = cells(table.render(frame))
    assert any("95.0 ±0.0" in row and "1.50 ±0.00" in row for row in rows)
    frame["overloaded"] = frame["cache"] == "lru"
    assert "B lfu, layer" in table.render(frame)
