"""Traffic of every kind through a toy server: arrivals, lengths, files, what is reported, what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.check.toy import ToyCosts, ToyLink, config, shape, trace
from moesim.experiment import ArrivalsFile, Lengths, Traffic
from moesim.sim import Inputs, RunResult, check, simulate
from moesim.sim.traffic import chosen, gap_of, length_of
from moesim.sim.workload import NOT_YET, Workload
from moesim.trace.arrivals import Arrivals, ArrivalsMeta
from moesim.trace.routing import RoutingTrace

MADE = trace([([n % 4] * (1 + n), [n % 4] * (2 + n % 3)) for n in range(8)], domains=("code",) * 4 + ("prose",) * 4)
META = ArrivalsMeta(name="t", label="recorded", requests=6)


def table(**changes: Any) -> Arrivals:
    plain: dict[str, Any] = {
        "arrival": np.array([0, 100, 100, 2500, 10**9, 2 * 10**9]),
        "prompt": np.array([3, 9, 1, 4, 2, 40], dtype=np.int32),
        "output": np.array([2, 1, 5, 1, 3, 2], dtype=np.int32),
        "meta": META,
        "digest": "d",
    }
    return Arrivals(**(plain | changes))


def traffic(**given: Any) -> Traffic:
    return Traffic.model_validate({"kind": "trace", "arrivals": "t.csv"} | given)


def serve(arrivals: Arrivals | None = None, made: RoutingTrace = MADE, **changes: Any) -> RunResult:
    asked = config(**({"traffic": {"kind": "trace", "arrivals": "t.csv"}} | changes))
    inputs = Inputs(made, shape(), ToyCosts(), ToyLink(), arrivals)  # type: ignore[arg-type]
    return simulate(asked, inputs, 0, check=True)


# ---- kinds


def test_a_file_gives_arrivals_and_lengths_in_its_order() -> None:
    made = Workload(MADE, traffic(), 0, 0, 1, table())
    assert made.traffic.requests == 6
    assert [made[n].arrival for n in range(6)] == [0, 100, 100, 2500, 10**9, 2 * 10**9]
    assert [(made[n].prompt, made[n].output) for n in range(6)] == [(3, 2), (9, 1), (1, 5), (4, 1), (2, 3), (40, 2)]
    assert [made[n].sequence for n in range(6)] == list(range(6))
    assert all(0 <= made[n].captured < 8 for n in range(6))


def test_requests_and_output_max_limit_a_file() -> None:
    made = Workload(MADE, traffic(requests=4, output_max=2), 0, 0, 1, table())
    assert made.traffic.requests == 4
    assert [made[n].output for n in range(4)] == [2, 1, 2, 1]


def test_a_file_with_domains_decides_the_domains() -> None:
    domains = ("prose", "code", "prose", "prose", "code", "code")
    made = Workload(MADE, traffic(mix={"code": 1.0}), 0, 0, 1, table(domains=domains))
    assert tuple(made[n].domain for n in range(6)) == domains
    assert all(MADE.domains[made[n].captured] == made[n].domain for n in range(6))
    mixed = Workload(MADE, traffic(mix={"code": 1.0}), 0, 0, 1, table())
    assert {mixed[n].domain for n in range(6)} == {"code"}


def test_what_is_taken_of_a_file_is_cut_fitted_sampled_and_scaled_in_this_order() -> None:
    def taken(**spec: Any) -> list[tuple[int, int]]:
        made = chosen(table(), ArrivalsFile.model_validate({"file": "t", **spec}), np.random.default_rng(0))
        return list(zip(made.arrival.tolist(), made.prompt.tolist(), strict=True))

    assert taken() == list(zip(table().arrival.tolist(), table().prompt.tolist(), strict=True))
    assert taken(**{"from": 0.0000001, "to": 1.5}) == [(0, 9), (0, 1), (2400, 4), (10**9 - 100, 2)]
    assert taken(**{"from": 0.5, "to": 1.5, "scale": 2}) == [(250_000_000, 2)]
    assert taken(scale=0.5)[-1] == (4 * 10**9, 40)
    assert [prompt for _, prompt in taken(context_max=10)] == [3, 9, 1, 4, 2]
    assert taken(**{"from": 5}) == []


def test_a_sample_is_the_same_for_all_that_are_compared_and_another_in_each_replication() -> None:
    many = table(arrival=np.arange(400) * 1000, prompt=np.ones(400, np.int32), output=np.ones(400, np.int32))
    asked = traffic(arrivals={"file": "t", "sample": 0.5})

    def times(seed: int = 0, replication: int = 0, **changes: Any) -> list[int]:
        made = Workload(MADE, asked.model_copy(update=changes), seed, replication, 2, many)
        return [made[n].arrival for n in range(made.traffic.requests)]

    assert times() == times(longer="recycle")
    assert times() != times(replication=1)
    assert times() != times(seed=1)
    assert abs(len(times()) - 200) < 4 * 10


def test_gamma_arrives_in_bursts() -> None:
    def gaps(cv: float) -> np.ndarray:
        made = Workload(MADE, Traffic(kind="gamma", rate=4.0, cv=cv, requests=4000), 0, 0, 1)
        return np.diff([0, *(made[n].arrival for n in range(4000))])

    for cv in (0.5, 3.0):
        assert gaps(cv).mean() == pytest.approx(1e9 / 4, rel=4 * cv / 4000**0.5)
        assert gaps(cv).std() / gaps(cv).mean() == pytest.approx(cv, rel=0.12)
    poisson = Workload(MADE, Traffic(kind="poisson", rate=4.0, requests=4000), 0, 0, 1)
    assert (gaps(1.0) == np.diff([0, *(poisson[n].arrival for n in range(4000))])).all()


def test_kinds_without_gaps() -> None:
    assert gap_of(Traffic(kind="all")) is None
    assert gap_of(Traffic(kind="closed", concurrency=3)) is None


# ---- lengths


@pytest.mark.parametrize(
    ("spec", "values"),
    [
        (7, {7}),
        ({"kind": "fixed", "tokens": 3}, {3}),
        ({"kind": "uniform", "min": 4, "max": 6}, {4, 5, 6}),
        ({"kind": "lognormal", "mean": 50.0, "cv": 0.1, "min": 49, "max": 51}, {49, 50, 51}),
        ({"kind": "captured"}, {2, 3, 4}),
    ],
)
def test_lengths_of_every_kind(spec: Any, values: set[int]) -> None:
    draw = length_of(Lengths.model_validate(spec), np.array([2, 2, 3, 4]))
    assert draw is not None
    rng = np.random.default_rng(0)
    assert {draw(rng) for _ in range(300)} == values
    assert length_of(None, np.array([1])) is None


def test_one_length_may_be_asked_and_the_other_be_the_sequences() -> None:
    made = Workload(MADE, Traffic.model_validate({"kind": "all", "requests": 8, "prompt": 5}), 0, 0, 1)
    for n in range(8):
        request = made[n]
        assert (request.prompt, request.output) == (5, int(MADE.output_tokens[request.captured]))
        assert request.stitched_tokens == max(0, 5 - int(MADE.prompt_tokens[request.captured]))


def test_lengths_change_neither_arrivals_nor_sequences() -> None:
    def drawn(**changes: Any) -> list[tuple[int, int]]:
        made = Workload(MADE, Traffic.model_validate({"kind": "poisson", "rate": 2.0} | changes), 0, 0, 1)
        return [(made[n].captured, made[n].arrival) for n in range(20)]

    expected = drawn()
    assert drawn(prompt=9) == drawn(output={"kind": "captured"}) == drawn(prompt=3, longer="recycle") == expected


def test_without_lengths_the_captured_trace_is_served_as_it_is() -> None:
    made = Workload(MADE, Traffic(kind="closed", concurrency=2, requests=9), 0, 0, 1)
    assert made.trace is MADE
    for n in range(9):
        request = made[n]
        assert request.sequence == request.captured
        all_of_it = (request.prompt + request.output) * request.recycled
        counted = (request.stitched_tokens, request.recycled_tokens, request.borrowed_tokens)
        assert counted == (0, all_of_it, all_of_it)
    assert made[8].recycled and [made[n].arrival for n in range(3)] == [0, 0, NOT_YET]


# ---- through the server


def test_a_run_on_a_file_serves_all_of_it_and_says_whose_it_is() -> None:
    result = serve(table(), scheduler={"max_tokens": 16, "max_requests": 2})
    columns = result.requests
    assert columns["arrival_ns"].tolist() == table().arrival.tolist()
    assert (columns["finished_ns"] >= 0).all()
    assert columns["prompt_tokens"].tolist() == table().prompt.tolist()
    assert result.counters["output_tokens"] == int(table().output.sum()) == int(columns["output_tokens"].sum())
    assert result.counters["prefill_tokens"] == int(table().prompt.sum())
    assert result.labels["arrivals"] == "arrivals: t (recorded), 6 of 6 requests"
    assert set(columns["sequence"].tolist()) <= set(range(8))
    assert (columns["borrowed_tokens"] <= columns["prompt_tokens"] + columns["output_tokens"]).all()
    assert columns["stitched_tokens"][5] >= 40 - 8


CACHES: dict[str, Any] = {
    "lru": "lru",
    "queue": {"name": "lookahead", "level": "queue", "unknown": "persist"},
    "oracle": {"name": "lookahead", "level": "oracle"},
}
GIVEN: dict[str, dict[str, Any]] = {
    "trace": {},
    "closed": {"kind": "closed", "concurrency": 3, "prompt": 6, "output": 4, "requests": 9},
    "gamma": {"kind": "gamma", "rate": 1e5, "cv": 2.0, "output": 3, "requests": 9},
}


@pytest.mark.parametrize("cache", CACHES.values(), ids=CACHES)
@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_free_and_frozen_schedules_serve_bound_requests(cache: Any, given: dict[str, Any]) -> None:
    asked = given or {"kind": "trace", "arrivals": "t.csv"}
    limits = {"max_tokens": 16, "max_requests": 2}
    runs = [
        serve(table() if not given else None, traffic=asked, cache=cache, schedule=schedule, scheduler=limits)
        for schedule in ("free", "frozen", "frozen")
    ]
    for run in runs:
        assert (run.requests["finished_ns"] >= 0).all()
        assert len(run.requests["request"]) == given.get("requests", 6)
    free, frozen, again = runs
    for column in ("prompt_tokens", "output_tokens", "sequence", "stitched_tokens", "recycled_tokens"):
        assert free.requests[column].tolist() == frozen.requests[column].tolist()
    assert frozen.steps["end_ns"].tolist() == again.steps["end_ns"].tolist()


def test_routing_is_that_of_the_rows() -> None:
    """Code uses experts 0 and 1, prose 2 and 3: a request of any length uses its domain's alone."""
    domains = ("code", "code", "prose", "prose")
    made = trace([([0, 1], [0, 1]), ([1, 1], [0]), ([2, 3], [3]), ([3], [2, 2])], domains=domains)
    for mix, used in (({"code": 1.0}, {0, 1}), ({"prose": 1.0}, {2, 3})):
        work = Workload(made, traffic(mix=mix), 0, 0, 1, table())
        for number in range(6):
            start = work.trace.offsets[number] if work[number] else 0
            length = work[number].prompt + work[number].output
            experts = work.trace.experts[start : start + length, 0, 0].tolist()
            assert set(experts) <= used
            assert number or len(experts) == 5


