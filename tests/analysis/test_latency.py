"""Figures over the load: every line is the numbers, what is overloaded is not connected, promises are drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from moesim.analysis import largest, latency, plots
from moesim.analysis.configurations import read
from moesim.analysis.sweep import searches, sweeps
from tests.analysis import factory

RATES = (2, 4, 8)
LRU, FIFO = (("lru", "history", "", "layer", 1.0), ("fifo", "history", "", "layer", 2.0))


def summary(
    policies: Any = (LRU, FIFO), rates: Any = RATES, axis: str = "traffic.rate", **columns: Any
) -> pd.DataFrame:
    """Two replications; normalized latency in ms: the policy's factor times the rate, 10 % more in the second one."""
    frames = []
    for rate in rates:
        for cache, level, horizon, scope, factor in policies:
            times = [factor * float(rate) * 1e6 * more for more in (1.0, 1.1)]
            frame = factory.plain([(cache, level, horizon, scope, [1.0, 1.0], times)], schedule="free", **columns)
            for statistic, more in (("mean", 1), ("p95", 3)):
                frame[f"normalized_{statistic}_ns"] = frame["ns_per_output_token"] * more
                frame[f"e2e_{statistic}_ns"] = frame["ns_per_output_token"] * more * 100
            frame.insert(1, axis, str(rate))
            frames.append(frame)
    found = pd.concat(frames, ignore_index=True)
    return found.assign(run=range(len(found)))


def line(panel: Any, name: str) -> Any:
    (found,) = [drawn for drawn in panel.lines if drawn.get_gid() == name]
    return found


def drawn(frame: pd.DataFrame) -> Figure:
    (sweep,) = sweeps(read(frame))
    figure = latency.against_load(sweep, "here")
    assert figure is not None
    return figure


# ---- sweeps


def test_a_sweep_has_a_line_per_policy_in_order_of_load() -> None:
    (found,) = sweeps(read(summary(rates=(8, 2, 4))))
    assert {name: [found.load(c) for c in line] for name, line in found.lines.items()} == {
        "lru": [2, 4, 8],
        "fifo": [2, 4, 8],
    }
    assert found.loads == [2, 4, 8]
    assert "traffic.rate" not in dict(found.key) and dict(found.key)["case"] == "a"


def test_what_lines_are_named_by_is_what_they_differ_in() -> None:
    frames = [summary((LRU,), batch=batch) for batch in ("decode-first", "prefill-first")]
    (found,) = sweeps(read(pd.concat(frames)))
    assert list(found.lines) == ["decode-first", "prefill-first"]
    (one,) = sweeps(read(summary((LRU,))))
    assert list(one.lines) == ["lru"]


def test_cases_and_sizes_have_sweeps_of_their_own() -> None:
    frames = [summary(case=case, bytes=size) for case in "ab" for size in (100, 200)]
    found = sweeps(read(pd.concat(frames)))
    assert [(dict(s.key)["case"], dict(s.key)["bytes"]) for s in found] == [
        ("a", "100"), ("a", "200"), ("b", "100"), ("b", "200"),
    ]  # fmt: skip


def test_too_many_lines_are_parted_by_scope() -> None:
    policies = [(f"p{n}", "history", "", scope, 1.0) for n in range(5) for scope in ("layer", "global")]
    found = sweeps(read(summary(policies)))
    assert [(dict(s.key)["scope"], len(s.lines)) for s in found] == [("layer", 5), ("global", 5)]
    assert list(found[0].lines) == [f"p{n}" for n in range(5)]


@pytest.mark.parametrize("rates", [(4,), ("few", "many")])
def test_one_load_and_loads_without_numbers_are_no_sweep(rates: tuple[Any, ...]) -> None:
    frame = summary(rates=(4,))
    frames = [frame.assign(**{"traffic.rate": str(rate)}) for rate in rates]
    assert sweeps(read(pd.concat(frames))) == []


# ---- latency


