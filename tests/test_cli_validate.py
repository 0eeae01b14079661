"""`moesim validate` on a run that is made to look like a live one, five per cent slower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import moesim
from moesim.files import shipped
from tests.test_cli import call
from tests.tiny import write

POINTS: dict[str, Any] = {"memory": {"slots": [3, 5]}, "schedule": "frozen", "replications": 2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the experiment and what was measured of it."""
    folder = tmp_path_factory.mktemp("validate")
    results = moesim.run(write(folder, **POINTS), out=folder / "live", save=["steps"], figures=False)
    made_live(results, 1.05)
    return folder


def made_live(results: moesim.Results, times: float) -> Path:
    """Change a results folder into one of live runs whose steps took so many times as long."""
    steps = results.steps
    slower = (times * (steps["end_ns"] - steps["start_ns"])).round().astype("int64")
    steps.assign(end_ns=steps["start_ns"] + slower).to_parquet(results.folder / "steps.parquet")
    path = results.folder / "summary.csv"
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.assign(label_live="MEASURED (CPU, today, moesim live)").to_csv(path, index=False)
    return results.folder


def validate(folder: Path, *words: object, file: str = "tiny.yaml"):
    return call("validate", folder / file, "--measured", folder / "live", "--out", folder / "out", *words)


def test_within_the_limit(folders: Path) -> None:
    done = validate(folders)
    assert done.exit_code == 0, done.output
    assert "-4.8%" in done.stdout and "equal (must)" in done.stdout and "MEASURED (CPU, today" in done.stdout
    written = {path.name for path in (folders / "out").iterdir()}
    assert written == {"simulated", *(f"validation.{kind}" for kind in ("csv", "json", "txt", "png", "svg"))}
    assert len(pd.read_csv(folders / "out" / "validation.csv")) == 2


def test_beyond_the_limit_is_exit_code_1(folders: Path) -> None:
    done = validate(folders, "--limit", "4%", "--json")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert all("off by 4.8% (median), more than 4.0%" in text for text in found["failures"]) and found["failures"]
    assert validate(folders, "--limit", "4%", "--metrics", "ttft_mean", "--quiet").exit_code == 0
    assert validate(folders, "--limit", "0.05", "--quiet").output == ""


def test_the_limit_may_be_the_files(folders: Path) -> None:
    write(folders, "strict.yaml", **POINTS, validation={"limit": 0.04})
    done = validate(folders, "--quiet", file="strict.yaml")
    assert (done.exit_code, done.stdout) == (1, "") and "more than 4.0%" in done.stderr


def test_a_setting_that_calibrates_is_not_judged(folders: Path) -> None:
    write(folders, "fitted.yaml", **POINTS, validation={"limit": 0.04, "role": "calibrate"})
    done = validate(folders, "--quiet", file="fitted.yaml")
    # It is 4.8% off, which is not said; that nothing else judges is.
    assert done.exit_code == 1
    assert done.stderr == "moesim: step time, mean: no setting judges it, so that nothing is shown\n"


def test_hits_that_differ_are_exit_code_1(folders: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folders / "live", tmp_path / "live")
    write(tmp_path, **POINTS)
    steps = pd.read_parquet(tmp_path / "live" / "steps.parquet")
    steps.loc[steps.index[-1], "miss_keys"] += 1
    steps.to_parquet(tmp_path / "live" / "steps.parquet")
    done = validate(tmp_path, "--quiet")
    assert done.exit_code == 1 and "hits must be equal here, and 1 runs differ" in done.stderr


def measured_table(folder: Path, name: str, label: str = "MEASURED") -> Path:
    document = json.loads(shipped("traces", "kernels", "a100-pcie4-smollm2-135m-readme.json").read_text())
    (folder / name).write_text(json.dumps(document | {"label": label, "date": "2026-01-01", "device": "CPU"}))
    return folder / name


def test_a_table_is_fitted_to_what_calibrates_and_the_rest_judges(tmp_path: Path) -> None:
    table = measured_table(tmp_path, "t.json")
    fitted_to = {"memory": {"slots": [2, 7]}, "validation": {"role": "calibrate"}}
    cases = {"fit": fitted_to, "judged": {"memory": {"slots": 4}}}
    write(tmp_path, cases=cases, schedule="frozen", costs=str(table))
    live = made_live(moesim.run(tmp_path / "tiny.yaml", out=tmp_path / "live", save=["steps"], figures=False), 1.05)
    assert validate(tmp_path, "--quiet", "--limit", "4%").exit_code == 1
    done = validate(tmp_path, "--fit", table)
    assert done.exit_code == 0 and "ns a layer and" in done.stdout
    assert "fit, memory.slots 2; fit, memory.slots 7" in done.stdout
    fitted = table.read_text()
    assert "fitted to mean step times of live runs of 2 settings" in fitted
    assert validate(tmp_path, "--quiet", "--limit", "1%").exit_code == 0, live
    # The same again: what was fitted before is known. (The frozen steps may be others by a nanosecond's rounding.)
    assert validate(tmp_path, "--fit", table, "--json").exit_code == 0
    before, after = (json.loads(text)["components"]["layer_rest"]["ns"][0] for text in (fitted, table.read_text()))
    assert abs(before - after) < 0.01 * before
    changed = ("--set", "costs=a100-pcie4-smollm2-135m-readme")
    other = validate(tmp_path, "--fit", measured_table(tmp_path, "other.json"), *changed)
    assert other.exit_code == 2 and "is not the table of the experiment" in other.stderr
    write(tmp_path, "judge.yaml", **POINTS)
    none = validate(tmp_path, "--fit", table, file="judge.yaml")
    assert none.exit_code == 2 and "has no setting of role 'calibrate'" in none.stderr


def test_bad_input_is_one_message(folders: Path) -> None:
    done = validate(folders, "--limit", "ten", "--metrics", "steps", "--set", "cache=lrv")
    assert (done.exit_code, done.stdout) == (2, "")
    places = [line.split(":")[0].strip() for line in done.stderr.splitlines()[1:]]
    assert places == ["--metrics", "--limit", "--set cache"]
    for measured, says in (("gone", "there is no such folder"), ("simulated", "holds no live run")):
        moesim.run(folders / "tiny.yaml", out=folders / "simulated", save=["steps"], figures=False)
        words = ("--measured", folders / measured, "--out", folders / "other")
        done = call("validate", folders / "tiny.yaml", *words)
        assert done.exit_code == 2 and says in done.stderr