# ---- a batcher that looks at the cache


def test_a_cache_aware_batcher_sees_the_cache_of_its_run() -> None:
    """Both slots end up with experts 0 and 1; then a longer queue of expert 2 waits behind theirs."""
    made = trace([([n % 4], [n % 4] * 6) for n in range(8)])
    limits = {"max_tokens": 2, "max_requests": 2}

    def misses(batch: Any) -> int:
        traffic = {"kind": "closed", "concurrency": 8, "requests": 40}
        result = serve(None, made, traffic=traffic, scheduler={"batch": batch, **limits})
        return sum(result.counters[f"miss_keys_{phase}"] for phase in ("prefill", "decode"))

    aged = misses({"name": "expert-aware-aged", "patience": 40})
    assert misses({"name": "cache-aware", "patience": 40, "load": 0}) == aged
    assert misses({"name": "cache-aware", "patience": 40, "load": 50}) < aged


def problems(arrivals: Arrivals | None = None, router: str = "decoupled", **changes: Any) -> list[tuple[str, str]]:
    made = MADE if router == "decoupled" else trace([([[0]], [[1]])], router=router)
    inputs = Inputs(made, shape(), ToyCosts(), ToyLink(), arrivals)  # type: ignore[arg-type]
    return [(p.place, p.text) for p in check(config(**changes), inputs)]


