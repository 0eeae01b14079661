"""What a person reads, character by character."""

from __future__ import annotations

import io
import math

import pandas as pd
import pytest

from moesim.analysis import gap, layout, table
from tests.analysis import factory

COSTS = {
    "label_costs": "MEASURED: a device",
    "label_kv": "KV memory: no limit",
    "ttft_p50_ns": 12_340_000,
    "tpot_p50_ns": math.nan,
}
BOUNDS = {"min_misses_per_output_token": 1.5, "bound_transfer_ns_per_output_token": 3e7}
ROWS = [
    ("lru", "history", "", "layer", [10.0, 12.0, 11.0], [111e6, 99e6, 120e6]),
    ("lru", "history", "", "global", [30.0, 31.0, 32.0], [150e6, 140e6, 151e6]),
    ("lookahead", "queue", 64, "layer", [8.0, 9.0, 8.5], [85e6, 70e6, 85e6]),
    ("lookahead", "step", 0, "layer", [9.0, 12.0, 11.5], [110e6, 100e6, 120e6]),
    ("lookahead", "oracle", "unlimited", "layer", [6.0, 6.0, 6.0], [71e6, 59e6, 80e6]),
]


def test_every_cell_of_a_small_table() -> None:
    text = table.render(factory.plain(ROWS, **COSTS, **BOUNDS))
    cells = [" ".join(line.split()) for line in text.splitlines()]
    assert cells[:2] == [
        "a · 4 experts a layer (4e-07 GB) misses per ms per time TTFT TPOT gap, % gap, %",
        "policy scope token token vs B p50 ms p50 ms misses time",
    ]
    assert cells[2:8] == [
        "B lru layer 11.0 ±2.5 110 ±26 12.3 0 0",
        "lru global 31.0 ±2.5 147 ±15 +33.6% 12.3 unclear -92±33",
        "lookahead queue 64 layer 8.50 ±1.24* 80.0 ±21.5* -27.3% 12.3 50±0 75±28",
        "lookahead step 0 layer 10.8 ±4.0 110 ±25 (+0.0%) 12.3 3±48 0±6",
        "o lookahead oracle ∞ layer 6.00 ±0.00 70.0 ±26.2 -36.4% 12.3 100 100",
        "bound: transfers (MIN) 1.50 30.0",
    ]


def test_marks_say_what_they_mean_and_what_the_figures_are_of() -> None:
    text = table.render(factory.summary(2, ("waiting",), (4,)))
    for label in factory.LABELS.values():
        assert label in text
    assert (
        text.startswith("Times are ESTIMATED")
        and "schedule frozen" in text
        and all(mark in text for mark in table.MARKS)
    )
    assert "ESTIMATED" not in table.render(factory.plain(ROWS, **COSTS))


def test_one_best_of_each_measure_and_one_baseline_in_each_group() -> None:
    for line in table.render(factory.summary(2)).split("\n\n")[1:-1]:
        assert line.count("*") == 2 and line.count("\nB ") == 1 and line.count("\no ") == 12
        assert not any("*" in row for row in line.splitlines() if row.startswith("o"))


@pytest.mark.parametrize(
    ("finished", "more", "said"),
    [
        (16, {}, "latencies are of 16 of the 32 measured requests: the others had not left\n"),
        ([20, 16, 32], {}, "latencies are of those that had left, in one run 16 of the 32 measured requests\n"),
        (32, {}, ""),
        (16, {"overloaded": True, "ttft_mean_ns": math.nan}, ""),
    ],
)
def test_whose_latencies_they_are(finished: object, more: dict[str, object], said: str) -> None:
    frame = factory.plain(ROWS[:1], **(COSTS | {"measured_requests": 32, "normalized_mean_ns": 1.0} | more))
    text = table.render(frame.assign(finished_requests=finished))
    assert said in text and ("other latencies are of" in text) is bool(said)


def test_equal_arrivals_in_all_replications_are_said() -> None:
    said = "all replications have the arrivals of the file (sample: 1): intervals do not cover how arrivals vary\n"
    for same in (True, False):
        assert (said in table.render(factory.plain(ROWS[:1], **COSTS, same_arrivals=same))) is same


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_rows_fit_the_width_and_keep_misses_and_time(width: int) -> None:
    summary = factory.summary(4, ("fresh",), (4,))
    rows = table.render(summary, width).split("\n\n")[1].splitlines()
    assert max(map(len, rows)) <= width and "misses per" in rows[0] and "ms per" in rows[0]
    assert ("TPOT" in rows[0]) == (width >= 100)


def test_one_replication_claims_nothing() -> None:
    text = table.render(factory.summary(1, ("fresh",), (3,)))
    body, foot = text.split("\n\n")[1:]
    assert "one replication" in foot and "±" not in body
    assert all("%)" in row or "%" not in row for row in body.splitlines()[2:])


def test_a_console_that_is_no_terminal_gets_the_plain_text() -> None:
    from rich.console import Console

    summary = factory.summary(2, ("fresh",), (3,))
    out = io.StringIO()
    console = Console(file=out, width=60)
    layout.show(table.lines(summary, layout.width_of(console)), console)
    assert out.getvalue() == table.render(summary)
    terminal = io.StringIO()
    console = Console(file=terminal, width=70, force_terminal=True, color_system="standard")
    layout.show(table.lines(summary, layout.width_of(console)), console)
    assert layout.width_of(console) == 70 and "\x1b[" in terminal.getvalue()


def test_a_results_object_is_as_good_as_its_summary() -> None:
    class Results:
        summary = gap.add_gaps(factory.plain(ROWS))

    assert table.render(Results()) == table.render(Results.summary)


def test_a_title_that_is_too_long_has_a_line_of_its_own() -> None:
    long = table.render(factory.plain(ROWS, case="a case with a name that goes on for longer than a policy's"))
    first, second, *_ = long.splitlines()
    assert first.endswith("(4e-07 GB)") and second.split()[:2] == ["misses", "per"]


def test_a_title_wider_than_the_table_is_broken_between_its_parts() -> None:
    rows = factory.plain(ROWS, batch="expert-aware-aged patience=8", prefetch="none")
    other = factory.plain(
        ROWS, batch="decode-first", prefetch="a prefetcher with a name that nobody can read in one go"
    )
    text = table.render(pd.concat([rows, other]).reindex(columns=other.columns))
    heads = [line for line in text.splitlines() if "4e-07" in line or line.startswith("  prefetch") or "batch" in line]
    assert heads == [
        "a · 4 experts a layer (4e-07 GB) · batch expert-aware-aged patience=8 · prefetch none",
        "a · 4 experts a layer (4e-07 GB) · batch decode-first",
        "  prefetch a prefetcher with a name that nobody can read in one go",
    ]
    assert max(map(len, text.splitlines())) <= 100


def test_what_all_share_is_said_once() -> None:
    text = table.render(pd.concat([factory.plain(ROWS, case=case, batch="decode-first") for case in "ab"]))
    assert text.count("decode-first") == 1 and "where nothing else is said: schedule frozen, batch decode-first" in text


def test_an_oracle_of_a_free_schedule_is_called_no_bound_in_its_heading() -> None:
    rows = factory.plain(ROWS)
    free = rows.assign(
        schedule="free", case="b", oracle=rows["oracle"].mask(rows["level"] == "oracle", "oracle, not a bound")
    )
    heads = [line for line in table.render(pd.concat([rows, free])).splitlines() if "(4e-07 GB)" in line]
    assert ["not a bound" in line for line in heads] == [False, True]
