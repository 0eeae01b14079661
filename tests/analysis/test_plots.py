"""Figures: equal bytes for equal results, units on every axis, nothing drawn from nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from moesim.analysis import figures, plots
from moesim.analysis.configurations import Configuration, read
from moesim.analysis.metrics import PARTS
from tests.analysis import factory

SLOTS = (3, 4)


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    return factory.summary(2, ("waiting",), SLOTS)


@pytest.fixture(scope="module")
def configurations(summary: pd.DataFrame) -> list[Configuration]:
    return read(summary)


def test_two_renders_have_equal_bytes_and_every_figure_is_there(summary: pd.DataFrame, tmp_path: Path) -> None:
    notes: list[str] = []
    first, second = (plots.save_all(summary, tmp_path / name, notes.append) for name in ("a", "b"))
    names = ["slots", "horizon-global", "horizon-layer", "time"]
    assert [p.name for p in first] == [f"waiting-{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second] and not notes
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(p.name for p in first)
    assert all(b"<dc:date>" not in p.read_bytes() for p in first)


def test_other_results_draw_other_figures(summary: pd.DataFrame, tmp_path: Path) -> None:
    slower = summary.assign(ns_per_output_token=summary["ns_per_output_token"] * np.linspace(1, 2, len(summary)))
    (one, *_), (other, *_) = (plots.save_all(s, tmp_path / n) for s, n in ((summary, "a"), (slower, "b")))
    assert one.read_bytes() != other.read_bytes()


def test_a_figure_without_data_is_left_out_and_said(tmp_path: Path) -> None:
    notes: list[str] = []
    rows = [("lru", "history", "", "layer", [1.0, 2.0], [1.0, 2.0])]
    assert plots.save_all(factory.plain(rows), tmp_path, notes.append) == []
    assert notes == [
        "no figure a-slots: the cache has one size only",
        "no figure a-horizon-layer: no gap captured at two horizons or more",
        "no figure a-time: no parts of a step's time",
    ]
    assert not list(tmp_path.iterdir())


def test_sets_differ_in_all_but_memory_and_are_named_by_what_differs(tmp_path: Path) -> None:
    rows = [("lru", "history", "", "layer", [1.0, 2.0], [1.0, 2.0])]
    parts = {f"{part}_ns": 5 for part in (*PARTS, "idle")}
    frames = [
        factory.plain(rows, **parts, **{"scheduler.max_requests": most, "slots": slots, "bytes": 100 * slots})
        for most in (8, 32)
        for slots in SLOTS
    ]
    frame = pd.concat(frames)
    frame = frame[
        [c for c in frame if c == "scheduler.max_requests"] + [c for c in frame if c != "scheduler.max_requests"]
    ]
    found = {p.stem for p in plots.save_all(frame, tmp_path)}
    assert found == {"cases"} | {f"a-max-requests-{most}-{name}" for most in (8, 32) for name in ("slots", "time")}


def drawn(configurations: list[Configuration]) -> list:
    return [
        figures.against_slots(configurations, "here"),
        figures.against_horizon(configurations, "here", "layer"),
        figures.where_time_goes(configurations, "here"),
    ]


def test_titles_and_axes_say_what_and_in_which_unit(configurations: list[Configuration]) -> None:
    for figure in drawn(configurations):
        assert figure.get_suptitle().startswith("ESTIMATED times · here")
        assert all(label in figure.get_supxlabel() for label in factory.LABELS.values())
        panels = np.array(figure.axes)
        labels = {panel.get_xlabel() for panel in panels} | {panel.get_ylabel() for panel in panels}
        assert labels & {"time per output token (ms)", "gap captured in time (%)", "ms per step"}
        assert labels & {"cache size (experts a layer)", "horizon (layer events)", "ms per step"}


def test_lines_are_the_numbers(configurations: list[Configuration]) -> None:
    """LRU per layer: the panel's points are the means over the replications, misses above and ms below."""
    figure = figures.against_slots(configurations, "")
    lru = sorted((c for c in configurations if c.cache == "lru" and c.scope == "layer"), key=lambda c: c.mean("bytes"))
    for panel, column, scale in ((0, figures.MISSES, 1), (2, figures.TIME, 1e-6)):
        (line,) = [bars.lines[0] for bars in figure.axes[panel].containers if bars.get_label() == "lru"]
        assert line.get_xdata().tolist() == list(SLOTS)
        assert line.get_ydata() == pytest.approx([c.mean(column) * scale for c in lru])


