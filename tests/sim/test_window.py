"""A window of requests: what is measured, by hand, and when the run ends."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim import experiment
from moesim.check.toy import ToyLink, as_requests, run
from moesim.sim import RunResult
from moesim.sim.window import Window, windows_of

ONE = [([0], [0, 0])]
"""prompt and two tokens, all of expert 0: steps of 1110 (with the copy), then 110 ns each"""


def closed(window: dict[str, Any], sequences: Any = ONE, users: int = 1, **changes: Any) -> RunResult:
    return run(sequences, traffic={"kind": "closed", "concurrency": users}, window=window, **changes)


def test_by_hand() -> None:
    """One user: request 0 runs 0 to 1220 (two steps), each later one takes two steps of 110. Measured are 2 and 3."""
    result = closed({"requests": 2, "warmup": 2})
    c = result.counters
    assert result.steps["start_ns"].tolist() == [0, 1110, 1220, 1330, 1440, 1550, 1660, 1770]
    assert result.steps["measured"].tolist() == [False] * 4 + [True] * 4
    assert (c["steps"], c["span_ns"], c["output_tokens"], c["requests_finished"]) == (4, 440, 4, 2)
    assert (c["window_first"], c["window_requests"], c["window_step"], c["window_end"]) == (2, 2, 4, 8)
    assert (c["cut_off"], c["miss_keys_prefill"], c["reuse_keys_prefill"]) == (0, 0, 2)
    requests = result.requests
    assert requests["request"].tolist() == [0, 1, 2, 3, 4], "the next had come when the last that counts left"
    assert requests["measured"].tolist() == [False, False, True, True, False]


def test_arrivals_go_on_until_all_that_are_measured_have_left() -> None:
    """Three users and a step for one request at a time, prompts first: each of the three tokens goes round."""
    result = closed({"requests": 2, "warmup": 0}, users=3, scheduler={"batch": "prefill-first", "max_requests": 1})
    last = result.requests["finished_ns"][:2].max()
    assert (result.requests["arrival_ns"] < last).sum() == 4 and result.requests["finished_ns"].tolist()[3] == -1
    assert result.steps["end_ns"][-1] == last


def test_auto_has_counters_of_every_warm_up_and_shows_the_longest() -> None:
    result = closed({"requests": 40})
    windows = result.windows
    assert windows["window_first"].tolist() == list(range(0, 21, 2))
    assert windows["span_ns"].tolist() == [1110 + 110 * 79] + [110 * 80] * 10
    assert windows["requests_finished"].tolist() == [40] * 11
    assert {name: column[-1] for name, column in windows.items()} == result.counters
    assert result.requests["measured"].sum() == 40 and result.requests["measured"][20]


def test_a_run_that_the_limit_ends_is_cut_off() -> None:
    result = closed({"requests": 2, "warmup": 2}, steps=5)
    assert (result.counters["cut_off"], result.counters["steps"], result.counters["requests_finished"]) == (1, 1, 0)
    early = closed({"requests": 2, "warmup": 2}, steps=2)
    assert (early.counters["cut_off"], early.counters["steps"], early.counters["span_ns"]) == (1, 0, 0)
    assert not early.requests["measured"].any(), "request 2 had not come"


def test_without_a_window_nothing_is_said_of_one() -> None:
    result = run(as_requests(ONE))
    names = ("window_first", "window_requests", "window_step", "window_end", "cut_off")
    assert [result.counters[name] for name in names] == [-1] * 4 + [0]
    assert result.windows == {}


SERVERS = st.fixed_dictionaries(
    {
        "users": st.integers(1, 4),
        "scheduler": st.fixed_dictionaries(
            {
                "max_requests": st.integers(1, 3),
                "max_tokens": st.integers(3, 6),
                "batch": st.sampled_from(["decode-first", "prefill-first"]),
            }
        ),
        "sequences": st.lists(
            st.tuples(
                st.lists(st.integers(0, 3), min_size=1, max_size=3), st.lists(st.integers(0, 3), min_size=1, max_size=3)
            ),
            min_size=1,
            max_size=4,
        ),
    }
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(SERVERS, st.integers(1, 6), st.integers(0, 6), st.booleans())
def test_counters_are_of_the_steps_of_the_window(case: dict[str, Any], count: int, warmup: int, slow: bool) -> None:
    result = closed({"requests": count, "warmup": warmup}, link=ToyLink(100 * slow), **case)
    steps, requests, counters = result.steps, result.requests, result.counters
    first, last = requests["request"] == warmup, requests["measured"]
    assert last.sum() == count and (requests["finished_ns"][last] >= 0).all()
    over = requests["finished_ns"][: warmup + count].max()
    assert steps["end_ns"][-1] >= over > steps["start_ns"][-1], "the run ends with the step in which the last left"
    of_window = (steps["start_ns"] >= requests["arrival_ns"][first][0]) & (
        steps["start_ns"] < requests["finished_ns"][last].max()
    )
    assert steps["measured"].tolist() == of_window.tolist()
    table = {name: int(column[of_window].sum()) for name, column in steps.items()}
    for name in ("prefill_tokens", "decode_tokens", "unique_keys", "demand_bytes", "experts_ns", "miss_stall_ns"):
        assert counters[name] == table[name], name
    assert counters["span_ns"] == steps["end_ns"][of_window][-1] - steps["start_ns"][of_window][0]


def test_windows_of_steps_and_requests() -> None:
    """Steps at 0, 10, 20 (after a pause), 40. Request 1 comes at 5, 2 at 25; they leave at 28 and 45."""
    requests = {"request": np.array([0, 1, 2]), "arrival_ns": np.array([0, 5, 25]), "finished_ns": [10, 28, 45]}
    requests["finished_ns"] = np.array(requests["finished_ns"])
    steps = np.array([[0, 0, 10], [1, 10, 18], [2, 20, 30], [3, 40, 50], [4, 50, 60]])
    asked = experiment.Window(requests=2, warmup=1)
    assert windows_of(asked, requests, steps) == [Window(1, 1, 4, True)]
    assert windows_of(experiment.Window(requests=1, warmup=0), requests, steps) == [Window(0, 0, 1, True)]
    assert windows_of(experiment.Window(requests=1, warmup=3), requests, steps) == [Window(3, 5, 5, False)]
    assert windows_of(None, requests, steps) == []
