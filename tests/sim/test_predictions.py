"""Level `predicted`: what is shown when, and a prefetcher that acts on it. Costs are those of test_engine.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from moesim.check.toy import ToyCosts, classes, ends, run, trace
from moesim.policy import PredictedView, PrefetchPolicy, register, registry
from moesim.sim.predictions import Predictions
from moesim.sim.rows import StepRows
from moesim.sim.work import Part

NONE = [-1, -1]


def guessing(*guesses: tuple[list[int], list[int]]) -> dict[int, Any]:
    """Distance 1 of tokens in a model of two layers: what the first gate says of the second layer."""
    return {1: [[list(guess), NONE[: len(guess)]] for guess in guesses]}


def serve(chosen: list[list[int]], guesses: list[list[int]], **changes: Any) -> Any:
    """A prompt of one token and outputs, each with an expert of both layers and a guess of the second."""
    made = trace([(chosen[:1], chosen[1:])], layers=2, router="layerwise", predicted=guessing(*guesses))  # type: ignore[arg-type]
    prefetch = {"name": "speculative", **changes.pop("spec", {})}
    return run(made, layers=2, router="layerwise", prefetch=prefetch, **changes)


def test_a_right_guess_is_copied_while_the_layer_computes() -> None:
    # Layer 0: attention 10, gate 5, key 0 copied 15-1015, runs -1115. The guess, key 5, is planned at 15 and copied
    # 1015-2015. Layer 1: attention -1125, gate -1130: late; stalls until 2015, runs -2115.
    result = serve([[0, 1], [0, 1]], [[1], [1]])
    assert ends(result) == [2115]
    assert classes(result) == {"miss": 1, "late": 1}
    assert result.counters["prefetch_bytes"] == 1000
    assert result.counters["late_stall_ns"] == 2015 - 1130


def test_a_wrong_guess_is_given_up_when_the_gate_has_run() -> None:
    # The guess, key 6, is copied from 1015 on in chunks of 100. At 1130 the gate wants key 5 and gives key 6 up; in
    # flight are its chunks 1115-1215 and 1215-1315: 300 bytes were sent, the demand is copied 1315-2315, runs -2415.
    result = serve([[0, 1], [0, 1]], [[2], [2]], machine={"chunk_bytes": 100})
    assert ends(result) == [2415]
    assert result.counters["prefetch_cancelled"] == 1
    assert result.counters["prefetch_bytes"] == result.counters["wasted_bytes"] == 300
    kept = serve([[0, 1], [0, 1]], [[2], [2]], machine={"chunk_bytes": 100}, spec={"cancel": False})
    assert ends(kept) == [2415]
    assert kept.counters["prefetch_cancelled"] == 0
    assert kept.counters["prefetch_bytes"] == 1000


def test_the_latency_of_the_predictor_is_host_time() -> None:
    # Asked at step start: the host is free at 20, attention ends at 10; gate 20-25. Key 0 is demanded at 25 and copied
    # -1025; the answer is there at 45: until then the stream waits for the host, from then on for the copy. Key 5 is
    # copied 1025-2025. Kernel 1025-1125, attention -1135, gate -1140: late, asked again -1160, lands 2025, runs -2125.
    result = serve([[0, 1], [0, 1]], [[1], [1]], spec={"latency_ns": 20})
    assert ends(result) == [2125]
    assert result.counters["host_ns"] == 10 + 20 + 20
    assert result.counters["miss_stall_ns"] == 1025 - 45
    assert result.counters["late_stall_ns"] == 2025 - 1160
    decided = serve([[0, 1], [0, 1]], [[1], [1]], costs=ToyCosts(decision=20))
    # A decision of the cost table is paid for the batch as well: everything is 20 later.
    assert ends(decided) == [2145]


class Watching(PrefetchPolicy):
    """Writes down what it is shown."""

    level = "predicted"
    view: PredictedView
    seen: list[tuple[int, int, list[tuple[int, int]]]]

    def plan(self) -> Sequence[int]:
        shown = (self.view.step, self.view.layer, self.view.predicted(1))
        if shown not in self.seen:
            self.seen.append(shown)
        return ()


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, list[tuple[int, int]]]]:
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    Watching.seen = []
    register("watching")(Watching)
    return Watching.seen


def test_predictions_are_shown_from_the_gate_on_and_those_of_the_running_tokens_only(watched: list[Any]) -> None:
    # A prompt of two tokens, then an output token that runs and one that never does.
    guesses = guessing([1], [2], [3], [0])
    made = trace([([[0, 0], [0, 0]], [[0, 0], [0, 0]])], layers=2, router="layerwise", predicted=guesses)
    run(made, layers=2, router="layerwise", prefetch="watching")
    assert watched == [
        (0, -1, []), (0, 0, [(5, 1), (6, 1)]), (0, 1, []),
        (1, -1, []), (1, 0, [(7, 1)]), (1, 1, []),
    ]  # fmt: skip


def test_predictions_of_requests_that_are_longer_than_their_sequences(watched: list[Any]) -> None:
    """Routing is borrowed, and so are the predictions that go with it: outputs 2 and 3 repeat the captured ones."""
    made = trace(
        [([[0, 0]], [[0, 0], [0, 0]])], layers=2, router="layerwise", predicted=guessing([1], [2], [3])
    )
    traffic = {"kind": "all", "requests": 1, "longer": "recycle", "output": {"kind": "fixed", "tokens": 5}}
    run(made, layers=2, router="layerwise", prefetch="watching", traffic=traffic)
    assert [shown for _, layer, shown in watched if layer == 0] == [[(key, 1)] for key in (5, 6, 7, 6, 7)]


def test_what_is_shown_does_not_reach_the_trace() -> None:
    guesses = guessing([1], [2], [3])
    made = trace([([[0, 0], [0, 0]], [[0, 0]])], layers=2, router="layerwise", predicted=guesses)
    step = StepRows(made)
    step.bind(made, [0])
    step.begin([Part(0, 1, 2, True)])
    predictions = Predictions(step)
    assert predictions.made_at(-1) == {}
    assert predictions.made_at(1) == {}
    shown = predictions.made_at(0)[1]
    assert shown.tolist() == [[2], [3]]
    assert not np.shares_memory(shown, made.predicted[1])
    assert shown.base is None or shown.base.size == shown.size


def test_nothing_is_looked_up_for_those_who_do_not_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StepRows, "begin", lambda *args: pytest.fail("predictions were looked up"))
    made = trace([([[0, 0]], [[0, 0]])], layers=2, router="layerwise", predicted=guessing([1], [1]))
    run(made, layers=2, router="layerwise")
    with pytest.raises(pytest.fail.Exception, match="looked up"):
        run(made, layers=2, router="layerwise", prefetch="speculative")