def test_bars_add_up_to_the_step(configurations: list[Configuration]) -> None:
    figure = figures.where_time_goes(configurations, "")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(names) == 2 * 8 and names[2] == "lru, layer" and names[-1] == "lookahead oracle ∞, global"
    widths = sum(bars.patches[2].get_width() for bars in figure.axes[0].containers)
    (lru,) = [c for c in configurations if (c.cache, c.scope, str(c.value("slots"))) == ("lru", "layer", "3")]
    assert widths == pytest.approx(lru.mean("ns_per_step") / 1e6)


def test_horizons_stand_in_order_with_zero_and_unlimited_at_the_ends(configurations: list[Configuration]) -> None:
    figure = figures.against_horizon(configurations, "", "layer")
    assert [t.get_text() for t in figure.axes[-1].get_xticklabels()] == ["0", "8", "16", "32", "64", "∞"]
    assert list(figure.axes[-1].get_xticks()) == sorted(figure.axes[-1].get_xticks())
    (oracle,) = [b.lines[0] for b in figure.axes[0].containers if b.get_label() == "lookahead oracle"]
    assert oracle.get_linestyle() == "--" and oracle.get_ydata()[-1] == pytest.approx(100)


def test_of_each_family_the_farthest_sight_is_shown(configurations: list[Configuration]) -> None:
    shown = figures.farthest(c for c in configurations if c.scope == "layer" and c.value("slots") == 3)
    assert [c.policy for c in shown] == [
        "random", "fifo", "lru", "lfu", "lookahead step unlimited", "lookahead queue unlimited",
        "lookahead queue unlimited persist", "lookahead oracle unlimited",
    ]  # fmt: skip


def test_cases_beside_each_other_show_the_best_of_each() -> None:
    cases = {name: read(factory.summary(2, (name,), SLOTS)) for name in ("waiting", "fresh")}
    figure = figures.across_sets(cases)
    drawn = {bars.get_label(): bars.lines[0].get_ydata().tolist() for bars in figure.axes[1].containers}
    assert list(drawn) == [f"{name}: best {word}" for name in cases for word in ("policy", "oracle")]
    for name, members in cases.items():
        for word, is_oracle in (("policy", False), ("oracle", True)):
            least = [
                min(
                    c.mean(figures.TIME)
                    for c in members
                    if c.value("slots") == slots and (c.level == "oracle") == is_oracle
                )
                for slots in SLOTS
            ]
            assert drawn[f"{name}: best {word}"] == pytest.approx([value / 1e6 for value in least])


def test_one_scope_stands_in_one_row_and_its_differences_are_paired(configurations: list[Configuration]) -> None:
    figure = figures.against_slots([c for c in configurations if c.scope == "layer"], "")
    assert [panel.get_subplotspec().rowspan.start for panel in figure.axes] == [0, 0, 0]
    assert all(panel.get_xlabel() for panel in figure.axes)
    (lru,) = [bars.lines[0] for bars in figure.axes[2].containers if bars.get_label() == "lru"]
    assert lru.get_ydata() == pytest.approx([0, 0])  # LRU is the baseline


@pytest.mark.parametrize(("factor", "scale"), [(1.0, "linear"), (4.0, "symlog")])
def test_what_is_far_below_leaves_room_for_what_is_near(summary: pd.DataFrame, factor: float, scale: str) -> None:
    """Global caches that miss so much that their gap is below -300 % bend the axis."""
    deep = summary["ns_per_output_token"].where(summary["scope"] == "layer", summary["ns_per_output_token"] * factor)
    figure = figures.against_horizon(read(summary.assign(ns_per_output_token=deep)), "", "global")
    assert {panel.get_yscale() for panel in figure.axes[2:]} == {scale}
    low, high = figure.axes[2].get_ylim()
    drawn = [value for bars in figure.axes[2].containers for value in bars.lines[0].get_ydata()]
    assert low < min(drawn) and high > 100
