"""Overload: what is counted, by hand and by definition; and how often the criterion errs on a queue that is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.analysis.overload import LEAST, Pressure, overloaded, pressure
from tests.analysis import queue


def test_by_hand() -> None:
    """From 10 to 50, at most one in service: two are there from 10 to 20 (0 leaves), from 22 to 30 (1 leaves) and from
    31 on. Two leave; half of 0 was done before, and of 2, served from 30 to 60, two thirds are done at the end."""
    lives = (np.array([0, 10, 22, 31]), np.array([0, 20, 30, -1]), np.array([20, 30, 60, -1]))
    left = 2 - 10 / 20 + 20 / 30
    assert pressure(lives, 1, 10, 50, 10) == Pressure(40, 10 + 8 + 19, pytest.approx(left), pytest.approx(3.7))
    assert pressure(lives, 2, 10, 50, 10) == Pressure(40, 0, 0, 0.0)
    assert pressure(lives, 1, 10, 50) == Pressure(40, 37, pytest.approx(left), pytest.approx(37 * 2 / 40)), "2 came"


def test_a_server_that_works_at_all_in_turn_has_done_its_work_before_anybody_leaves() -> None:
    """Ten requests share the server from 0, and leave at 91 to 100: by 50 it has done half of all."""
    lives = (np.zeros(10, np.int64), np.zeros(10, np.int64), np.arange(91, 101))
    assert pressure(lives, 1, 0, 50, 10).left == pytest.approx(sum(50 / end for end in range(91, 101)))


def test_what_has_not_ended_is_half_done_at_the_end() -> None:
    lives = (np.array([0, 0, 0]), np.array([0, 50, -1]), np.array([100, -1, -1]))
    assert pressure(lives, 1, 0, 100, 10) == Pressure(100, 100, pytest.approx(1.5), 10.0)


def test_requests_that_leave_together_all_leave_a_full_batch() -> None:
    """Three in the system, one of them waiting; a step of two ends with both of its requests."""
    lives = (np.array([0, 0, 0]), np.array([0, 0, 10]), np.array([10, 10, 30]))
    assert pressure(lives, 2, 0, 20, 5) == Pressure(20, 10, 2, 2.0)


def naive(lives: list[tuple[int, int, int]], most: int, start: int, end: int) -> tuple[int, float]:
    """Full time and what left, nanosecond by nanosecond."""
    full = [sum(came <= now < gone for came, _, gone in lives) > most for now in range(start, end)]
    left = float(sum(full[gone - 1 - start] for *_, gone in lives if start < gone <= end))
    for now, sign, counts in ((start, -1, full[0]), (end, 1, full[-1])):
        left += sign * counts * sum((now - b) / (gone - b) for _, b, gone in lives if b < now < gone)
    return sum(full), left


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.integers(1, 20)), min_size=1, max_size=12),
    st.integers(0, 4), st.integers(0, 20), st.integers(1, 20),
)  # fmt: skip
def test_as_defined(drawn: list[tuple[int, int, int]], most: int, start: int, length: int) -> None:
    lives = [(came, came + wait, came + wait + work) for came, wait, work in drawn]
    arrays = tuple(np.array(column) for column in zip(*lives, strict=True))
    got = pressure(arrays, most, start, start + length, 1)  # type: ignore[arg-type]
    full, left = naive(lives, most, start, start + length)
    assert (got.full, got.left, got.expected) == (full, pytest.approx(left), full)


@pytest.mark.parametrize(
    ("run", "over"),
    [
        (Pressure(100, 50, 30, 30.1), True),
        (Pressure(100, 49, 30, 31.0), False),  # not full for half of the time
        (Pressure(100, 100, 31, 30.9), False),  # more left than came
        (Pressure(100, 100, 0, LEAST - 0.1), False),  # too little to say
        (Pressure(100, 100, 0, LEAST), True),
        (Pressure(0, 0, 0, 0.0), False),
    ],
)
def test_the_criterion(run: Pressure, over: bool) -> None:
    assert overloaded([run]) is over


def test_replications_are_judged_together() -> None:
    """One of three lost ground by chance; all in all more left than came."""
    assert overloaded([Pressure(100, 100, 25, 30.0)])
    assert not overloaded([Pressure(100, 100, 25, 30.0), *[Pressure(100, 100, 33, 30.0)] * 2])
    assert not overloaded([])


def errors(load: float, requests: int, service: str, seeds: int = 100) -> int:
    """How many of the experiments with four replications each are taken for overloaded."""
    found = [[queue.run(load, requests, 4 * seed + r, service) for r in range(4)] for seed in range(seeds)]
    return sum(map(overloaded, found))


@pytest.mark.parametrize(
    ("load", "requests", "service", "low", "high"),
    [
        (0.9, 1000, "exponential", 0, 0),
        (0.95, 1000, "exponential", 0, 2),
        (1.05, 1000, "exponential", 97, 100),
        (1.2, 1000, "exponential", 100, 100),
        (0.95, 300, "equal", 0, 0),
        (1.05, 300, "equal", 97, 100),
        # What it cannot tell: 200 measured requests of exponential service are few for 5 %.
        (0.95, 300, "exponential", 0, 15),
        (1.05, 300, "exponential", 80, 97),
    ],
)
def test_error_rates_on_a_single_server(load: float, requests: int, service: str, low: int, high: int) -> None:
    assert low <= errors(load, requests, service) <= high


@pytest.mark.parametrize("last", [False, True])
def test_a_burst_that_drains_is_no_overload(last: bool) -> None:
    """Load 0.6 with bursts of 40 requests at three times what the server can do, also as the last thing there is."""
    found = []
    for seed in range(100):
        rng = np.random.default_rng([seed, 7])
        gaps = rng.exponential(1 / 0.6, 600)
        for begin in (250, 400, 560 if last else 450):
            gaps[begin : begin + 40] = rng.exponential(1 / 3, 40)
        arrival = np.cumsum(gaps * queue.GAP).astype(np.int64)
        service = (rng.exponential(1, 600) * queue.GAP).astype(np.int64)
        found.append(overloaded([queue.seen(arrival, service, gap=None)]))
    assert sum(found) == 0
