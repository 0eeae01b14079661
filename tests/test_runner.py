from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moesim
import moesim.sim
from moesim.errors import InputError, Problem
from moesim.partial import Partial, code_digest, run_key
from moesim.plan import Run, read_plan
from moesim.pool import Pool, split
from moesim.runner import prepare
from moesim.sim import RunResult
from tests.tiny import tiny, write

GRID: dict[str, Any] = {
    "memory": {"slots": [3, 4], "scope": ["layer", "global"]},
    "cache": ["lru", {"name": "lookahead", "level": "oracle"}],
    "schedule": "frozen",
    "replications": 2,
}
SAME = ("summary.csv", "table.txt", "requests.parquet", "resolved.yaml")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "run.json"}


# ---- with a simulator that only says who was asked


class Fake:
    """Stands for the simulator: remembers its calls, takes `steps` steps, and stops or fails at a given call."""

    def __init__(self, stop_at: int = -1, fail_at: int = -1) -> None:
        self.calls: list[tuple[int | None, int]] = []
        self.stop_at, self.fail_at = stop_at, fail_at

    def __call__(
        self, config: Any, inputs: Any, replication: int, *, progress: Any, transfers: bool, **manner: Any
    ) -> RunResult:
        call = len(self.calls)
        self.calls.append((config.memory.slots, replication))
        progress(7)
        if call == self.stop_at:
            raise KeyboardInterrupt
        if call == self.fail_at:
            raise InputError(Problem("table", "was measured for tokens 1 to 8, and 9 was asked for"))
        numbers = np.array([config.memory.slots, replication])
        counters, requests = {"slots": int(numbers[0])}, {"domain": np.array(["a", "bc"])}
        copies = {"class": np.array([], dtype=object)} if transfers else {}
        return RunResult(counters, {"step": numbers}, requests, {"kv": "none"}, transfers=copies)


def plan_of(**changes: Any) -> list[Run]:
    return read_plan(tiny(memory={"slots": [3, 4]}, replications=3, **changes)).runs()


def test_results_are_in_the_order_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake()
    monkeypatch.setattr(moesim.sim, "simulate", fake)
    tallies: list[tuple[int, int, int]] = []
    pool = Pool(report=lambda tally: tallies.append((tally.runs, tally.steps, tally.done_steps)))
    found = pool.execute(plan_of(schedule="frozen"))
    assert [tuple(result.steps["step"]) for result in found] == [(s, r) for s in (3, 4) for r in range(3)]
    assert fake.calls == [(s, r) for r in range(3) for s in (3, 4)], "runs of one frozen schedule stand together"
    assert tallies[-1] == (6, 6 * 7, 6 * 20)


def test_an_interrupted_command_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs, partial = plan_of(), Partial(tmp_path / "partial")
    monkeypatch.setattr(moesim.sim, "simulate", fake := Fake(stop_at=4))
    with pytest.raises(KeyboardInterrupt):
        Pool(partial=partial).execute(runs)
    assert len(list(partial.folder.iterdir())) == 4
    monkeypatch.setattr(moesim.sim, "simulate", again := Fake())
    pool = Pool(partial=partial)
    found = pool.execute(runs)
    assert (pool.reused, again.calls) == (4, [*fake.calls[4:], (4, 2)])
    assert [tuple(result.steps["step"]) for result in found] == [(s, r) for s in (3, 4) for r in range(3)]
    assert [list(result.requests["domain"]) for result in found] == [["a", "bc"]] * 6
    assert found[0].counters == {"slots": 3} and found[0].labels == {"kv": "none"}


def test_a_finished_run_without_its_copies_is_run_again_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs, partial = plan_of(), Partial(tmp_path / "partial")
    monkeypatch.setattr(moesim.sim, "simulate", Fake())
    Pool(partial=partial).execute(runs)
    monkeypatch.setattr(moesim.sim, "simulate", again := Fake())
    pool = Pool(partial=partial, transfers=True)
    assert all(result.transfers for result in pool.execute(runs))
    assert (pool.reused, len(again.calls)) == (0, 6)
    for transfers in (True, False):
        pool = Pool(partial=partial, transfers=transfers)
        pool.execute(runs)
        assert pool.reused == 6 and len(again.calls) == 6


def test_what_is_kept_is_not_used_for_anything_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = plan_of()[0]
    key = run_key(run)
    assert key == run_key(plan_of(name="other", question="why?")[0])
    for changes in ({"steps": 21}, {"seed": 1}, {"link": "pcie3"}, {"cache": "fifo"}, {"traffic": {"kind": "all"}}):
        assert run_key(plan_of(**changes)[0]) != key, changes
    assert len({run_key(one) for one in plan_of()}) == 6
    monkeypatch.setattr("moesim.partial.code_digest", lambda: code_digest() + "changed")
    assert run_key(run) != key
    partial = Partial(tmp_path)
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    assert partial.get("cut") is None
    assert partial.get("missing") is None


