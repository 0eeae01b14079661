"""`moesim regress` as a user has it: baselines made, compared and made anew, and every way in which it can be red."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from moesim.files import shipped
from tests.regression.files import METRICS, call, inside, regression
from tests.regression.slip import environment
from tests.tiny import write

PAGE = Path("results", "regress", "regress.html")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a regression file whose baselines are as the program is."""
    regression(tmp_path)
    assert call(tmp_path, "--update", "--quiet").exit_code == 0
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def altered(folder: Path, metric: str, by: int = 1) -> str:
    """Change the baseline of the first run in a metric; the line as it was."""
    path = folder / "baselines" / "guard.csv"
    lines = path.read_text().splitlines()
    place = next(n for n, line in enumerate(lines) if f",{metric}," in line)
    name, value = lines[place].rsplit(",", 1)
    was = lines[place]
    lines[place] = f"{name},{int(value) + by}"
    path.write_text("\n".join(lines) + "\n")
    return was


# -- made, compared, made anew -----------------------------------------------------------------------------------------


def test_without_baselines_it_is_red_and_update_makes_them(tmp_path: Path) -> None:
    regression(tmp_path)
    done = call(tmp_path)
    assert done.exit_code == 1 and "no baselines yet (2 runs, 3 metrics)" in done.stdout
    done = call(tmp_path, "--update")
    assert done.exit_code == 0 and "written   baselines/guard.csv, .yaml" in done.stdout
    assert sorted(path.name for path in (tmp_path / "baselines").iterdir()) == ["guard.csv", "guard.yaml"]


def test_as_it_was_it_is_green(folder: Path) -> None:
    done = call(folder)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "ok      guard: 2 runs, 3 metrics"
    assert "Nothing changed: 6 numbers of 1 experiment equal their baselines" in done.stdout
    files = {path.name for path in (folder / PAGE.parent).iterdir()}
    assert files == {"regress.html", "regress.json", "guard.png", "guard-summary.csv", "now"}
    assert contents(folder / PAGE.parent / "now") == contents(folder / "baselines"), "what it is now can be committed"


def test_update_of_what_has_not_changed_writes_nothing(folder: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in (folder / "baselines").iterdir()}
    done = call(folder, "--update")
    assert done.exit_code == 0 and "Nothing has changed." in done.stdout and "as before" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.parametrize("metric", METRICS)
def test_a_number_that_changed_is_named_with_its_change_and_its_plot(metric: str, folder: Path) -> None:
    altered(folder, metric)
    done = call(folder)
    assert done.exit_code == 1
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"    {metric} ")]
    plot = line[line.index("[") + 1 : -1]
    assert "fell by" in line and "->" in line and "cache fifo" in line
    assert (folder / plot).read_bytes().startswith(b"\x89PNG")
    page = (folder / PAGE).read_text()
    assert "1 of 6 numbers changed in 1 of 1 experiment" in page and "cache fifo" in page


def test_update_says_what_it_changed_and_turns_it_green(folder: Path) -> None:
    before = contents(folder / "baselines")
    altered(folder, "miss_keys")
    done = call(folder, "--update")
    assert done.exit_code == 0 and "    miss_keys fell by" in done.stdout and "Look at the diff" in done.stdout
    assert contents(folder / "baselines") == before
    assert call(folder).exit_code == 0


def test_the_baselines_do_not_depend_on_the_number_of_processes(folder: Path) -> None:
    before = contents(folder / "baselines")
    with inside(folder):
        command = [sys.executable, "-m", "moesim", "regress", "--update", "--jobs", "2"]
        subprocess.run(command, check=True, capture_output=True, env=environment())
    assert contents(folder / "baselines") == before


# -- what else can be red ----------------------------------------------------------------------------------------------


def test_new_runs_lost_runs_and_metrics_have_their_own_lines(folder: Path) -> None:
    write(folder, cache=["lru", "lfu"], memory={"slots": 4})
    path = folder / "regression.yaml"
    path.write_text(path.read_text().replace("evictions", "demand_bytes"))
    done = call(folder)
    assert done.exit_code == 1
    for line in (
        "run cache=lfu | r0 has no baseline",
        "baseline of run cache=fifo | r0 has no run",
        "metric demand_bytes has no baselines",
        "metric evictions has baselines and is not in the file any more",
    ):
        assert f"    {line}" in done.stdout, done.stdout


def test_changed_settings_are_told(folder: Path) -> None:
    write(folder, cache=["lru", "fifo"], memory={"slots": 4}, steps=30)
    done = call(folder)
    assert done.exit_code == 1 and "settings of all runs have changed: steps 20 -> 30" in done.stdout


def test_a_changed_trace_is_told_apart_from_a_changed_program(folder: Path) -> None:
    from moesim.trace.routing import write_routing
    from moesim.trace.synthetic import synthetic

    def trace(seed: int) -> None:
        sizes = {"layers": 30, "experts": 7, "k": 1, "key_bytes": 884736}
        made = synthetic("sticky", **sizes, sequences=16, prompt_tokens=6, output_tokens=8, seed=seed)
        write_routing(folder / "own.parquet", made)

    trace(1)
    write(folder, cache=["lru", "fifo"], trace="own.parquet")
    assert call(folder, "--update").exit_code == 0 and call(folder).exit_code == 0
    trace(2)
    command = [sys.executable, "-m", "moesim", "regress", "--jobs", "1"]  # a process keeps what it has read
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment())
    assert done.returncode == 1 and "    input trace own.parquet has changed (sha256 " in done.stdout
    assert "settings" not in done.stdout


