"""A row per copy: where the hand put it, the same with known patterns, and in sum what the link and the cache count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.toy import run, trace
from moesim.policy import names, register, registry
from moesim.sim import RunResult
from moesim.sim.transfers import RecordedLink
from tests.sim.test_conservation import Whim, predicting
from tests.sim.test_patterns import cases
from tests.sim.timelines import watch
from tests.sim.timelines.scenes.link import CHUNKS, IN_FLIGHT
from tests.sim.timelines.scenes.prefetch import CANCELLATION, PROMOTION
from tests.sim.timelines.timeline import Panel

SHOWN = ("key", "class", "submitted_ns", "started_ns", "ended_ns", "line_ns", "room_ns", "promoted_ns")
CARRIED = ("key", "bytes", "sent_bytes", "chunks", "sent_chunks", "link_ns", "cancelled", "wasted_bytes")


def rows(table: dict[str, np.ndarray], columns: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].tolist() for name in columns), strict=True))


@pytest.mark.parametrize(
    ("panel", "when", "what"),
    [
        (
            CHUNKS.panels[0],
            [(0, "demand", 300, 300, 1600, 0, 0, -1)],
            [(0, 1000, 1000, 3, 3, 1300, False, 0)],
        ),
        (
            IN_FLIGHT.panels[0],
            [(2, "prefetch", 0, 0, 2000, 0, 0, -1), (0, "demand", 300, 750, 1750, 450, 0, -1)],
            [(2, 1000, 1000, 4, 4, 1000, False, 0), (0, 1000, 1000, 4, 4, 1000, False, 0)],
        ),
        (  # key 2 was planned again at 300; the run ends when half of it is submitted
            PROMOTION.panels[0],
            [
                (1, "prefetch", 0, 0, 2000, 0, 0, 300),
                (0, "demand", 300, 500, 1500, 200, 0, -1),
                (2, "prefetch", 300, 2000, 2500, 1700, 0, -1),
            ],
            [
                (1, 1000, 1000, 4, 4, 1000, False, 0),
                (0, 1000, 1000, 4, 4, 1000, False, 0),
                (2, 1000, 500, 4, 2, 500, False, 0),
            ],
        ),
        (  # the chunk in flight ends at 500; then key 0 is tried, and waits for key 1 to land and to run
            PROMOTION.panels[1],
            [(1, "prefetch", 0, 0, 1000, 0, 0, 300), (0, "demand", 300, 1300, 2300, 200, 800, -1)],
            [(1, 1000, 1000, 4, 4, 1000, False, 0), (0, 1000, 1000, 4, 4, 1000, False, 0)],
        ),
        (  # three chunks were submitted when it was given up, and its room is free when the last is over
            CANCELLATION.panels[0],
            [(3, "prefetch", 0, 0, 750, 0, 0, -1), (0, "demand", 300, 750, 1750, 200, 250, -1)],
            [(3, 1000, 750, 4, 3, 750, True, 750), (0, 1000, 1000, 4, 4, 1000, False, 0)],
        ),
        (
            CANCELLATION.panels[1],
            [(3, "prefetch", 0, 0, 1000, 0, 0, -1), (0, "demand", 300, 1000, 2000, 200, 500, -1)],
            [(3, 1000, 1000, 4, 4, 1000, False, 1000), (0, 1000, 1000, 4, 4, 1000, False, 0)],
        ),
    ],
    ids=lambda value: value.title if isinstance(value, Panel) else "",
)
def test_rows_of_the_timelines_that_were_worked_out_by_hand(panel: Panel, when: list[Any], what: list[Any]) -> None:
    found = watch.recorded(panel).transfers
    assert rows(found, SHOWN) == when
    assert rows(found, CARRIED) == what
    assert not found["staged"].any() and set(found["step"].tolist()) == {0}


def totals(result: RunResult) -> dict[str, int]:
    """What the table of copies says of the whole run, under the names of the counters."""
    table = result.transfers
    moved = np.where(table["cancelled"], table["sent_bytes"], table["bytes"])
    return {
        "demand_bytes": int(table["bytes"][table["class"] == "demand"].sum()),
        "prefetch_bytes": int(moved[table["class"] == "prefetch"].sum()),
        "wasted_bytes": int(table["wasted_bytes"].sum()),
        "link_busy_ns": int(table["link_ns"].sum()),
        "prefetch_cancelled": int(table["cancelled"].sum()),
        "bypasses": int(table["staged"].sum()),
        "swap_in_bytes": int(table["bytes"][table["class"] == "kv"].sum()),
    }


def conserved(result: RunResult) -> None:
    """Nothing was counted that has no row, and nothing has one that was not counted."""
    table, found = result.transfers, totals(result)
    assert found == {name: result.counters.get(name, 0) for name in found}
    carried = np.bincount(
        table["step"], np.where(table["class"] == "demand", table["bytes"], 0), len(result.steps["step"])
    )
    assert carried[: len(result.steps["step"])].tolist() == result.steps["demand_bytes"].tolist()
    assert (table["line_ns"] >= 0).all() and (table["room_ns"] >= 0).all()
    waited = table["started_ns"] - table["submitted_ns"]
    assert (table["line_ns"] + table["room_ns"] == waited).all()
    assert (table["ended_ns"] - table["started_ns"] >= table["link_ns"]).all()
    assert (table["wasted_bytes"] <= table["sent_bytes"]).all() and (table["sent_bytes"] <= table["bytes"]).all()
    by_start = np.argsort(table["started_ns"], kind="stable")
    assert (np.diff(table["started_ns"][by_start]) > 0).all() or not (table["link_ns"] > 0).all(), "one at a time"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data(), cases(), st.sampled_from(names("prefetch")), st.integers(0, 2), st.sampled_from(["wait", "whim"]))
def test_rows_add_up_to_what_the_link_and_the_cache_count(
    data: st.DataObject, case: dict[str, Any], prefetch: str, staging: int, miss: str
) -> None:
    layerwise = ("none", "speculative")
    case["prefetch"] = prefetch if case["router"] == "decoupled" or prefetch in layerwise else "speculative"
    case["memory"] |= {"staging": staging}
    case["costs"] = replace(case["costs"], cpu=100)
    made = predicting(data.draw, case)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "_registered", dict(registry._registered))
        register("whim")(Whim)
        result, plain = run(made, **case, miss=miss, transfers=True), run(made, **case, miss=miss)
    conserved(result)
    assert result.counters == plain.counters and not plain.transfers
    for name, column in plain.requests.items():
        assert np.array_equal(result.requests[name], column), name


@settings(max_examples=150, deadline=None, derandomize=True)
@given(cases())
def test_known_patterns_give_the_rows_of_direct_work(case: dict[str, Any]) -> None:
    sequences = case.pop("sequences")
    fast, slow = run(sequences, **case, transfers=True), run(sequences, **case, transfers=True, direct=True)
    conserved(fast)
    for name, column in slow.transfers.items():
        assert np.array_equal(fast.transfers[name], column), name


def test_patterns_that_are_forgotten_are_learnt_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moesim.sim.engine.KEPT", 1)
    sequences = [([0], [1, 2, 3, 0, 1, 2, 3, 0, 2, 1])]
    fast = run(sequences, memory={"slots": 1}, transfers=True)
    slow = run(sequences, memory={"slots": 1}, transfers=True, direct=True)
    assert rows(fast.transfers, SHOWN) == rows(slow.transfers, SHOWN) and len(fast.transfers["key"]) == 10


def test_swapped_blocks_have_rows_without_a_key() -> None:
    made = trace([([0, 1, 2, 3], [0, 1, 2, 3])] * 3)
    memory = {"slots": 2, "kv": {"blocks": 3, "block_tokens": 4, "preempt": "swap", "watermark": 0}}
    scheduler = {"batch": "decode-first", "max_tokens": 64, "max_requests": 3}
    result = run(made, memory=memory, scheduler=scheduler, traffic={"kind": "all", "requests": 3}, transfers=True)
    conserved(result)
    blocks = result.transfers["class"] == "kv"
    assert result.counters["preemptions_swap"] and blocks.any()
    assert set(result.transfers["key"][blocks].tolist()) == set(result.transfers["layer"][blocks].tolist()) == {-1}


def test_a_key_has_its_layer_and_expert() -> None:
    result = run([([[1, 2]], [[1, 2]])], layers=2, router="layerwise", transfers=True)
    assert rows(result.transfers, ("key", "layer", "expert")) == [(1, 0, 1), (6, 1, 2)]


def test_a_copy_without_a_row_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums compare something: a link that forgets a chunk does not add up."""
    sent = RecordedLink._sent

    def forgetful(link: RecordedLink, transfer: Any, start: int, end: int, spent: int, chunks: int) -> None:
        sent(link, transfer, start, end, spent - 1, chunks)

    monkeypatch.setattr(RecordedLink, "_sent", forgetful)
    with pytest.raises(AssertionError):
        conserved(run([([0], [1])], transfers=True))
