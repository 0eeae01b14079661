"""What Python and Jupyter see: the public names, tidy frames, comparisons, plots, and how mistakes read."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot

import moesim
from moesim.analysis import compare as statistics
from moesim.analysis.gap import against_baseline
from moesim.trace.routing import write_routing
from moesim.trace.synthetic import synthetic
from tests.tiny import tiny

LOOKING = {"name": "lookahead", "level": "oracle"}
GRID: dict[str, Any] = {
    "question": "Is <b> escaped?",
    "memory": {"slots": [2, 4], "scope": ["layer", "global"]},
    "cache": {"each": {"old": "lru", "counts": "lfu", "ahead": LOOKING}},
    "schedule": "frozen",
    "replications": 3,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> moesim.Results:
    return moesim.run(tiny(**GRID), out=tmp_path_factory.mktemp("api") / "grid", figures=False)


@pytest.fixture(autouse=True)
def _nowhere() -> Any:
    pyplot.switch_backend("agg")
    yield
    pyplot.close("all")


def test_the_public_names_are_these_and_each_of_them_is_there() -> None:
    names = ["Comparison", "Curves", "InputError", "Results", "__version__", "cache", "compare", "load", "run"]
    assert moesim.__all__ == names == dir(moesim)
    assert all(getattr(moesim, name).__doc__ for name in names if name != "__version__")
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        _ = moesim.rum
    assert (Path(moesim.__file__).parent / "py.typed").is_file()


def test_importing_it_brings_nothing_with_it() -> None:
    heavy = {"pandas", "numpy", "matplotlib", "pyarrow", "pydantic", "yaml", "torch", "typer"}
    code = f"import sys, moesim; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# -- run


def test_a_section_may_be_changed_whole_and_in_parts_and_stays_the_callers(tmp_path: Path) -> None:
    mine = {"slots": 4}
    found = moesim.run(tiny(), out=tmp_path, figures=False, memory=mine, memory__scope="global")
    assert (found.configs[0].memory.slots, found.configs[0].memory.scope) == (4, "global")
    assert mine == {"slots": 4}
    again = moesim.run(tiny(), out=tmp_path, figures=False, memory__scope="global", memory=mine)
    assert again.configs == found.configs


def test_mistakes_of_run_are_named_as_its_arguments(tmp_path: Path) -> None:
    with pytest.raises(moesim.InputError) as caught:
        moesim.run(tiny(), out=tmp_path / "x", save=["stepps"], memory__slots=4, memory={"slots": 3}, jobz=2)
    told = {problem.place: problem.text for problem in caught.value.problems}
    assert list(told) == ["memory.slots", "save", "jobz"]
    assert told["memory.slots"] == "is given twice: 4 and 3"
    assert not (tmp_path / "x").exists()


# -- tidy frames


def test_runs_have_a_row_each_labels_as_columns_and_units_in_their_names(results: moesim.Results) -> None:
    runs, summary = results.runs, results.summary
    assert len(runs) == len(summary) == 2 * 2 * 3 * 3
    assert runs["run"].tolist() == summary["run"].tolist()
    assert not [c for c in runs if re.search(r"(_|^)(ns|bytes)(_|$)", c)]
    assert np.allclose(runs["ms_per_output_token"], summary["ns_per_output_token"] / 1e6, rtol=1e-12)
    assert np.allclose(runs["moved_mb_per_output_token"], summary["moved_bytes_per_output_token"] / 1e6, rtol=1e-12)
    assert np.allclose(runs["cache_gb"], summary["bytes"] / 1e9, rtol=1e-12)
    assert runs["reuse_rate"].tolist() == summary["reuse_rate"].tolist(), "shares are as they were"
    assert set(runs["policy"]) == {"lru", "lfu", "lookahead oracle"}
    assert set(runs["cache.label"]) == set(GRID["cache"]["each"])
    assert runs.groupby(["policy", "scope", "experts_per_layer"])["replication"].nunique().eq(3).all()
    assert runs["oracle"].tolist() == (summary["oracle"] != "").tolist()
    assert "case" not in runs, "there are no cases"


def test_means_have_a_row_per_configuration_and_metric(results: moesim.Results) -> None:
    means = results.means("time", "misses", "ttft_p95")
    assert list(means.columns[:3]) == ["policy", "scope", "experts_per_layer"]
    assert list(means.columns[3:]) == ["metric", "unit", "mean", "low", "high", "replications"]
    assert means.groupby("metric")["unit"].unique().map(list).to_dict() == {
        "misses": ["expert keys"],
        "time": ["ms"],
        "ttft_p95": ["ms"],
    }
    chosen = results.runs.query("policy == 'lru' and scope == 'layer' and experts_per_layer == 4")
    row = means.query("policy == 'lru' and scope == 'layer' and experts_per_layer == 4 and metric == 'time'").iloc[0]
    expected = statistics.mean(chosen["ms_per_output_token"].to_numpy())
    assert (row["mean"], row["low"], row["high"]) == pytest.approx((expected.value, expected.low, expected.high))


def test_latencies_are_of_answered_requests_with_their_labels(results: moesim.Results) -> None:
    requests = results.requests
    done = requests[requests["measured"] & (requests["finished_ns"] >= 0)]
    found = results.latencies
    assert len(found) == len(done) > 0
    assert np.allclose(found["e2e_ms"], done["e2e_ns"].astype(float) / 1e6)
    assert {"policy", "scope", "experts_per_layer", "prompt_tokens", "ttft_ms"} <= set(found)


def test_where_keeps_what_has_these_labels_and_baselines_stay(results: moesim.Results) -> None:
    kept = results.where(scope="global", experts_per_layer=4)
    assert set(kept.runs["scope"]) == {"global"} and len(kept.summary) == 9
    assert len(results.where(policy=["lru", "lfu"]).summary) == 24
    assert len(results.where(memory__slots="4").summary) == len(results.where(**{"memory.slots": 4.0}).summary) == 18
    everyone = moesim.compare(results).frame.set_index(["policy", "scope", "experts_per_layer"])["percent"]
    for _, row in moesim.compare(kept).frame.iterrows():
        assert row["percent"] == everyone[row["policy"], "global", 4.0]
    assert "18 runs" in repr(results.where(scope="layer"))


def test_mistakes_of_where_are_all_told(results: moesim.Results) -> None:
    with pytest.raises(moesim.InputError) as caught:
        results.where(scop="layer", policy=["lru", "lrv"], experts_per_layer=3)
    assert [p.place for p in caught.value.problems] == ["where", "where policy", "where experts_per_layer"]
    assert "did you mean 'scope'?" in str(caught.value) and "did you mean 'lru'?" in str(caught.value)
    with pytest.raises(moesim.InputError, match="no configuration has"):
        results.where(policy="lru", oracle=True)


# -- comparisons


def test_policies_are_compared_with_the_best_history_policy(results: moesim.Results) -> None:
    found = moesim.compare(results)
    groups = {c.group: [o for o in results.configurations if o.group == c.group] for c in results.configurations}
    assert len(found) == len(results.configurations) - len(groups)
    for pair in found.pairs:
        assert pair.relative == against_baseline(pair.ours, groups[pair.ours.group], "ns_per_output_token")
    frame = found.frame
    assert set(frame["shown"]) <= {"lower", "higher", "not shown to differ"}
    excludes = (frame["percent_low"] > 0) | (frame["percent_high"] < 0)
    assert (frame["shown"].isin(["lower", "higher"]) == excludes).all() and excludes.any() and not excludes.all()
    assert len(found.shown()) == excludes.sum()
    assert np.allclose(frame["difference"], frame["value"] - frame["against_value"])


def test_against_names_a_policy_its_label_or_both_and_keeps_to_the_scope(results: moesim.Results) -> None:
    frame = moesim.compare(results, against="lru", metric="misses").frame
    assert set(frame["against"]) == {"lru, layer", "lru, global"}
    assert (frame["against"] == "lru, " + frame["scope"]).all() and len(frame) == 8
    assert moesim.compare(results, against="old", metric="misses").frame.equals(frame)
    one = moesim.compare(results, against="lru, layer", metric="misses").frame
    assert set(one["against"]) == {"lru, layer"} and len(one) == 10


def test_what_has_no_counterpart_is_counted_once_whatever_is_measured(tmp_path: Path) -> None:
    cases = {"one": {"cache": ["lru", "fifo"]}, "other": {"cache": ["random", "fifo"]}}
    done = moesim.run(tiny(cases=cases), out=tmp_path, figures=False)
    found = moesim.compare(done, against="lru", metric=["time", "misses"])
    assert (len(found), found.unmatched) == (2, 2)


def test_values_of_a_label_are_compared_with_all_else_equal(results: moesim.Results) -> None:
    found = moesim.compare(results, on="experts_per_layer", metric=["time", "misses"])
    assert len(found) == 2 * 6 and set(found.frame["against"]) == {"2 experts a layer"}
    misses = found.frame.query("metric == 'misses'")
    assert (misses["difference"] <= 0).all(), "a larger cache misses no more on one schedule (here)"
    scopes = moesim.compare(results, on="scope", against="global").frame
    assert len(scopes) == 6 and set(scopes["scope"]) == {"layer"} and set(scopes["against"]) == {"scope global"}


def test_results_are_compared_run_by_run(results: moesim.Results, tmp_path: Path) -> None:
    slower = moesim.run(tiny(**GRID), out=tmp_path / "slow", figures=False, link="pcie3")
    found = moesim.compare(results, slower, names=["fast", "slow"])
    assert len(found) == len(results.configurations) and set(found.frame["against"]) == {"fast"}
    assert set(found.frame["results"]) == {"slow"} and (found.frame["difference"] > 0).all()
    by_hand = (slower.summary["ns_per_output_token"] - results.summary["ns_per_output_token"])[:3].mean() / 1e6
    assert found.frame["difference"][0] == pytest.approx(by_hand)
    same = moesim.compare(results, moesim.load(results.folder), metric="misses").frame
    assert (same["difference"] == 0).all() and set(same["shown"]) == {"not shown to differ"}


def test_another_size_in_other_results_is_what_is_compared(results: moesim.Results, tmp_path: Path) -> None:
    memory = {"slots": 5, "scope": ["layer", "global"]}
    five = moesim.run(tiny(**GRID), out=tmp_path / "five", figures=False, memory=memory)
    found = moesim.compare(results.where(experts_per_layer=4), five, metric="misses")
    assert len(found) == 6 and (found.frame["difference"] <= 0).all()


def test_one_replication_claims_nothing(tmp_path: Path) -> None:
    found = moesim.compare(moesim.run(tiny(cache=["lru", "fifo"]), out=tmp_path, figures=False))
    assert found.frame["shown"].tolist() == ["no interval"] and math.isnan(found.frame["low"][0])
    assert "without an interval" in repr(found)


@pytest.mark.parametrize(
    ("call", "place", "text"),
    [
        (lambda r: moesim.compare(), "compare", "nothing is given"),
        (lambda r: moesim.compare(r, "lru"), "compare", "argument 2 is of type str"),
        (lambda r: moesim.compare(r, metric="tine"), "metric", "did you mean 'time'?"),
        (lambda r: moesim.compare(r, metric="goodput"), "metric", "these results have no goodput"),
        (lambda r: moesim.compare(r, against="lrv"), "against", "did you mean 'lru'?"),
        (lambda r: moesim.compare(r, on="scape"), "on", "did you mean 'scope'?"),
        (lambda r: moesim.compare(r, on="scope", against="x"), "against", "There is: global, layer"),
        (lambda r: moesim.compare(r, on="schedule"), "on", "nothing to compare"),
        (lambda r: moesim.compare(r, r, names=["a"]), "names", "1 names for 2 results"),
        (lambda r: moesim.compare(r.where(policy=["lru", "lfu"]), r.where(oracle=True)), "compare", "no config"),
        (lambda r: r.means("tine"), "metric", "There is: time, ttft"),
        (lambda r: r.plot.against("policy"), "x", "is no number"),
        (lambda r: r.plot.gap(measure="x"), "measure", "There is: misses, time"),
        (lambda r: r.plot.requests("x"), "metric", "There is: e2e"),
    ],
)
def test_mistakes_say_what_there_is(results: moesim.Results, call: Any, place: str, text: str) -> None:
    with pytest.raises(moesim.InputError) as caught:
        call(results)
    assert caught.value.problems[0].place == place
    assert text in str(caught.value)


def test_a_notebook_shows_what_is_wrong_and_no_traceback() -> None:
    with pytest.raises(moesim.InputError) as caught:
        moesim.run(tiny(cache="lrv", memory={"slots": -1}))
    head, *lines = caught.value._render_traceback_()
    assert head == "InputError: 2 mistakes" and len(lines) == 2
    assert lines[0].startswith("  cache") or lines[1].startswith("  cache")


def test_sentences_say_the_numbers_of_the_frame(results: moesim.Results) -> None:
    found = moesim.compare(results)
    told = found.sentences()
    shown = found.shown()
    assert len(told) == len(shown) + 1 and told[-1] == f"{len(found) - len(shown)} of {len(found)} not shown to differ"
    largest = shown.loc[shown["percent"].abs().idxmax()]
    assert told[0].startswith(f"{largest['policy']}, {largest['scope']}")
    assert f"{abs(largest['percent']):.0f}" in told[0] and f"than {largest['against']} (" in told[0]
    assert found.sentences(1)[1] == f"{len(shown) - 1} more are shown to differ"


# -- plots


def test_every_plot_draws_on_the_axes_it_is_given_and_returns_them(results: moesim.Results) -> None:
    one = results.where(experts_per_layer=4)
    comparison = moesim.compare(results)
    calls: list[Any] = [
        results.plot,
        results.plot.against,
        results.plot.difference,
        one.plot.policies,
        one.plot.parts,
        one.plot.requests,
        comparison.plot,
    ]
    for call in calls:
        axes = pyplot.subplots()[1]
        assert call(ax=axes) is axes
        assert axes.get_xlabel(), call
        alone = call()
        assert alone is not axes and alone.figure is not axes.figure


def test_a_line_is_of_a_policy_and_a_scope_and_its_points_are_means(results: moesim.Results) -> None:
    axes = results.plot.against(metric="misses")
    labels = axes.get_legend_handles_labels()[1]
    assert labels == [f"{p}, {s}" for s in ("layer", "global") for p in ("lru", "lfu", "lookahead oracle")]
    line = axes.containers[0].lines[0]
    means = results.means("misses").query("policy == 'lru' and scope == 'layer'")
    assert line.get_ydata().tolist() == means["mean"].tolist()
    assert [round(x) for x in line.get_xdata()] == [2, 4]
    assert axes.get_ylabel() == "misses per output token (expert keys)" and "ESTIMATED" not in axes.get_title("left")
    assert "ESTIMATED times" in results.plot().get_title("left")


def test_oracles_are_dashed_stars_and_bounds_are_lines(results: moesim.Results) -> None:
    axes = results.where(scope="global").plot()
    looks = {label: container.lines[0] for label, container in zip(*_lines(axes), strict=True)}
    assert looks["lookahead oracle"].get_linestyle() == "--" and looks["lookahead oracle"].get_marker() == "*"
    assert looks["lru"].get_linestyle() == "-"
    assert {"transfer bound (MIN)", "all experts resident"} <= set(axes.get_legend_handles_labels()[1])


def _lines(axes: Any) -> tuple[list[str], list[Any]]:
    containers = [c for c in axes.containers if c.get_label() and not c.get_label().startswith("_")]
    return [c.get_label() for c in containers], containers


def test_a_plot_of_several_sets_asks_which(tmp_path: Path) -> None:
    cases = {"one": {}, "two": {"traffic": {"kind": "closed", "concurrency": 2, "requests": 8}}}
    both = moesim.run(tiny(cases=cases, memory={"slots": [2, 3]}), out=tmp_path, figures=False)
    with pytest.raises(moesim.InputError, match=r"choose one, as in results\.where\(case='one'\)"):
        both.plot()
    assert both.where(case="one").plot().get_title("left") == "one · ESTIMATED times"


def test_what_is_not_shown_to_differ_is_hollow(results: moesim.Results) -> None:
    found = moesim.compare(results)
    axes = found.plot()
    filled = [c.lines[0].get_markerfacecolor() != "white" for c in axes.containers]
    assert filled == (found.frame["shown"] != "not shown to differ").tolist()
    assert "hollow: not shown to differ" in axes.get_title("left")


def test_the_figures_of_a_run_are_there_by_name(results: moesim.Results) -> None:
    assert {"all-slots", "all-time"} <= set(results.figures())


# -- how they show themselves


def test_a_notebook_shows_question_label_runs_sentences_and_a_table(results: moesim.Results) -> None:
    page = results._repr_html_()
    assert "Is &lt;b&gt; escaped?" in page and "ESTIMATED times" in page
    assert "12 configurations" in page and "36 runs" in page and "3 independent replications" in page
    assert page.count("<tr>") == 1 + 12 and "comparisons of time per output token" in page
    best = results.means("time").sort_values("mean").query("policy != 'lookahead oracle'").iloc[0]
    assert f"{best['mean']:.2f} ±" in page
    assert str(results.folder) not in page


def test_long_tables_are_cut_and_say_so(tmp_path: Path) -> None:
    grid = {"memory": {"slots": [2, 3, 4, 5, 6, 7]}, "cache": ["lru", "lfu", "fifo"]}
    many = moesim.run(tiny(**grid), out=tmp_path, figures=False)
    page = many._repr_html_()
    assert page.count("<tr>") == 17 and "2 more rows" in page
    assert len(page) < 20_000
    comparison = moesim.compare(many)._repr_html_()
    assert comparison.count("<tr>") == 1 + 12 and "In parentheses" in comparison


# -- untimed replay


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> moesim.Curves:
    return moesim.cache(_traces(tmp_path_factory.mktemp("traces")), policies="lru,min", sizes=["2/layer", "4/layer"])


def _traces(folder: Path) -> list[Path]:
    paths = [folder / "sticky.parquet", folder / "even.parquet"]
    for path, kind in zip(paths, ("sticky", "iid"), strict=True):
        made = synthetic(kind, layers=3, experts=6, key_bytes=1000, sequences=12, prompt_tokens=8, output_tokens=20)
        write_routing(path, made)
    return paths


def test_curves_are_tidy_and_are_what_the_command_prints(curves: moesim.Curves) -> None:
    frame = curves.frame
    assert len(frame) == 2 * 2 * 2 * 2 and set(frame["trace"]) == {"sticky", "even"}
    assert set(frame["experts_per_layer"]) == {2.0, 4.0} and np.allclose(frame["share"], frame["experts_per_layer"] / 6)
    assert (100 * frame["decode_hits"] / frame["decode_accesses"]).tolist() == frame["decode_hit_pct"].tolist()
    assert (frame["oracle"] == (frame["policy"] == "min")).all()
    assert curves.table() == repr(curves) and "decode hits (%)" in curves.table()
    assert "Decode hits, %" in curves._repr_html_() and curves._repr_html_().count("<table") == 2
    assert isinstance(frame, pd.DataFrame)


def test_curves_are_drawn_per_policy_and_scope(curves: moesim.Curves) -> None:
    axes = curves.plot(trace="sticky")
    assert axes.get_legend_handles_labels()[1][:2] == ["lru, global", "lru, layer"]
    assert axes.get_ylabel() == "decode hits (%)" and axes.get_ylim() == (0, 100)
    alone = curves.plot(trace="even", scope="layer", measure="misses")
    assert [line.get_label() for line in alone.get_lines()] == ["lru", "min (knows the future)"]
    with pytest.raises(moesim.InputError) as caught:
        curves.plot(measure="x", scope="y")
    assert [p.place for p in caught.value.problems] == ["measure", "scope", "trace"]


def test_mistakes_of_a_replay_are_named_as_its_arguments(tmp_path: Path) -> None:
    with pytest.raises(moesim.InputError) as caught:
        moesim.cache(tmp_path / "x", policies="lrv", sizes="x", scope="shelf", room="big", order="any")
    places = [p.place for p in caught.value.problems]
    assert places == ["order", "scope", "room", "policies", "sizes", str(tmp_path / "x")]