def test_lines_are_the_means_in_milliseconds_and_the_band_is_their_interval() -> None:
    figure = drawn(summary())
    mean, high, difference = figure.axes
    assert [panel.get_title() for panel in figure.axes] == ["mean", "95th percentile", "mean, against lru"]
    assert mean.get_ylabel() == high.get_ylabel() == "latency per output token (ms)"
    assert {panel.get_xlabel() for panel in figure.axes} == {"request rate (requests/s)"}
    assert line(mean, "lru").get_xdata().tolist() == [2, 4, 8]
    assert line(mean, "lru").get_ydata() == pytest.approx([2.1, 4.2, 8.4])
    assert line(high, "fifo").get_ydata() == pytest.approx([12.6, 25.2, 50.4])
    # Paired: FIFO takes twice as long in each replication, and nothing else about it is known.
    assert line(difference, "fifo").get_ydata() == pytest.approx([100] * 3)
    assert line(difference, "lru").get_ydata() == pytest.approx([0] * 3)
    bands = [band.get_paths()[0].vertices[:, 1] for band in mean.collections]
    # The mean of 2 and 2.2 with Student's t of one degree of freedom, 12.706, times 0.1
    assert min(bands[0]) == pytest.approx(2.1 - 1.27062, abs=1e-4) and len(bands) == 2 and not high.collections


def test_lines_are_named_where_they_end() -> None:
    figure = drawn(summary())
    names = {text.get_text(): text for text in figure.axes[-1].texts}
    assert set(names) == {"lru", "fifo"} and figure.legends == []
    assert names["fifo"].xy == (8, pytest.approx(100)) and names["lru"].xy == (8, 0)
    assert names["fifo"].get_color() == line(figure.axes[0], "fifo").get_color()


def test_names_of_lines_that_end_together_stand_apart() -> None:
    heights = latency._spread({"a": 0.5, "b": 0.51, "c": 0.52, "d": 0.9}, 0.1)
    assert [heights[name] for name in "abcd"] == pytest.approx([0.41, 0.51, 0.61, 0.9])


def test_what_is_overloaded_is_hollow_and_no_line_goes_there() -> None:
    frame = summary().assign(overloaded=False)
    frame.loc[(frame["cache"] == "fifo") & (frame["traffic.rate"] == "8"), "overloaded"] = True
    figure = drawn(frame)
    mean, _, difference = figure.axes
    assert line(mean, "fifo").get_xdata().tolist() == [2, 4]
    over = line(mean, "fifo overloaded")
    assert over.get_xdata().tolist() == [8] and over.get_markerfacecolor() == "white"
    assert over.get_linestyle() == "None" and over.get_ydata()[0] <= mean.get_ylim()[1]
    assert "hollow: overloaded" in figure.get_suptitle()
    assert line(difference, "fifo").get_xdata()[~np.isnan(line(difference, "fifo").get_ydata())].tolist() == [2, 4]
    assert "hollow" not in drawn(summary()).get_suptitle()


def test_what_has_no_latency_stands_at_the_top_of_the_frame() -> None:
    frame = summary().assign(cut_off=False)
    frame.loc[(frame["cache"] == "fifo") & (frame["traffic.rate"] == "8"), "cut_off"] = True
    blank = [column for column in frame if column.endswith("_ns") and column != "ns_per_output_token"]
    frame.loc[frame["cut_off"], blank] = math.nan
    mean, high, _ = drawn(frame).axes
    for panel in (mean, high):
        assert line(panel, "fifo overloaded").get_ydata().tolist() == [panel.get_ylim()[1]]
        assert line(panel, "fifo").get_xdata().tolist() == [2, 4]


def test_with_nothing_but_overload_every_line_is_still_named() -> None:
    figure = drawn(summary().assign(overloaded=True))
    assert {text.get_text() for text in figure.axes[-1].texts} == {"lru", "fifo"}
    assert line(figure.axes[0], "lru overloaded").get_xdata().tolist() == [2, 4, 8]


PROMISE = {
    "objective_ttft_s": 0.5, "objective_tpot_s": math.nan, "objective_e2e_s": 1.5, "objective_share": 0.9,
    "attainment": 0.75, "attainment_ttft": 1.0, "attainment_tpot": math.nan, "attainment_e2e": 0.75,
    "goodput_requests_per_s": 3.0,
}  # fmt: skip


def test_an_objective_of_the_end_to_end_latency_is_a_line_in_its_figure() -> None:
    figure = drawn(summary(**PROMISE))
    mean, high, _ = figure.axes
    assert mean.get_ylabel() == "end-to-end latency (s)"
    assert line(mean, "lru").get_ydata() == pytest.approx([0.21, 0.42, 0.84])
    for panel in (mean, high):
        assert [text.get_text() for text in panel.texts] == ["90 % within 1.5 s"]
        assert any(list(drawn.get_ydata()) == [1.5, 1.5] for drawn in panel.lines)
        assert panel.get_ylim()[1] > 1.5


