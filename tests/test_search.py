"""The largest load that meets an objective: the bisection alone, on a server that is solved by hand, and as a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import moesim
from moesim import pool, search
from moesim.check import toy
from moesim.errors import InputError
from moesim.experiment import Experiment, Search, search_rules
from moesim.plan import read_plan
from moesim.search import Bisection, at, largest
from moesim.sim import Inputs, RunResult, simulate
from moesim.sim.workload import Workload
from tests.tiny import tiny

OBJECTIVE = {"e2e": 3e-7, "share": 0.8}


def made(low: float, high: float, tolerance: float = 0.02, over: str = "traffic.rate") -> Search:
    return Search.model_validate({"over": over, "from": low, "to": high, "tolerance": tolerance})


def bisect(given: Search, limit: float) -> tuple[Bisection, list[float]]:
    """The search where loads up to `limit` meet; and what it tried."""
    found, tried = Bisection(given), []
    while (load := found.next()) is not None:
        tried.append(load)
        found.learn(load, load <= limit)
    return found, tried


# ---- the bisection alone


def test_it_tries_the_ends_and_then_the_geometric_middle() -> None:
    # 1 meets, 16 fails, 4 meets, 8 fails, sqrt(32) fails; 5.65685 / 4 is within 1 + 0.5
    found, tried = bisect(made(1, 16, 0.5), 5)
    assert tried == [1, 16, 4, 8, 5.65685]
    assert found.found() == {
        "max_rate": 4, "rate_met": 4, "rate_failed": 5.65685, "search_outcome": "found", "search_probes": 5,
    }  # fmt: skip


@given(st.floats(0.01, 100), st.floats(1.001, 1000), st.floats(0.0001, 1), st.floats(0, 1))
def test_the_bracket_holds_the_limit_and_is_as_narrow_as_asked(
    low: float, ratio: float, tolerance: float, place: float
) -> None:
    given, limit = made(low, low * ratio, tolerance), low * ratio**place
    found, tried = bisect(given, limit)
    met, failed = (found.found()[f"rate_{what}"] for what in ("met", "failed"))
    assert len(set(tried)) == len(tried) <= search.most_probes(given)
    if limit < given.end:
        assert met <= limit < failed and failed <= met * (1 + tolerance)


def test_both_ends_may_be_wrong_and_that_is_said() -> None:
    low, tried = bisect(made(2, 16), 1)
    assert tried == [2] and low.found()["search_outcome"] == "even from fails"
    assert math.isnan(low.found()["max_rate"]) and math.isnan(low.found()["rate_met"])
    high, tried = bisect(made(2, 16), 99)
    assert tried == [2, 16] and high.found()["search_outcome"] == "even to meets"
    assert math.isnan(high.found()["max_rate"]) and high.found()["rate_met"] == 16


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 400))
def test_users_are_whole_numbers_and_none_is_left_out(low: int, more: int, limit: int) -> None:
    given = made(low, low + more, 0.0001, "traffic.concurrency")
    found, tried = bisect(given, limit)
    assert all(float(load).is_integer() for load in tried)
    if low <= limit < low + more:
        assert (found.found()["max_concurrency"], found.found()["concurrency_failed"]) == (limit, limit + 1)
    assert len(tried) <= search.most_probes(given)


# ---- a server with one queue, solved by Lindley's recursion


def plain(rate: float = 1e5, **changes: Any) -> Experiment:
    traffic = {"kind": "poisson", "rate": rate, "requests": 60}
    found = {"from": 1e5, "to": 2e7, "tolerance": 0.05}
    return toy.config(**({"traffic": traffic, "objective": OBJECTIVE, "search": found} | changes))


TRACE = toy.trace([([0], [0])])


def attempt(config: Experiment) -> RunResult:
    inputs = Inputs(TRACE, toy.shape(), toy.ToyCosts(), toy.ToyLink())  # type: ignore[arg-type]
    return simulate(config, inputs, 0)


def attainment(rate: float) -> float:
    """One request a step, one token each: 1110 ns for the first, which loads the expert, 110 for each other."""
    drawn = Workload(TRACE, plain(rate, search=None).traffic, 0, 0, 1)
    free, kept = 0, 0
    for number in range(60):
        arrival = drawn[number].arrival
        free = max(free, arrival) + (110 if number else 1110)
        kept += free - arrival <= 300
    return kept / 60


def test_the_rate_found_is_the_one_of_the_recursion() -> None:
    result = largest(plain(), attempt)
    rate, failed = result.found["rate_met"], result.found["rate_failed"]
    assert attainment(rate) >= 0.8 > attainment(failed) and failed <= rate * 1.05
    assert result.found["max_rate"] == rate and result.found["search_outcome"] == "found"
    # What is known of it otherwise: the server is full at one request per 110 ns, and the first one always fails.
    assert 1 / 1110e-9 < rate < 1.2 / 110e-9
    # The run is that at the largest rate.
    assert result.requests["arrival_ns"].tolist() == attempt(at(plain(), rate)).requests["arrival_ns"].tolist()


def test_an_objective_that_nothing_meets_and_one_that_all_meet() -> None:
    never = largest(plain(objective={"e2e": 1e-9}), attempt)
    assert never.found["search_outcome"] == "even from fails" and never.found["search_probes"] == 1
    assert len(never.requests["request"]) == 60, "the run at `from` is there to be looked at"
    always = largest(plain(objective={"e2e": 1}), attempt)
    assert always.found["search_outcome"] == "even to meets" and always.found["rate_met"] == 2e7


def test_loads_have_the_same_requests_and_the_same_gaps_scaled() -> None:
    slow, fast = (attempt(at(plain(), rate)).requests for rate in (1e5, 8e5))
    assert slow["sequence"].tolist() == fast["sequence"].tolist()
    np.testing.assert_allclose(np.diff(slow["arrival_ns"]), 8 * np.diff(fast["arrival_ns"]), atol=8)


def test_a_load_at_which_nothing_is_measured_is_bad_input() -> None:
    with pytest.raises(InputError, match=r"with traffic\.rate 100000 nothing was measured: give it more requests"):
        largest(plain(warmup_steps=200), attempt)


def test_arrivals_of_a_file_are_scaled_and_users_counted() -> None:
    arrivals = {"kind": "trace", "arrivals": "a.csv", "requests": 60}
    scaled = plain(traffic=arrivals, search={"over": "traffic.arrivals.scale", "from": 0.5, "to": 4})
    assert at(scaled, 2.5).traffic.arrivals.scale == 2.5  # type: ignore[union-attr]
    closed = plain(
        traffic={"kind": "closed", "concurrency": 1, "requests": 60},
        search={"over": "traffic.concurrency", "from": 1, "to": 32, "tolerance": 0.001},
        objective={"e2e": 560e-9, "share": 0.9},
    )
    # One request a step: each waits for those of the other users, so that it takes `concurrency` times 110 ns.
    found = largest(closed, attempt).found
    assert (found["max_concurrency"], found["concurrency_failed"]) == (5, 6)


# ---- as an experiment

OPEN: dict[str, Any] = {
    "traffic": {"kind": "poisson", "requests": 24},
    "objective": {"e2e": 0.06, "share": 0.75},
    "search": {"from": 1, "to": 4000, "tolerance": 0.2},
    "steps": 2000,
    "warmup_steps": 2,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> moesim.Results:
    folder = tmp_path_factory.mktemp("search") / "r"
    return moesim.run(tiny(**OPEN, cache=["lru", "fifo"], replications=2), out=folder, figures=False)


def test_a_row_has_the_largest_rate_and_the_metrics_at_it(results: moesim.Results) -> None:
    summary = results.summary
    assert summary["search_outcome"].tolist() == ["found"] * 4
    assert (summary["attainment"] >= 0.75).all() and summary["meets_objective"].all()
    assert (summary["rate_failed"] <= 1.2 * summary["rate_met"]).all()
    first = results.configs[0]
    assert (first.traffic.rate, first.search is not None) == (1, True)
    at_rate = {**OPEN, "search": None, "traffic": OPEN["traffic"] | {"rate": float(summary["max_rate"][0])}}
    alone = moesim.run(tiny(**at_rate, replications=2), out=results.folder.parent / "alone", figures=False).summary
    same = ["ttft_mean_ns", "e2e_p95_ns", "itl_p99_ns", "attainment", "span_ns", "steps"]
    assert alone[same].iloc[0].to_dict() == summary[same].iloc[0].to_dict()


def test_a_resolved_point_is_an_experiment(results: moesim.Results) -> None:
    again = read_plan(results.configs[0].experiment()).configs[0]
    assert again.search == results.configs[0].search


def test_processes_do_not_matter(results: moesim.Results, tmp_path: Path) -> None:
    other = moesim.run(tiny(**OPEN, cache=["lru", "fifo"], replications=2), out=tmp_path / "r", figures=False, jobs=2)
    for name in ("summary.csv", "requests.parquet", "resolved.yaml", "table.txt"):
        assert (other.folder / name).read_bytes() == (results.folder / name).read_bytes(), name


def test_an_interrupted_search_goes_on_from_what_it_has_tried(
    results: moesim.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    def counted(config: Any, *args: Any, **named: Any) -> RunResult:
        if len(tried) == 3:
            tried.append(-1)
            raise KeyboardInterrupt
        tried.append(config.traffic.rate)
        return simulate(config, *args, **named)

    monkeypatch.setattr(moesim.sim, "simulate", counted)
    document = tiny(**OPEN, cache=["lru", "fifo"], replications=2)
    with pytest.raises(KeyboardInterrupt):
        moesim.run(document, out=tmp_path / "r", figures=False)
    again = moesim.run(document, out=tmp_path / "r", figures=False)
    assert len(tried) - 1 == int(results.summary["search_probes"].sum()), "no load was simulated twice"
    assert (again.folder / "summary.csv").read_bytes() == (results.folder / "summary.csv").read_bytes()


def test_progress_counts_every_load_that_might_be_tried(tmp_path: Path) -> None:
    runs = read_plan(tiny(**OPEN)).runs()
    done: list[int] = []
    pool.Pool(report=lambda tally: done.append(tally.done_steps)).execute(runs)
    assert done[-1] == sum(map(pool.most_steps, runs)) == 2000 * search.most_probes(runs[0].config.search)


# ---- mistakes


def test_the_requests_that_count_must_be_known_beforehand() -> None:
    values: dict[str, Any] = {"search": {"from": 1, "to": 2}, "objective": {"ttft": 1}, "traffic": {"kind": "poisson"}}
    (text,) = search_rules(values | {"window": {"requests": 100}})
    assert text.startswith("needs a window whose warmup is a number")
    assert search_rules(values | {"window": {"requests": 100, "warmup": 20}}) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"objective": None}, "search: needs an objective"),
        ({"objective": {}}, "objective: limits nothing; give at least one of ttft, tpot, e2e, in seconds"),
        ({"objective": {"ttft": -1}}, "objective.ttft: -1 must be more than 0"),
        ({"objective": {"ttft": 1, "share": 1.5}}, "objective.share: 1.5 must be at most 1"),
        ({"objective": {"tftt": 1}}, "objective.tftt: unknown key 'tftt'; did you mean 'ttft'"),
        ({"schedule": "frozen"}, "search: needs schedule: free"),
        ({"search": {"from": 4, "to": 2}}, r"search: from \(4\) must be less than to \(2\)"),
        ({"search": {"to": 2}}, "search.from: is missing; it is: least value to try"),
        ({"search": {"from": 1, "to": 2, "over": "traffic.requests"}}, "search.over: unknown value 'traffic.requests'"),
        (
            {"search": {"from": 1, "to": 2, "over": "traffic.concurrency"}},
            "search: over traffic.concurrency belongs to traffic of kind closed, and the kind is poisson",
        ),
        (
            {"traffic": {"kind": "closed", "concurrency": 3, "requests": 8}},
            "search: over traffic.rate belongs to traffic of kind poisson or gamma, and the kind is closed",
        ),
        (
            {"traffic": {"kind": "poisson", "rate": 5, "requests": 8}},
            r"search: traffic.rate \(5\) is what it looks for, from 1 on: leave it out",
        ),
        (
            {
                "traffic": {"kind": "closed", "requests": 8},
                "search": {"from": 1.5, "to": 8, "over": "traffic.concurrency"},
            },
            r"from \(1.5\) and to \(8\) must be whole numbers of users",
        ),
    ],
)
def test_mistakes_say_what_would_be_right(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InputError, match=text):
        read_plan(tiny(**(OPEN | changes)))


@pytest.mark.parametrize(
    ("kind", "given", "text"),
    [
        ("poisson", {"from": "one", "to": 3}, "search.from: 'one' must be a number"),
        ("poisson", {"to": 3}, "search.from: is missing"),
        ("poisson", {"from": 1, "to": 3, "over": "rate"}, "search.over: unknown value 'rate'"),
        ("poisson", {"from": 1, "to": 3, "over": "traffic.concurrency"}, "search: over traffic.concurrency belongs to"),
        ("closed", {"from": 1, "to": 3}, "search: over traffic.rate belongs to traffic of kind poisson or gamma"),
        ("gamma", "traffic.rate", "search: 'traffic.rate' must be a mapping"),
    ],
)
def test_a_mistake_of_a_search_is_told_alone(kind: str, given: Any, text: str) -> None:
    traffic = {"kind": kind, "requests": 8} | ({"cv": 2} if kind == "gamma" else {})
    with pytest.raises(InputError) as refused:
        read_plan(tiny(**(OPEN | {"traffic": traffic, "search": given})))
    (problem,) = refused.value.problems
    assert f"{problem}".find(text) >= 0, problem


def test_a_search_goes_on_until_all_requests_are_answered() -> None:
    # The 1,000 steps of other runs would end one of some hundred requests early, and nobody would see it.
    assert plain(steps=None).steps == 10**6 and plain(steps=70).steps == 70
    (config,) = read_plan(tiny(**(OPEN | {"steps": None, "warmup_steps": 1500}))).configs
    assert config.steps == 10**6
