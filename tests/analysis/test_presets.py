"""Presets beside each other: they compare whatever they prefetch, are ranked, and reversals are named."""

from __future__ import annotations

import pandas as pd
import pytest

from moesim.analysis import digest, disagree, gap, plots, ranking, table
from moesim.analysis.configurations import baseline, grouped, read
from tests.analysis import factory

COSTS = {
    "label_costs": "MEASURED: a device",
    "reuse_rate": 0.7,
    "prefetch_rate": 0.1,
    "moved_bytes_per_output_token": 2e9,
}
ROWS = [
    # preset, level, prefetch, misses and ns of three replications
    ("steady", "history", "none", [10.0, 12.0, 11.0], [100e6, 101e6, 99e6]),
    ("greedy", "step", "next-layer", [6.0, 7.0, 6.5], [120e6, 123e6, 121e6]),
    ("quick", "queue", "step-ahead", [9.0, 12.0, 12.5], [90e6, 91e6, 88e6]),
    ("all-knowing", "oracle", "oracle", [5.0, 5.0, 5.0], [130e6, 130e6, 131e6]),
]


def frame() -> pd.DataFrame:
    parts = [
        factory.plain([("lru", level, "", "layer", misses, times)], preset=name, prefetch=prefetch, **COSTS)
        for name, level, prefetch, misses, times in ROWS
    ]
    found = pd.concat(parts, ignore_index=True)
    found["run"] = range(len(found))
    return found


def test_presets_compare_whatever_they_prefetch() -> None:
    configurations = read(frame())
    (group,) = grouped(configurations).values()
    assert [c.policy for c in group] == ["steady", "greedy", "quick", "all-knowing"]
    base = baseline(group, "ns_per_output_token")
    assert base is not None and base.whole == "steady"


def test_a_prefetcher_that_is_an_axis_of_its_own_still_tells_groups_apart() -> None:
    crossed = pd.concat([frame(), frame().assign(prefetch="none")], ignore_index=True)
    assert len(grouped(read(crossed))) == 4  # none, next-layer, step-ahead, oracle


def test_the_table_ranks_by_time_with_misses_beside() -> None:
    lines = [" ".join(line.split()) for line in table.render(frame()).splitlines()]
    start = next(n for n, line in enumerate(lines) if line.startswith("policy scope"))
    assert lines[start + 1 : start + 5] == [
        "quick layer 11.2 ±4.7 (+2 ±29) 89.7 ±3.8* -10.3 ±1.7 70+10 2.00",
        "B steady layer 11.0 ±2.5 100 ±2 70+10 2.00",
        "greedy layer 6.50 ±1.24* -40.9 ±2.2 121 ±4 +21.3 ±2.9 70+10 2.00",
        "o all-knowing layer 5.00 ±0.00 -55 ±11 130 ±1 +30.3 ±4.5 70+10 2.00",
    ]
    assert "gap" not in lines[start - 1]


def test_reversals_are_those_that_both_intervals_show() -> None:
    (group,) = grouped(read(frame())).values()
    found = [(r.ours.whole, r.theirs.whole) for r in disagree.reversals(group)]
    assert found == [("greedy", "quick"), ("greedy", "steady")]  # oracles are left out; quick against steady is unclear
    words = disagree.words(group)
    assert words[0] == "fewer misses and more time: 2 of 3 pairs without an oracle"
    assert words[1].startswith("  greedy against steady: misses -40.9 % [")  # the baseline first
    assert words[0] in table.render(frame()) and words[0] in digest.render(frame())
    assert disagree.words([c for c in group if c.whole == "quick"])[0].startswith("fewer misses and more time: 0 of 0")


def test_presets_have_no_gap() -> None:
    assert gap.add_gaps(frame())[["gap_misses", "gap_time"]].isna().all(axis=None)


def test_the_figure_has_a_row_for_each_fastest_first() -> None:
    figure = ranking.ranking(read(frame()), "a")
    assert figure is not None
    names = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert names == ["quick, layer", "steady, layer (B)", "greedy, layer", "all-knowing, layer"]
    assert ranking.ranking(read(factory.summary(2, ("waiting",), (4,))), "a") is None


def test_figures_are_written(tmp_path: pytest.TempPathFactory) -> None:
    names = {path.name for path in plots.save_all(frame(), tmp_path)}  # type: ignore[arg-type]
    assert "a-ranking.png" in names or "all-ranking.png" in names
    assert not any("slots" in name or "horizon" in name for name in names)
