"""Simulated against measured on tables whose error is known."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from moesim.analysis.validate import (
    COUNTS,
    METRICS,
    PARTS,
    Numbers,
    Pair,
    Setting,
    by_regime,
    compare,
    document,
    failures,
    numbers,
    recomposed,
    row,
    summarize,
)
from moesim.analysis.validation_table import render, scatter
from moesim.errors import InputError
from moesim.experiment import RunConfig
from tests.tiny import tiny

GPU = "GPU X, 1 thread"


def run(ns: float = 100, *, stalled: float = 0.0, miss: int = 5, waves: int = 0) -> Numbers:
    counts = dict.fromkeys(COUNTS, 1) | {"miss": miss}
    return Numbers(dict.fromkeys(METRICS, ns), counts, dict.fromkeys(PARTS, ns / 9), stalled, waves, miss)


def setting(pairs: list[tuple[float, float]], *, stalled: float = 0.0, role: str = "judge", name: str = "a") -> Setting:
    made = [Pair(run(ours), run(theirs, stalled=stalled)) for ours, theirs in pairs]
    return Setting({"case": name, "slots": "3"}, role, (0.02, 0.5), True, made)


def test_an_error_is_of_means_and_its_interval_of_runs() -> None:
    one = setting([(110, 100), (110, 100), (99, 100)])
    assert one.error("step_mean") == pytest.approx(319 / 300 - 1)
    # Errors .1, .1, -.01: deviation .0635, Student's 97.5 % for 2 degrees 4.303.
    assert one.interval("step_mean") == pytest.approx(4.303 * 0.063509 / math.sqrt(3), rel=1e-4)
    assert one.spread("step_mean") == 0
    assert setting([(90, 100), (90, 108)]).spread("step_mean") == pytest.approx(0.08)
    assert math.isnan(setting([(1, 1)]).interval("step_mean")) and math.isnan(setting([(1, 1)]).spread("step_mean"))


def test_repeats_of_one_replication_are_no_evidence_of_their_own() -> None:
    one = setting([])
    # Two replications that are measured three times each: errors 0.1 and -0.1, and the repeats say nothing more.
    one.pairs = [Pair(run(ours), run(100), 0, r) for r, ours in enumerate((110, 90)) for _ in range(3)]
    assert one.interval("step_mean") == pytest.approx(12.7062 * math.sqrt(0.02) / math.sqrt(2), rel=1e-4)
    assert one.spread("step_mean") == 0
    # Replications of which each is measured once are not apart because of the machine.
    one.pairs = [Pair(run(100), run(ns), 0, r) for r, ns in enumerate((100, 150))]
    assert math.isnan(one.spread("step_mean"))
    one.pairs += [Pair(run(100), run(ns), 0, r) for r, ns in enumerate((110, 153))]
    assert one.spread("step_mean") == pytest.approx(0.1)


def test_the_interval_of_many_runs_is_students() -> None:
    one = setting([(100 + 10 * (at % 2), 100) for at in range(12)])
    # Errors 0 and 0.1: deviation .05 * sqrt(12 / 11); the 97.5 % quantile for 11 degrees is 2.201.
    assert one.interval("step_mean") == pytest.approx(2.201 * 0.05 / math.sqrt(11), rel=1e-4)


@pytest.mark.parametrize(
    ("stalled", "regime"),
    [(0, "resident"), (0.019, "resident"), (0.02, "mixed"), (0.499, "mixed"), (0.5, "transfer-bound")],
)
def test_regimes_are_by_the_share_of_time_stalled(stalled: float, regime: str) -> None:
    assert setting([(1, 1)], stalled=stalled).regime == regime


def test_a_regime_is_judged_by_its_median_and_calibration_does_not_count() -> None:
    judged = [setting([(100 + off, 100)]) for off in (-12, 2, 4)]
    fitted = setting([(300, 100)], role="calibrate")
    found = summarize(judged, "step_mean")
    assert found is not None
    assert (found.settings, found.median, found.largest) == (3, pytest.approx(0.04), pytest.approx(0.12))
    assert found.low == pytest.approx(0.02) and found.high == pytest.approx(0.12)
    assert by_regime([*judged, fitted]) == {"resident": judged}
    assert by_regime([*judged, fitted], "calibrate") == {"resident": [fitted]}
    assert failures([*judged, fitted], ["step_mean"], 0.05) == []
    (said,) = failures([*judged, fitted], ["step_mean"], 0.03)
    assert said == "resident: step time, mean is off by 4.0% (median), more than 3.0%"


def test_what_nobody_judges_does_not_pass() -> None:
    said = "step time, mean: no setting judges it, so that nothing is shown"
    assert failures([setting([(100, 100)], role="calibrate")], ["step_mean"], 0.1) == [said]
    assert failures([setting([(100, 0)])], ["step_mean"], 0.1) == [said]  # no error without a measured time


def test_hits_that_must_be_equal_and_are_not() -> None:
    one = setting([(1, 1), (1, 1)], name="lru")
    one.pairs[1] = Pair(run(1), run(1, miss=7))
    (said,) = failures([one], [], 0.1)
    assert said == "lru, slots 3: hits must be equal here, and 1 runs differ: miss 10 simulated, 12 measured"
    one.exact = False  # where timing can reorder decisions they are counted
    assert failures([one], [], 0.1) == []
    assert "1 of 2 differ" in render([one], [], 0.1, [])
    one.exact, one.pairs[1] = True, Pair(run(1), run(1), 3)
    assert failures([one], [], 0.1) == ["lru, slots 3: 3 steps are composed otherwise, on one schedule"]


def test_everything_is_plain_data_and_text(tmp_path: Path) -> None:
    settings = [setting([(100, 110)], stalled=share, name=f"s{share}") for share in (0, 0.3, 0.9)]
    settings.append(setting([(100, 130)], role="calibrate", name="fit"))
    found = json.loads(json.dumps(document(settings, ["step_mean"], 0.05), allow_nan=False))
    assert list(found["regimes"]) == ["resident", "mixed", "transfer-bound"] and len(found["failures"]) == 3
    assert found["regimes"]["mixed"]["step_mean"]["median"] == pytest.approx(1 - 100 / 110, abs=1e-6)
    flat = row(settings[3])
    assert (flat["role"], flat["step_mean_simulated"], flat["miss_measured"]) == ("calibrate", 100, 5)
    text = render(settings, ["step_mean"], 0.05, ["labels"])
    assert "fit, slots 3  c resident" in text and "over the limit of 5%" in text and "-9.1%" in text
    figure = scatter(settings, "title")
    assert len(figure.axes) == 4 and len(figure.axes[0].lines) == 5  # equal, three regimes, calibration


# ---- from tables


def steps(ends: list[int], **columns: Any) -> pd.DataFrame:
    known = {f"{part}_ns": 0 for part in PARTS} | {f"{name}_keys": 0 for name in COUNTS[:-1]}
    known |= {"evictions": 0, "waves": 0, "prefill_tokens": 0, "decode_tokens": 1, "requests": 1, "measured": True}
    rows = [{"run": 0, "step": i, "start_ns": i * 1000, "end_ns": i * 1000 + end} for i, end in enumerate(ends)]
    return pd.DataFrame(rows).assign(**(known | columns))


def requests(**columns: Any) -> pd.DataFrame:
    known = {"run": 0, "measured": True, "finished_ns": 9, "ttft_ns": 4, "tpot_ns": 2.0, "e2e_ns": 9}
    return pd.DataFrame([known]).assign(**columns)


def test_numbers_of_a_run_by_hand() -> None:
    stalls = {"miss_stall_ns": [0, 50, 40], "late_stall_ns": [0, 0, 90]}
    table = steps([100, 200, 600], **stalls, miss_keys=[1, 2, 3], waves=[0, 1, 0])
    table.loc[0, "measured"] = False
    found = numbers(table, requests())
    assert (found.metrics["step_mean"], found.metrics["step_p50"], found.metrics["step_p95"]) == (400, 400, 580)
    assert (found.metrics["ttft_mean"], found.metrics["stall"], found.counts["miss"], found.waves) == (4, 180, 5, 1)
    assert found.stalled == 180 / 800 and found.parts["miss_stall"] == 45 and found.loaded == 2.5
    assert math.isnan(numbers(table, requests(finished_ns=-1)).metrics["e2e_mean"])


def test_steps_composed_otherwise_are_counted() -> None:
    assert recomposed(steps([1, 1]), steps([2, 2])) == 0
    assert recomposed(steps([1, 1]), steps([1, 1], decode_tokens=[1, 2])) == 1
    assert recomposed(steps([1, 1]), steps([1, 1, 1])) == 1


def results(configs: list[RunConfig], tables: list[pd.DataFrame], **changes: Any) -> Any:
    runs = range(len(tables))
    frame = pd.concat([table.assign(run=i) for i, table in enumerate(tables)])
    known = {
        "folder": Path("f"), "configs": configs, "steps": frame, "digests": {"trace": {"t": "1"}, "model": {"m": "2"}},
        "requests": pd.concat([requests(run=i) for i in runs]),
    }  # fmt: skip
    labels = {"label_costs": f"MEASURED (table c, {GPU})", "label_live": f"MEASURED ({GPU}, d)"}
    known["summary"] = pd.DataFrame({"run": runs} | labels)
    return SimpleNamespace(**(known | changes))


def point(label: str = "3", repeat: str | None = None, **changes: Any) -> RunConfig:
    labels = {"memory.slots": label} | ({"repeat": repeat} if repeat else {})
    given = tiny(memory={"slots": int(label)}, schedule="frozen", **changes)
    return RunConfig.model_validate(given | {"labels": labels})


def test_repeats_and_replications_find_their_simulated_run() -> None:
    ours = results([point("3", replications=2), point("4", replications=2)], [steps([ns]) for ns in (10, 20, 30, 40)])
    measured = [point("4", "0", replications=2), point("3", "0", replications=2), point("3", "1", replications=2)]
    theirs = results(measured, [steps([ns]) for ns in (31, 41, 11, 21, 12, 22)])
    three, four = compare(ours, theirs)
    paired = [[tuple(run.metrics["step_mean"] for run in pair[:2]) for pair in one.pairs] for one in (three, four)]
    assert paired == [[(10, 11), (20, 21), (10, 12), (20, 22)], [(30, 31), (40, 41)]]
    assert three.exact and three.role == "judge"


def test_what_timing_can_reorder_need_not_be_equal() -> None:
    def exact(table: pd.DataFrame | None = None, **changes: Any) -> bool:
        table = steps([1]) if table is None else table
        (found,) = compare(results([point(**changes)], [table]), results([point(**changes)], [table]))
        return found.exact

    assert exact()
    assert not exact(prefetch="oracle")
    assert not exact(steps([1], waves=1))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"digests": {"trace": {"t": "9"}, "model": {"m": "2"}}}, "was run with another trace: t, here t"),
        (
            {"summary": pd.DataFrame({"label_costs": ["x"] * 2, "label_live": ["MEASURED (GPU X, 1 thread)"] * 2})},
            "is damaged: summary.csv has 2 runs of 1",
        ),
        ({"configs": [point("4")]}, "has no run of memory.slots: 3; it has 1 settings"),
        ({"summary": pd.DataFrame({"label_costs": ["ESTIMATED (x)"]})}, r"holds no live run .*ESTIMATED \(x\)"),
        (
            {"summary": pd.DataFrame({"label_costs": ["x"], "label_live": ["MEASURED (GPU Y)"]})},
            r"was measured on 'GPU X, 1 thread', and the live run is MEASURED \(GPU Y\)",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, Any], says: str) -> None:
    configs = changes.pop("configs", [point()])
    with pytest.raises(InputError, match=says):
        compare(results([point()], [steps([1])]), results(configs, [steps([1])], **changes))


def test_roles_and_regimes_are_the_files() -> None:
    held = {"role": "calibrate", "resident": 0.1, "transfer_bound": 0.2}
    made = point(validation=held)
    table = steps([100], miss_stall_ns=15)
    (found,) = compare(results([made], [table]), results([point()], [table]))
    assert (found.role, found.regime) == ("calibrate", "mixed")
    assert replace(found, limits=(0.1, 0.15)).regime == "transfer-bound"


def test_a_setting_does_not_judge_what_was_fitted_to_it() -> None:
    fitted, same = point(validation={"role": "calibrate"}), point()
    tables = [steps([1]), steps([1])]
    with pytest.raises(InputError, match=r"validation\.role: memory\.slots: 3 is used for calibration and for judging"):
        compare(results([fitted, same], tables), results([point()], [steps([1])]))