def test_a_run_that_its_inputs_do_not_cover_is_bad_input_and_nothing_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(moesim.sim, "simulate", Fake(fail_at=2))
    with pytest.raises(InputError, match="was measured for tokens 1 to 8"):
        moesim.run(tiny(replications=4), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_chunks_keep_frozen_schedules_together_and_fill_the_processes() -> None:
    runs = read_plan(tiny(**GRID)).runs()
    chunks = split(runs, 2)
    assert sorted(run.index for chunk in chunks for run in chunk) == list(range(16))
    assert all(len({run.replication for run in chunk}) == 1 for chunk in chunks)
    assert len(chunks) == 8
    assert [len(chunk) for chunk in split(runs, 1)] == [4] * 4
    assert len(split(read_plan(tiny(**GRID | {"schedule": "free"})).runs(), 1)) == 16


# ---- with the real one


def test_equal_commands_give_equal_bytes_however_many_processes(tmp_path: Path) -> None:
    path = write(tmp_path, **GRID)
    first = moesim.run(path, out=tmp_path / "a", save=["steps", "transfers"], figures=False)
    moesim.run(path, out=tmp_path / "b", save=["steps", "transfers"], figures=False)
    moesim.run(path, out=tmp_path / "c", save=["steps", "transfers"], figures=False, jobs=2)
    assert set(contents(tmp_path / "a")) == {*SAME, "steps.parquet", "transfers.parquet"}
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    assert len(first.summary) == 16
    assert json.loads((tmp_path / "c" / "run.json").read_text())["jobs"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "tiny.yaml"], "nothing is left beside"


def test_another_seed_gives_other_results(tmp_path: Path) -> None:
    one = moesim.run(tiny(), out=tmp_path / "a", figures=False)
    other = moesim.run(tiny(), out=tmp_path / "b", figures=False, seed=1)
    assert one.summary["span_ns"].item() != other.summary["span_ns"].item()


def test_settings_from_python(tmp_path: Path) -> None:
    results = moesim.run(tiny(), out=tmp_path, figures=False, memory__slots=[4, 5], **{"memory.scope": "global"})
    assert results.summary[["slots", "scope"]].to_numpy().tolist() == [[4, "global"], [5, "global"]]


def test_a_failed_write_leaves_the_old_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moesim.run(tiny(), out=tmp_path / "out", figures=False)
    before = contents(tmp_path / "out")

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("moesim.results.resolved", broken)
    with pytest.raises(OSError, match="disk full"):
        moesim.run(tiny(seed=3), out=tmp_path / "out", figures=False)
    assert contents(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".partial")] == ["out"]


def test_only_results_are_ever_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something else than results"):
        moesim.run(tiny(), out=tmp_path / "mine")
    with pytest.raises(InputError, match="no folder that can be written"):
        moesim.run(tiny(), out=tmp_path / "mine" / "thesis.txt" / "out")
    with pytest.raises(InputError, match="holds something else"):
        moesim.run(tiny(), out=tmp_path / "mine" / "thesis.txt")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_two_files_may_not_share_a_folder(tmp_path: Path) -> None:
    paths = [write(tmp_path, "a.yaml"), write(tmp_path, "b.yaml"), write(tmp_path, "c.yaml")]
    paths[2].write_text(paths[2].read_text().replace("name: tiny", "name: other"))
    with pytest.raises(InputError, match="is another file's too"):
        prepare(paths, out=tmp_path / "out")
    assert [job.folder.name for job in prepare(paths[1:], out=tmp_path / "out")] == ["tiny", "other"]


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_stops_all_processes_and_the_same_command_goes_on(tmp_path: Path) -> None:
    busy = {"kind": "closed", "concurrency": 3, "requests": 10**6}
    path = write(tmp_path, memory={"slots": [3, 4, 5]}, replications=4, steps=3000, traffic=busy)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "moesim", "run", str(path), "--jobs", "2", "--quiet", "--out", str(out)]
    # A shell's background processes have SIGINT ignored, and hand that down.
    listen = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=listen)
    partial = Partial.beside(out).folder
    while running.poll() is None and not list(partial.glob("[!.]*.npz")):
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, said.count("\n")) == (130, 1), said
    assert "stopped" in said
    assert not out.exists()
    kept = len(list(partial.glob("[!.]*.npz")))
    assert not list(partial.glob(".*")), "nothing is half-written"
    assert 0 < kept < 12
    subprocess.run(command, check=True)
    assert json.loads((out / "run.json").read_text())["reused"] == kept
    assert not partial.exists()
    whole = moesim.run(path, out=tmp_path / "whole", figures=False)
    assert contents(out) == contents(whole.folder)
