"""One warm-up for all that compare, overload and cut-off runs: from the file to the folder."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moesim
import moesim.sim
from moesim import pool, settle
from moesim.experiment import RunConfig, Window
from moesim.plan import Run, read_plan
from moesim.sim import RunResult
from tests.tiny import tiny

POISSON: dict[str, Any] = {"kind": "poisson", "rate": 60.0, "output": 3}


def windowed(**changes: Any) -> dict[str, Any]:
    """The tiny experiment under traffic, with a window."""
    plain = {"traffic": POISSON, "window": {"requests": 40}, "steps": None, "warmup_steps": None, "replications": 2}
    return tiny(**(plain | changes))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> moesim.Results:
    grid = {"cache": ["lru", "fifo"], "memory": {"slots": [2, 4]}, "scheduler": {"max_requests": 2}}
    return moesim.run(windowed(**grid), out=tmp_path_factory.mktemp("settle") / "r", save=["steps"], figures=False)


def test_all_measure_the_same_requests(results: moesim.Results) -> None:
    summary, requests = results.summary, results.requests
    first = summary["window_first"].unique().item()
    assert first in range(0, 21, 2) and first >= min(20, summary["warmup_needed"].max())
    assert (summary["measured_requests"] == 40).all() and not summary[["cut_off", "overloaded"]].any(axis=None)
    for replication in (0, 1):
        mine = requests[(requests["replication"] == replication) & requests["measured"]]
        columns = ["request", "arrival_ns", "sequence"]
        arrivals = [group[columns].to_numpy().tolist() for _, group in mine.groupby("run")]
        assert len(arrivals) == 4 and all(one == arrivals[0] for one in arrivals)
        assert [number for number, *_ in arrivals[0]] == list(range(first, first + 40))


def test_the_row_is_of_the_steps_and_requests_that_were_chosen(results: moesim.Results) -> None:
    for _, row in results.summary.iterrows():
        steps = results.steps[(results.steps["run"] == row["run"]) & results.steps["measured"]]
        assert (len(steps), int(steps["end_ns"].iloc[-1] - steps["start_ns"].iloc[0])) == (row["steps"], row["span_ns"])
        requests = results.requests[(results.requests["run"] == row["run"]) & results.requests["measured"]]
        assert steps["start_ns"].iloc[0] >= requests["arrival_ns"].iloc[0]
        assert steps["end_ns"].iloc[-1] >= requests["finished_ns"].max() > steps["start_ns"].iloc[-1]
        assert row["ttft_mean_ns"] == requests["ttft_ns"].mean()
        left = results.requests[(results.requests["run"] == row["run"])]["finished_ns"]
        count = int(left.between(steps["start_ns"].iloc[0], steps["end_ns"].iloc[-1], inclusive="right").sum())
        assert row["throughput_requests_per_s"] == count * 10**9 / row["span_ns"]


def test_neither_jobs_nor_an_interruption_change_a_byte(
    results: moesim.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"cache": ["lru", "fifo"], "memory": {"slots": [2, 4]}, "scheduler": {"max_requests": 2}}
    real, calls = moesim.sim.simulate, []

    def stopping(*given: Any, **named: Any) -> RunResult:
        calls.append(given)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(moesim.sim, "simulate", stopping)
    with pytest.raises(KeyboardInterrupt):
        moesim.run(windowed(**grid), out=tmp_path / "r", save=["steps"], figures=False)
    monkeypatch.undo()
    again = moesim.run(windowed(**grid), out=tmp_path / "r", save=["steps"], figures=False, jobs=2)
    assert '"reused": 3' in (again.folder / "run.json").read_text()
    for path in results.folder.iterdir():
        assert path.name == "run.json" or path.read_bytes() == (again.folder / path.name).read_bytes(), path.name


def test_an_overloaded_server_has_no_latencies(tmp_path: Path) -> None:
    rates = {"traffic": POISSON | {"rate": [60.0, 100_000.0]}, "cache": ["lru", "fifo"]}
    found = moesim.run(windowed(**rates), out=tmp_path / "r", figures=False)
    slow, fast = (found.summary[found.summary["traffic.rate"] == rate] for rate in ("60.0", "100000.0"))
    assert fast["overloaded"].all() and not slow["overloaded"].any()
    latencies = [c for c in found.summary if c.split("_")[-2:] in (["mean", "ns"], ["p95", "ns"], ["p99", "ns"])]
    assert len(latencies) >= 12 and fast[latencies].isna().all(axis=None) and slow[latencies].notna().all(axis=None)
    assert fast["gap_time"].isna().all() and (fast["throughput_tokens_per_s"] > 0).all()
    rows = found.document()["runs"]
    assert {row["ttft_mean_ns"] for row in rows if row["overloaded"]} == {"overloaded"}
    assert all(isinstance(row["ttft_mean_ns"], float) for row in rows if not row["overloaded"])
    for text in (found.table(), found.digest()):
        assert "OVERLOADED: 2 of 4 configurations cannot keep up" in text and "overloaded: all of them" in text


def test_a_closed_or_a_frozen_one_is_never_overloaded(tmp_path: Path) -> None:
    fast = {"traffic": POISSON | {"rate": 100_000.0, "requests": 40}, "window": None, "steps": 400}
    traffic = {"kind": "closed", "concurrency": 50}
    frozen = moesim.run(windowed(**fast, schedule="frozen"), out=tmp_path / "f", figures=False).summary
    closed = moesim.run(windowed(traffic=traffic), out=tmp_path / "c", figures=False).summary
    assert not frozen["overloaded"].any() and not closed["overloaded"].any() and not closed["open_traffic"].any()
    free = moesim.run(windowed(**fast), out=tmp_path / "o", figures=False).summary
    assert free["overloaded"].all() and (free["window_requests"] == -1).all(), "a window is not needed to see it"


def test_replications_that_have_the_arrivals_of_a_file_are_marked(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{n / 10},4,3\n" for n in range(40)))

    def marked(replications: int, **arrivals: Any) -> bool:
        traffic = {"kind": "trace", "arrivals": {"file": str(file), "format": "csv"} | arrivals}
        plain = windowed(traffic=traffic, window=None, steps=20) | {"replications": replications}
        found = moesim.run(plain, out=tmp_path / "r", figures=False)
        assert ("intervals do not cover how arrivals vary" in found.table()) is bool(found.summary["same_arrivals"][0])
        return bool(found.summary["same_arrivals"].all())

    assert marked(2) and not marked(1) and not marked(2, sample=0.9)


def test_a_run_that_is_cut_off_is_said_and_has_no_latencies(tmp_path: Path) -> None:
    found = moesim.run(windowed(steps=30), out=tmp_path / "r", figures=False)
    assert found.summary["cut_off"].all() and found.summary["ttft_mean_ns"].isna().all()
    assert "CUT OFF: 1 of 1 configurations ran out of `steps`" in found.table()
    assert {row["ttft_mean_ns"] for row in found.document()["runs"]} == {"cut off"}


# ---- which warm-up


def made(needs: int, cut_off: bool = False, requests: int = 40) -> RunResult:
    """A run whose time to the first token settles after so many of its 60 requests."""
    number = np.arange(requests * 3 // 2)
    late = np.where(number < needs, 900, 0) + number % 2
    arrival = number * 100
    table = {"request": number, "arrival_ns": arrival, "started_ns": arrival + 5, "first_token_ns": arrival + 10 + late}
    table |= {"finished_ns": arrival + 20 + late, "output_tokens": np.full(len(number), 10)}
    windows = {"window_first": np.arange(0, requests // 2 + 1, requests // 20)}
    windows |= {"window_step": windows["window_first"] * 2, "window_end": windows["window_first"] * 2 + requests}
    windows |= {"cut_off": np.full(11, int(cut_off))}
    steps = {"step": np.arange(2 * len(number)), "requests": np.ones(2 * len(number), np.int64)}
    steps |= {"start_ns": steps["step"] * 50, "end_ns": steps["step"] * 50 + 50}
    counters = {name: int(column[-1]) for name, column in windows.items()}
    return RunResult(counters, steps, table, {}, windows)


def runs_of(**changes: Any) -> list[Run]:
    return read_plan(windowed(**changes)).runs()


def warmups(runs: list[Run], results: list[RunResult]) -> list[int]:
    return [result.counters["window_first"] for result in settle.settle(runs, results)]


def test_the_largest_that_any_needs_is_left_out_of_all_that_compare() -> None:
    runs = runs_of(cache=["lru", "fifo"], traffic=POISSON | {"rate": [50.0, 60.0]})
    assert len(runs) == 8
    assert warmups(runs, [made(n) for n in (0, 5, 0, 0, 0, 0, 11, 0)]) == [6] * 4 + [16] * 4
    assert warmups(runs[:2], [made(0), made(0)]) == [0, 0]


def test_cases_and_seeds_are_groups_of_their_own() -> None:
    cases = runs_of(cases={"a": {}, "b": {}}, replications=1)
    assert warmups(cases, [made(10), made(0)]) == [10, 0]
    seeds = runs_of(seed=[1, 2], replications=1)
    assert warmups(seeds, [made(10), made(0)]) == [10, 0]


def test_what_has_no_steady_state_has_no_say(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = runs_of(cache=["lru", "fifo"])
    cut = made(15, cut_off=True)
    found = settle.settle(runs, [made(5), made(0), cut, made(0)])
    assert [r.counters["window_first"] for r in found] == [6] * 4
    assert [r.counters["cut_off"] for r in found] == [False, False, True, False]
    assert [r.counters["warmup_needed"] for r in found] == [5, 0, -1, 0]
    monkeypatch.setattr(settle, "_overloaded", lambda group: group[0][0].config.cache.name == "lru")
    found = settle.settle(runs, [made(15), made(0), made(5), made(0)])
    assert [r.counters["window_first"] for r in found] == [6] * 4
    assert [r.counters["overloaded"] for r in found] == [True, True, False, False]
    found = settle.settle(runs[:2], [made(15), made(0)])
    assert [r.counters["window_first"] for r in found] == [20, 20]


def test_a_transient_that_does_not_end_is_said() -> None:
    found = settle.settle(runs_of(), [made(25), made(0)])
    assert [(r.counters["window_first"], r.counters["unsettled"]) for r in found] == [(20, True), (20, False)]
    given = runs_of(window={"requests": 40, "warmup": 4})
    one = replace(made(10), windows={name: column[2:3] for name, column in made(10).windows.items()})
    found = settle.settle(given, [one, one])
    assert [(r.counters["window_first"], r.counters["unsettled"]) for r in found] == [(4, True)] * 2


def test_measured_rows_follow_the_choice() -> None:
    first, _ = settle.settle(runs_of(), [made(11), made(0)])
    assert np.flatnonzero(first.requests["measured"]).tolist() == list(range(16, 56))
    assert np.flatnonzero(first.steps["measured"]).tolist() == list(range(32, 72))


def test_windows_of_a_point() -> None:
    assert Window(requests=100).candidates == list(range(0, 51, 5)) and Window(requests=100).awaited == 150
    assert Window(requests=41, warmup=7).candidates == [7] and Window(requests=41, warmup=7).awaited == 48
    config = RunConfig.model_validate(windowed())
    assert config.traffic.requests == 4 * 60 and config.steps == 10**6 and not math.isnan(config.steps)
    assert RunConfig.model_validate(config.experiment()) == config


def test_progress_counts_a_finished_run_as_all_its_steps() -> None:
    """A limit of a million steps is no forecast: the tally says so only when a run is done."""
    tallies = []
    runs = runs_of()
    pool.Pool(report=lambda tally: tallies.append((tally.runs, tally.done_steps))).execute(runs)
    assert tallies[-1] == (2, 2 * 10**6)


@pytest.mark.parametrize(("batch", "light", "heavy"), [("decode-first", 64.0, 82.0), ("prefill-first", 42.0, 64.0)])
def test_a_batching_server_near_what_it_can_do(batch: str, light: float, heavy: float, tmp_path: Path) -> None:
    """It serves some 72 requests a second if it finishes what it began, 50 if it takes turns."""
    case: dict[str, Any] = {
        "trace": {"synthetic": "sticky", "sequences": 80, "prompt_tokens": 6, "output_tokens": 20},
        "scheduler": {"max_requests": 4, "batch": batch},
        "window": {"requests": 200, "warmup": 100},
        "traffic": {"kind": "poisson", "rate": [light, heavy], "output": {"kind": "uniform", "min": 2, "max": 16}},
    }
    found = moesim.run(windowed(**case, replications=4, seed=3), out=tmp_path / "r", figures=False).summary
    assert found["overloaded"].tolist() == [False] * 4 + [True] * 4


@pytest.mark.parametrize(
    ("changes", "ended"),
    [
        ({"steps": 30}, True),  # 40 requests of 3 tokens, 2 in a step: more steps than that
        ({"steps": 5000}, False),
        ({"steps": 30, "traffic": {"kind": "closed", "concurrency": 2, "requests": 40}}, False),  # asked for by steps
        ({"steps": 30, "schedule": "frozen"}, False),
    ],
)
def test_open_traffic_that_steps_cut_short_is_said(tmp_path: Path, changes: dict[str, Any], ended: bool) -> None:
    plain = {"traffic": POISSON | {"requests": 40}, "scheduler": {"max_requests": 2}, "warmup_steps": 2}
    found = moesim.run(tiny(**(plain | changes)), out=tmp_path / "r", figures=False)
    assert found.summary["steps_ended"].tolist() == [ended]
    said = "1 of 1 runs ran out of `steps` before all their requests had come and left"
    assert (said in (found.folder / "table.txt").read_text()) == ended
