"""Figures: equal bytes for equal results, units on every axis, nothing drawn from nothing."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from moesim.analysis import digest, figures, horizon, overview, plots
from moesim.analysis.configurations import Configuration, read
from moesim.analysis.gap import against_baseline
from moesim.analysis.metrics import PARTS
from tests.analysis import factory

SLOTS = (3, 4)


@pytest.fixture(scope="module")
def summary() -> pd.DataFrame:
    return factory.summary(2, ("waiting",), SLOTS)


@pytest.fixture(scope="module")
def configurations(summary: pd.DataFrame) -> list[Configuration]:
    return read(summary)


@pytest.fixture(scope="module")
def rendered(summary: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return plots.save_all(summary, tmp_path_factory.mktemp("rendered"), lambda note: pytest.fail(note))


def test_two_renders_have_equal_bytes_and_every_figure_is_there(
    summary: pd.DataFrame, rendered: list[Path], tmp_path: Path
) -> None:
    notes: list[str] = []
    first, second = rendered, plots.save_all(summary, tmp_path, notes.append)
    names = ["slots", "horizon", "time"]
    assert [p.name for p in second] == [f"waiting-{name}.{kind}" for name in names for kind in ("png", "svg")]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second] and not notes
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in second)
    assert all(b"<dc:date>" not in p.read_bytes() for p in first)


def test_other_results_draw_other_figures(summary: pd.DataFrame, rendered: list[Path], tmp_path: Path) -> None:
    slower = summary.assign(ns_per_output_token=summary["ns_per_output_token"] * np.linspace(1, 2, len(summary)))
    (one, *_), (other, *_) = rendered, plots.save_all(slower, tmp_path)
    assert one.read_bytes() != other.read_bytes()


def test_a_figure_without_data_is_left_out_and_said(tmp_path: Path) -> None:
    notes: list[str] = []
    rows = [("lru", "history", "", "layer", [1.0, 2.0], [1.0, 2.0])]
    assert plots.save_all(factory.plain(rows), tmp_path, notes.append) == []
    assert notes == [
        "no figure a-slots: the cache has one size only",
        "no figure a-horizon: no gap captured at two horizons or more",
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
        horizon.against_horizon(configurations, "here"),
        figures.where_time_goes(configurations, "here"),
    ]


def test_titles_and_axes_say_what_and_in_which_unit(configurations: list[Configuration]) -> None:
    for figure in drawn(configurations):
        assert figure.get_suptitle().startswith("ESTIMATED times · here")
        assert all(label in figure.get_supxlabel() for label in factory.LABELS.values())
        panels = np.array(figure.axes)
        labels = {panel.get_xlabel() for panel in panels} | {panel.get_ylabel() for panel in panels}
        assert labels & {"time per output token (ms)", "gap captured\nin time (%)", "ms per step (own scale)"}
        assert labels & {"cache size (experts a layer)", "horizon (layer events)", "ms per step (own scale)"}


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


def curve(panel: Any, name: str) -> list[float]:
    (line,) = [bars.lines[0] for bars in panel.containers if bars.get_label() == name]
    return line.get_ydata().tolist()


def test_horizons_stand_in_order_with_zero_and_unlimited_at_the_ends(configurations: list[Configuration]) -> None:
    figure = horizon.against_horizon(configurations, "")
    last = figure.axes[-1]
    assert [t.get_text() for t in last.get_xticklabels()] == ["0", "8", "16", "32", "64", "∞"]
    assert list(last.get_xticks()) == sorted(last.get_xticks())
    (oracle,) = [b.lines[0] for b in figure.axes[0].containers if b.get_label() == "lookahead oracle"]
    assert oracle.get_linestyle() == "--" and oracle.get_ydata()[-1] == pytest.approx(100)


def test_both_scopes_and_both_measures_stand_on_one_scale(configurations: list[Configuration]) -> None:
    """Rows: misses and time per layer, then misses and time global; columns: the sizes."""
    figure = horizon.against_horizon(configurations, "")
    titles = [panel.get_title() for panel in figure.axes]
    layer, everywhere = figures.SCOPES.values()
    assert titles[:2] == [f"{layer}, {size} experts a layer" for size in SLOTS] and not any(titles[2:4])
    assert titles[4:6] == [f"{everywhere}, {size} experts a layer" for size in SLOTS] and len(titles) == 8
    assert len({panel.get_ylim() for panel in figure.axes}) == 1
    for row, (scope, column) in enumerate((s, m) for s in ("layer", "global") for m in ("gap_misses", "gap_time")):
        for place, slots in enumerate(SLOTS):
            shown = [c for c in configurations if (c.scope, c.value("slots"), c.level) == (scope, slots, "oracle")]
            wanted = [c.mean(column) * 100 for c in sorted(shown, key=lambda c: c.horizon)]
            assert curve(figure.axes[2 * row + place], "lookahead oracle") == pytest.approx(wanted)


def test_scopes_of_one_size_stand_beside_each_other(configurations: list[Configuration]) -> None:
    figure = horizon.against_horizon([c for c in configurations if c.value("slots") == 4], "")
    assert [panel.get_subplotspec().colspan.start for panel in figure.axes] == [0, 1, 0, 1]
    assert [panel.get_title() for panel in figure.axes[:2]] == [
        f"{s}, 4 experts a layer" for s in figures.SCOPES.values()
    ]


def test_of_each_family_the_farthest_sight_is_shown(configurations: list[Configuration]) -> None:
    shown = figures.farthest(c for c in configurations if c.scope == "layer" and c.value("slots") == 3)
    assert [c.policy for c in shown] == [
        "random", "fifo", "lru", "lfu", "lookahead step unlimited", "lookahead queue unlimited",
        "lookahead queue unlimited persist", "lookahead oracle unlimited",
    ]  # fmt: skip


def test_cases_beside_each_other_have_a_row_per_size_with_what_is_best() -> None:
    cases = {name: read(factory.summary(2, (name,), SLOTS)) for name in ("waiting", "fresh")}
    left, right = overview.across_sets(cases).axes
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["waiting   3", "4", "fresh   3", "4"]
    groups = [[c for c in cs if c.value("slots") == slots] for cs in cases.values() for slots in SLOTS]
    wanted = {
        "best history policy": "history",
        "best policy without an oracle": "queue",
        "best unlimited oracle": "oracle",
    }
    drawn = {bars.get_label(): bars.lines[0] for bars in left.containers}
    changes = {bars.get_label(): bars.lines[0].get_xdata().tolist() for bars in right.containers}
    assert list(drawn) == list(wanted) and list(changes) == list(wanted)[1:]
    for word, level in wanted.items():
        found = [min((c for c in group if c.level == level), key=lambda c: c.mean(figures.TIME)) for group in groups]
        assert drawn[word].get_xdata() == pytest.approx([c.mean(figures.TIME) / 1e6 for c in found])
        assert [round(y) for y in drawn[word].get_ydata()] == [0, 1, 2, 3]
        if word in changes:
            paired = [against_baseline(c, g, figures.TIME).value for c, g in zip(found, groups, strict=True)]
            assert changes[word] == pytest.approx([100 * change for change in paired])


def test_cases_without_a_best_policy_of_their_own_show_none() -> None:
    rows = [("lru", "history", "", "layer", [1.0, 2.0], [1.0, 2.0])]
    (panel,) = overview.across_sets({name: read(factory.plain(rows, case=name)) for name in "ab"}).axes
    assert [bars.get_label() for bars in panel.containers] == ["best history policy"], "no panel of no differences"
    nothing = factory.plain([("fifo", "history", "", "layer", [float("nan")] * 2, [float("nan")] * 2)])
    assert overview.across_sets({"a": read(nothing)}) is None


def test_sizes_of_kv_memory_tell_rows_of_equal_caches_apart() -> None:
    rows = [("lru", "history", "", "layer", [1.0, 2.0], [1.0, 2.0])]
    columns = {"slots": "", "bytes": 8_000_000_000}
    sizes = {"0.2": 3_600_000_000, "0.4": 7_200_000_000}
    both = pd.concat(
        [factory.plain(rows, **columns, kv_bytes=s, **{"memory.kv.share": share}) for share, s in sizes.items()]
    )
    both["run"] = range(len(both))
    figure = overview.across_sets({"": read(both)})
    figure.draw_without_rendering()
    (panel,) = figure.axes
    assert [label.get_text().split()[-2:] for label in panel.get_yticklabels()] == [["8,", "3.6"], ["8,", "7.2"]]
    assert panel.get_ylabel() == "case, and\ncache size, KV\n(GB)"
    title = figure._suptitle.get_window_extent()
    assert panel.yaxis.label.get_window_extent().y1 < title.y0, "the name of the axis ends below the title"
    words = [line.split() for line in digest.render(both).splitlines()]
    assert [row[:2] for row in words if "lru," in row] == [["8", "3.6"], ["8", "7.2"]]


def test_titles_are_broken_where_the_figure_ends(configurations: list[Configuration]) -> None:
    long = " · ".join(f"a part of a name that is number {number}" for number in range(9))
    for figure in (horizon.against_horizon(configurations, long), figures.where_time_goes(configurations, long)):
        figure.savefig(io.BytesIO(), dpi=50)  # lays it out
        assert figure._suptitle.get_window_extent().x1 <= figure.bbox.x1
        assert "number 8" in figure.get_suptitle()


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
    figure = horizon.against_horizon(read(summary.assign(ns_per_output_token=deep)), "")
    assert {panel.get_yscale() for panel in figure.axes} == {scale}
    low, high = figure.axes[-1].get_ylim()
    drawn = [value for panel in figure.axes for bars in panel.containers for value in bars.lines[0].get_ydata()]
    assert low < np.nanmin(drawn) and high > 100