def test_what_is_kept_of_an_objective_has_a_panel_per_limit_and_goodput() -> None:
    (sweep,) = sweeps(read(summary(**PROMISE)))
    figure = latency.kept_against_load(sweep, "here")
    assert figure is not None
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == [
        "requests that kept the objective", "goodput", "first token within 500 ms", "end to end within 1.5 s",
    ]  # fmt: skip
    whole, rate, first, _ = figure.axes
    assert line(whole, "lru").get_ydata() == pytest.approx([75] * 3)
    assert line(first, "lru").get_ydata() == pytest.approx([100] * 3)
    assert line(rate, "lru").get_ydata() == pytest.approx([3] * 3)
    assert any(list(drawn.get_ydata()) == [90, 90] for drawn in whole.lines)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["lru", "fifo"]


def test_without_an_objective_there_is_no_such_figure() -> None:
    (sweep,) = sweeps(read(summary()))
    assert latency.kept_against_load(sweep, "here") is None


def test_one_line_has_no_differences_and_a_large_range_is_logarithmic() -> None:
    figure = drawn(summary((LRU,), rates=(1, 4, 16, 64)))
    assert [panel.get_title() for panel in figure.axes] == ["mean", "95th percentile"]
    assert figure.axes[0].get_yscale() == figure.axes[0].get_xscale() == "log"
    assert drawn(summary()).axes[2].get_yscale() == "linear"


# ---- the largest load


def searched(found: dict[str, list[float]], outcomes: dict[str, list[str]] | None = None) -> pd.DataFrame:
    """Two replications per policy that searched for their largest rate between 1 and 40."""
    frames = []
    for cache, rates in found.items():
        frame = factory.plain([(cache, "history", "", "layer", [1.0, 1.0], [1.0, 1.0])], schedule="free", **PROMISE)
        frame["max_rate"], frame["rate_met"], frame["rate_failed"] = rates, [40.0, 10.0], [math.nan, 1.0]
        frame["search_outcome"] = (outcomes or {}).get(cache, ["found"] * 2)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def test_a_row_per_policy_has_its_largest_rate_and_the_paired_difference() -> None:
    (sweep,) = searches(read(searched({"lru": [10.0, 12.0], "fifo": [11.0, 13.2]})))
    figure = largest.largest_load(sweep, "here")
    assert figure is not None
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["lru", "fifo"]
    assert left.get_xlabel() == "largest rate (requests/s)" and right.get_xlabel() == "paired difference from lru (%)"
    assert [bars.lines[0].get_xdata()[0] for bars in left.containers] == pytest.approx([11, 12.1])
    assert [bars.lines[0].get_xdata()[0] for bars in right.containers] == pytest.approx([10])
    assert "largest load at which 90 % of the requests keep TTFT 500 ms, end-to-end 1.5 s" in figure.get_suptitle()


def test_a_search_that_ended_at_its_ends_says_so() -> None:
    outcomes = {"fifo": ["even to meets", "even from fails"]}
    (sweep,) = searches(read(searched({"lru": [10.0, 12.0], "fifo": [math.nan] * 2}, outcomes)))
    figure = largest.largest_load(sweep, "here")
    assert figure is not None
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words == ["below 1 in 1 of 2 replications; above 40 in 1 of 2 replications"]
    assert len(figure.axes[0].containers) == 1


def test_without_a_search_there_is_none() -> None:
    assert searches(read(summary())) == []


# ---- files


def test_files_are_equal_byte_for_byte_and_a_load_has_no_figures_of_its_own(tmp_path: Path) -> None:
    frame, notes = summary(**PROMISE), []
    first, second = (plots.save_all(frame, tmp_path / name, notes.append) for name in "ab")
    names = ["a-latency", "a-objective"]
    assert [path.name for path in first] == [f"{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert not notes


def test_two_loads_keep_their_own_figures(tmp_path: Path) -> None:
    found = {path.stem for path in plots.save_all(summary(rates=(2, 4), attention_ns=5), tmp_path)}
    assert {"a-latency", "a-rate-2-time", "a-rate-4-time"} <= found
