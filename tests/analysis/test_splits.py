"""The figure of the best split of GPU memory: what stands where, what is ringed, and when it is drawn at all."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from moesim.analysis import plots, splits
from moesim.analysis.configurations import read
from moesim.analysis.naming import sets
from moesim.analysis.report import pictures

GB = 10**9
SHARES = (0.2, 0.4, 0.6)
# ns per token in two replications: the second share is the best of lru, and not shown to be better than the first.
LRU = {0.2: [4e6, 8e6], 0.4: [3e6, 8.5e6], 0.6: [8e6, 13.5e6]}
STEP = {0.2: [2e6, 2.2e6], 0.4: [3e6, 3.2e6], 0.6: [4e6, 4.2e6]}


def point(times: dict[str, list[float]], **columns: object) -> list[dict[str, object]]:
    """Runs of each policy at one place; the level of all but lru is `step`."""
    return [
        {"case": "a", "replication": replication, **columns, "cache": cache, "unknown": "", "horizon": None,
         "level": "history" if cache == "lru" else "step", "scope": "global", "slots": None,
         "schedule": "free", "oracle": "", "steps": 10, "ns_per_output_token": ns}
        for cache, found in times.items()
        for replication, ns in enumerate(found)
    ]  # fmt: skip


def split(share: float, **columns: object) -> list[dict[str, object]]:
    times = {"lru": LRU[share], "lookahead": STEP[share]}
    sizes = {"bytes": round((10 - 10 * share) * GB), "kv_bytes": round(10 * share * GB), "gpu_bytes": 10 * GB}
    return point(times, **{"memory.kv.share": share, **columns, **sizes})


def frame(rows: list[dict[str, object]]) -> pd.DataFrame:
    found = pd.DataFrame(rows)
    found.insert(0, "run", range(len(found)))
    return found


def drawn(summary: pd.DataFrame) -> dict[str, object]:
    return dict(splits.against_memory(read(summary)))


def test_a_line_a_policy_with_bands_and_its_best_ringed() -> None:
    (figure,) = drawn(frame([row for share in SHARES for row in split(share)])).values()
    (panel,) = figure.axes
    lines = {line.get_label(): line for line in panel.lines if not line.get_label().startswith("_")}
    assert list(lines) == ["lru", "lookahead step"]
    assert lines["lru"].get_xdata().tolist() == list(SHARES)
    assert lines["lru"].get_ydata() == pytest.approx([6, 5.75, 10.75])
    rings = [(r.get_xdata()[0], r.get_ydata()[0]) for r in panel.lines if r.get_fillstyle() == "none"]
    assert rings == [(0.4, pytest.approx(5.75)), (0.2, pytest.approx(2.1))]
    assert len(panel.collections) == 2  # the bands
    assert panel.get_xlabel() == "KV share\nfastest: 0.2 (experts 8 GB, KV 2 GB)"


def test_what_is_shown_to_be_slower_than_the_best_is_hollow() -> None:
    (figure,) = drawn(frame([row for share in SHARES for row in split(share)])).values()
    marks = [line for line in figure.axes[0].lines if line.get_linestyle() == "None" and line.get_fillstyle() != "none"]
    hollow = [mark.get_xdata()[0] for mark in marks if mark.get_markerfacecolor() == "white"]
    assert len(marks) == 6 and hollow == [0.6, 0.4, 0.6]  # of lru, whose replications differ much; and of step


def test_cases_and_the_rest_of_the_memory_have_panels_of_their_own() -> None:
    rows = [
        row
        for case in ("few", "many")
        for preempt in ("swap", "recompute")
        for share in SHARES
        for row in split(share, **{"memory.workspace": {"swap": 0, "recompute": 5}[preempt]}, case=case)
    ]
    (figure,) = drawn(frame(rows)).values()
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["few · workspace 0", "few · workspace 5", "many · workspace 0", "many · workspace 5"]


def test_a_case_without_the_axis_is_left_out() -> None:
    rows = [row for share in SHARES for row in split(share)]
    sizes = {"memory.kv.share": None, "bytes": GB, "kv_bytes": GB, "gpu_bytes": 10 * GB}
    (figure,) = drawn(frame([*rows, *point({"lru": [1.0, 2.0]}, **{**sizes, "case": "b"})])).values()
    assert [panel.get_title() for panel in figure.axes] == ["a"]


def test_sizes_in_words_stand_at_their_bytes() -> None:
    rows = [
        row
        for size in (8, 16, 80)
        for row in point({"lru": [1e6, 2e6]}, **{"memory.gpu": f"{size}GB", "bytes": GB, "gpu_bytes": size * GB})
    ]
    found = drawn(frame(rows))
    assert list(found) == ["memory-gpu"]
    assert found["memory-gpu"].axes[0].lines[0].get_xdata().tolist() == [8, 16, 80]
    assert found["memory-gpu"].axes[0].get_xlabel().startswith("GPU (GB)")
    assert found["memory-gpu"].axes[0].get_xscale() == "log"  # ten times as much


def test_a_cache_that_may_only_grow_has_no_best_size() -> None:
    times = {"lru": [1e6, 2e6]}
    rows = [row for slots in (3, 4, 5) for row in point(times, **{"memory.slots": slots, "bytes": slots * GB})]
    assert not drawn(frame(rows))
    budget = [dict(row, gpu_bytes=10 * GB) for row in rows]
    ordered = pd.DataFrame(budget)[["case", "replication", "memory.slots", "gpu_bytes", *list(rows[0])[3:]]]
    assert list(drawn(ordered)) == ["memory-slots"]
    words = [dict(row, **{"memory.scope": "global"}) for row in split(0.2)]
    assert not drawn(frame(words))


def test_the_figure_stands_in_for_that_of_the_cache_size(tmp_path: Path) -> None:
    parts = dict.fromkeys([f"{part}_ns" for part in (*plots.figures.PARTS, "idle")], 5)
    rows = [dict(row, **parts) for share in SHARES for row in split(share)]
    names = {path.stem for path in plots.save_all(frame(rows), tmp_path)}
    assert names == {"memory-kv-share", "a-time"}


def test_of_many_sizes_only_some_have_bars() -> None:
    parts = dict.fromkeys([f"{part}_ns" for part in (*plots.figures.PARTS, "idle")], 5)
    shares = [round(0.05 * n, 2) for n in range(1, 12)]
    rows = [
        dict(row, **parts)
        for share in shares
        for row in point({"lru": [1e6, 2e6]}, **{"memory.kv.share": share, "bytes": share * GB})
    ]
    figure = plots.figures.where_time_goes(read(frame(rows)), "here")
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["0.05 GB", "0.15 GB", "0.25 GB", "0.35 GB", "0.45 GB", "0.55 GB"]
    assert "6 of 11 sizes" in figure.get_suptitle()


def test_a_report_has_it() -> None:
    found = read(frame([row for share in SHARES for row in split(share)]))
    (shown,) = pictures.along_memory(sets(found))
    assert "time against KV share" in str(shown) and "<svg" in str(shown)