def test_an_experiment_renamed_in_the_file(folder: Path) -> None:
    path = folder / "regression.yaml"
    path.write_text(path.read_text().replace("guard:", "watch:"))
    done = call(folder)
    assert done.exit_code == 1 and "CHANGED watch" in done.stdout and "no experiment 'guard' in the file" in done.stdout
    done = call(folder, "--update")
    assert "removed   baselines/guard.csv" in done.stdout and "written   baselines/watch.csv" in done.stdout
    assert sorted(path.name for path in (folder / "baselines").iterdir()) == ["watch.csv", "watch.yaml"]
    assert call(folder).exit_code == 0


def test_only_leaves_the_others_alone(tmp_path: Path) -> None:
    regression(tmp_path, experiments={name: {"file": "tiny.yaml"} for name in ("a", "b")})
    assert call(tmp_path, "--update", "--only", "a").exit_code == 0
    assert sorted(path.stem for path in (tmp_path / "baselines").iterdir()) == ["a", "a"]
    done = call(tmp_path, "--only", "b")
    assert done.exit_code == 1 and "a:" not in done.stdout and "--only b --update" in done.stdout
    assert call(tmp_path, "--only", "a").exit_code == 0


def test_a_policy_that_fails_is_red_and_no_baselines_are_written(folder: Path) -> None:
    source = shipped("policies", "cache", "lru.py").read_text()
    (folder / "mine.py").write_text(source)
    write(folder, cache=["mine.py", "fifo"])
    assert call(folder, "--update").exit_code == 0
    before = contents(folder / "baselines")
    (folder / "mine.py").write_text(source.replace("for key in self.order:", "for key in self.ordre:"))
    done = call(folder)
    assert (
        done.exit_code == 1 and "the runs failed: AttributeError: 'LRU' object has no attribute 'ordre'" in done.stdout
    )
    assert "mine.py" in (folder / PAGE).read_text(), "the page has the place in the program"
    assert "Mend what failed first" in done.stdout and "If that is meant" not in done.stdout
    command = [sys.executable, "-m", "moesim", "regress", "--jobs", "2", "--out", "two"]
    several = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment())
    assert several.returncode == 1 and "AttributeError" in several.stdout
    assert "mine.py" in (folder / "two" / "regress.html").read_text(), "also from another process"
    done = call(folder, "--update")
    assert done.exit_code == 1 and "no baselines were written" in done.stderr
    assert contents(folder / "baselines") == before


# -- bad input, and what is printed ------------------------------------------------------------------------------------


def test_bad_input_lists_every_mistake_and_writes_nothing(folder: Path) -> None:
    path = folder / "regression.yaml"
    path.write_text(path.read_text() + "colour: red\nbaseline: x\n")
    done = call(folder)
    assert done.exit_code == 2 and done.stdout == "" and "2 mistakes in the input" in done.stderr
    assert not (folder / "results").exists()


def test_a_metric_that_is_no_number_of_the_summary(folder: Path) -> None:
    path = folder / "regression.yaml"
    path.write_text(path.read_text().replace("evictions", "evicted").replace("miss_keys", "cache"))
    done = call(folder)
    assert done.exit_code == 2
    assert "unknown metric 'evicted'; did you mean 'evictions'?" in done.stderr
    assert "unknown metric 'cache'" in done.stderr and not (folder / "results").exists()


def test_damaged_baselines_are_bad_input(folder: Path) -> None:
    (folder / "baselines" / "guard.yaml").unlink()
    done = call(folder)
    assert done.exit_code == 2 and "guard.yaml: is missing beside guard.csv" in done.stderr
    assert call(folder, "--update").exit_code == 0 and call(folder).exit_code == 0, "update replaces what is damaged"


def test_baselines_are_kept_in_a_folder(tmp_path: Path) -> None:
    regression(tmp_path, baselines="tiny.yaml")
    for words in ((), ("--update",)):
        done = call(tmp_path, *words)
        assert done.exit_code == 2 and "tiny.yaml: is a file; baselines are kept in a folder" in done.stderr
    regression(tmp_path, baselines="tiny.yaml/deeper")
    done = call(tmp_path, "--update")
    assert done.exit_code == 2 and "baselines cannot be written: " in done.stderr and "tiny.yaml" in done.stderr
    assert not (tmp_path / "results").exists()