def test_a_frozen_schedule_has_no_cache_to_look_at() -> None:
    (told,) = problems(schedule="frozen", scheduler={"batch": "cache-aware"})
    assert told[0] == "scheduler.batch"
    assert told[1].startswith("'cache-aware' looks at the expert cache")
    assert problems(schedule="free", scheduler={"batch": "cache-aware"}) == []
    assert problems(schedule="frozen", scheduler={"batch": "chunked-prefill"}) == []


@pytest.mark.parametrize("batch", ["expert-aware", "expert-aware-aged", "cache-aware"])
def test_with_a_layerwise_router_batchers_that_need_routes_are_refused(batch: str) -> None:
    why = "a layer-wise router knows a layer's experts only at its gate"
    expected = [("scheduler.batch", f"{batch!r} needs level 'queue': {why}")]
    assert problems(router="layerwise", scheduler={"batch": batch}) == expected


@pytest.mark.parametrize("batch", ["decode-first", "prefill-first", "chunked-prefill"])
def test_with_a_layerwise_router_the_others_serve(batch: str) -> None:
    made = trace([([[0], [1]], [[1], [2]])] * 3, router="layerwise")
    result = serve(None, made, traffic={"kind": "all", "requests": 5, "prompt": 4}, scheduler={"batch": batch})
    assert (result.requests["finished_ns"] >= 0).all()


# ---- what does not fit


def test_a_slice_without_requests_is_told() -> None:
    asked = {"kind": "trace", "arrivals": {"file": "t", "from": 7}}
    text = "leaves none of the 6 requests, which come in 0 to 2.0 s"
    assert problems(table(), traffic=asked) == [("traffic.arrivals", text)]
    asked = {"kind": "trace", "arrivals": {"file": "t", "sample": 0.1}}
    (told,) = problems(table(), traffic=asked, replications=20)
    assert told[1].startswith(f"{text} in replication ")


def test_domains_that_the_trace_has_not_are_told() -> None:
    made = table(domains=("code", "verse", "code", "code", "code", "prosa"))
    assert problems(made, traffic={"kind": "trace", "arrivals": "t"}) == [
        ("traffic.arrivals", "unknown domain 'prosa'; did you mean 'prose'? There is: code, prose"),
        ("traffic.arrivals", "unknown domain 'verse'; did you mean 'prose'? There is: code, prose"),
    ]


def test_a_path_of_the_file_may_be_anything(tmp_path: Path) -> None:
    assert problems(table(), traffic={"kind": "trace", "arrivals": str(tmp_path / "a b.csv")}) == []