def test_files_that_are_no_baselines_are_neither_replaced_nor_removed(tmp_path: Path) -> None:
    path = regression(tmp_path, baselines=".")
    others = {name: (tmp_path / name).read_bytes() for name in ("tiny.yaml", "regression.yaml")}
    assert call(tmp_path, "--update").exit_code == 0 and call(tmp_path).exit_code == 0
    assert {name: (tmp_path / name).read_bytes() for name in others} == others
    path.write_text(path.read_text().replace("guard:", "tiny:"))
    done = call(tmp_path, "--update")
    assert done.exit_code == 2 and "tiny.yaml: is no file of baselines" in done.stderr
    assert (tmp_path / "tiny.yaml").read_bytes() == others["tiny.yaml"]


def test_a_summary_that_cannot_be_written_is_told(folder: Path) -> None:
    command = [sys.executable, "-m", "moesim", "regress", "--jobs", "1", "--quiet"]
    environ = environment() | {"GITHUB_STEP_SUMMARY": str(folder / "none" / "s.md")}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environ)
    assert done.returncode == 0 and "GITHUB_STEP_SUMMARY" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["notes.txt", "summary.csv"])
def test_a_folder_that_holds_something_else_is_not_replaced(name: str, folder: Path) -> None:
    (folder / "out").mkdir()
    for file in (name, "resolved.yaml"):
        (folder / "out" / file).write_text("mine")
    done = call(folder, "--out", "out")
    assert done.exit_code == 2 and "--out" in done.stderr and (folder / "out" / name).read_text() == "mine"


def test_an_earlier_comparison_is_replaced(folder: Path) -> None:
    altered(folder, "miss_keys")
    assert call(folder, "--out", "out").exit_code == 1 and (folder / "out" / "guard-miss_keys.png").exists()
    call(folder, "--update")
    assert call(folder, "--out", "out").exit_code == 0 and not (folder / "out" / "guard-miss_keys.png").exists()


def test_json_is_one_document_and_nothing_else(folder: Path) -> None:
    altered(folder, "miss_keys")
    done = call(folder, "--json")
    document = json.loads(done.stdout)
    assert done.exit_code == 1 and document["passed"] is False and document["page"] == str(PAGE)
    (change,) = document["experiments"][0]["changes"]
    assert change["metric"] == "miss_keys" and change["before"] == change["after"] + 1
    assert (folder / PAGE.parent / change["plot"]).is_file()
    assert document == json.loads((folder / PAGE.parent / "regress.json").read_text())
    updated = json.loads(call(folder, "--update", "--json").stdout)
    assert updated["written"] == ["guard"] and updated["removed"] == []


def test_quiet_says_nothing_unless_it_is_red(folder: Path) -> None:
    assert call(folder, "--quiet").stdout == ""
    altered(folder, "miss_keys")
    assert "miss_keys fell" in call(folder, "--quiet").stdout


@pytest.mark.parametrize("red", [False, True])
def test_the_summary_of_a_github_job(red: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if red:
        altered(folder, "span_ns")
    summary = folder / "summary.md"
    summary.write_text("before\n")
    words = [sys.executable, "-m", "moesim", "regress", "--jobs", "1"]
    environ = environment() | {"GITHUB_STEP_SUMMARY": str(summary)}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=environ)
    assert done.returncode == int(red)
    text = summary.read_text()
    assert text.startswith("before\n## ") and ("span\\_ns" in text or "span_ns fell by" in text) is red


# -- to start from -----------------------------------------------------------------------------------------------------


def test_init_writes_a_file_that_runs(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path / "deep", steps=200, warmup_steps=20, replications=3, question="Is it: so?", cache=["lru", "fifo"])
    done = call(tmp_path, "--init", "deep/tiny.yaml")
    assert done.exit_code == 0 and "moesim regress --update" in done.stdout
    document = yaml.safe_load((tmp_path / "regression.yaml").read_text())
    assert document["experiments"] == {
        "tiny": {
            "file": "deep/tiny.yaml",
            "about": "Is it: so?",
            "set": {"steps": 40, "warmup_steps": 10, "replications": 1},
        }
    }
    assert call(tmp_path, "--update").exit_code == 0 and call(tmp_path).exit_code == 0
    again = call(tmp_path, "--init", "deep/tiny.yaml")
    assert again.exit_code == 2 and "is there already" in again.stderr
    mixed = call(tmp_path, "other.yaml", "--init", "deep/tiny.yaml", "--update")
    assert mixed.exit_code == 2 and "leave out --update" in mixed.stderr and not (tmp_path / "other.yaml").exists()


def test_init_keeps_a_window_and_refuses_a_broken_experiment(tmp_path: Path) -> None:
    changes = {
        "window": {"requests": 6, "warmup": 2},
        "steps": None,
        "warmup_steps": None,
        "traffic": {"kind": "closed", "concurrency": 3},
    }
    write(tmp_path, **changes)
    assert call(tmp_path, "here.yaml", "--init", "tiny.yaml").exit_code == 0
    document = yaml.safe_load((tmp_path / "here.yaml").read_text())
    assert document["experiments"]["tiny"]["set"] == {} and document["baselines"] == "here-baselines"
    assert call(tmp_path, "here.yaml", "--update").exit_code == 0
    write(tmp_path, cache="lro")
    done = call(tmp_path, "there.yaml", "--init", "tiny.yaml")
    assert done.exit_code == 2 and "'lro'" in done.stderr and not (tmp_path / "there.yaml").exists()
