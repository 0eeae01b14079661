"""The server without its routing is a queue that textbooks know: M/D/1, M/G/1 and closed loops.

One expert a layer, all of it resident, one request a step and decode tokens first: each request is served to its end
before the next begins. Then the mean wait is that of Pollaczek and Khinchine, lambda E[S^2] / (2 (1 - rho)), and a
closed loop's throughput follows from the service times alone. Service times are worked out by hand from the costs.

Each claim is checked twice: request by request (Lindley's recursion on the arrivals and lengths of the run), and as the
law says: the 95 % interval of the mean must be within 1 % of the value, the error within three half-widths of it, and
the same check must refuse a formula that is wrong on purpose.

The interval comes from batch means with control variates: functions of gaps and lengths whose means are known exactly
(Spitzer: the wait is the largest sum of the last k differences S - A over all k; the positive parts of the sums over a
few fixed k go along with it). They depend on the law of the traffic alone, and move no mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Any

import numpy as np
import pytest

from moesim.check.toy import ToyCosts, ToyLink, config, shape, trace
from moesim.sim import Inputs, RunResult, simulate

Law = Mapping[int, float]
"""of service times: ns -> probability"""
BATCHES = 60
STUDENT = 2.01
"""97.5 % quantile of Student's t with 50 degrees of freedom"""
SUMS = (1, 2, 4, 8)
"""of so many differences S - A the positive parts are controls"""
PROMPT = 2


@dataclass(frozen=True)
class Costs(ToyCosts):
    """Host, launches, sampling and router included; ns."""

    launch: int = 300
    sync: int = 500
    decision: int = 2000
    attention: int = 1000
    expert: int = 10_000
    sample: int = 700
    router_ns: int = 400

    def attention_prefill(self, tokens: int, context: int) -> int:
        return self.attention * tokens

    def router(self, tokens: int) -> int:
        return self.router_ns * tokens


ROUTED = PROMPT * 400
"""from a request's arrival to the instant at which its prompt is routed, if no other is"""
PREFILL, DECODE, ON = 15_500, 14_500, 1200
"""ns. A decode step: the host decides (2000) and launches attention (300), 1000; experts and sampling are launched
meanwhile: 10000, 700; synchronise, 500. A prefill has attention for two tokens. If the request goes on, its next token
is routed: launch 300, 400, synchronise 500."""
FIRST = 1000 + 300
"""ns more for the first step of all, which copies the expert and can launch it only then"""


def service(output: int) -> int:
    """ns from the start of a request's first step to its last token."""
    return PREFILL if output == 1 else PREFILL + ON + (output - 2) * (DECODE + ON) + DECODE


def serve(traffic: dict[str, Any], *, requests: int = 1, costs: ToyCosts | None = None, **changes: Any) -> RunResult:
    made = trace([([0] * PROMPT, [0] * 8)] * 4, experts=1, router=changes.pop("router", "decoupled"))
    inputs = Inputs(made, shape(1, 1), costs or Costs(), ToyLink())  # type: ignore[arg-type]
    plain: dict[str, Any] = {
        "traffic": {"prompt": PROMPT, **traffic},
        "memory": {"slots": 1, "scope": "layer"},
        "scheduler": {"batch": "decode-first", "max_requests": requests},
        "steps": 10**8,
    }
    return simulate(config(**(plain | changes)), inputs, 0, compiled=False)


@dataclass(frozen=True)
class Interval:
    mean: float
    half: float

    def agrees(self, value: float) -> bool:
        """The check: a half-width of at most 1 % of the value, an error of at most three half-widths."""
        return self.half <= 0.01 * abs(value) and abs(self.mean - value) <= 3 * self.half


def interval(values: np.ndarray, controls: Sequence[tuple[np.ndarray, float]] = ()) -> Interval:
    """Of the mean of `values`, from batch means regressed on controls [same length], each given with its exact mean."""

    def batched(series: np.ndarray) -> np.ndarray:
        return series[: len(series) // BATCHES * BATCHES].reshape(BATCHES, -1).mean(axis=1)

    found = [batched(series) - mean for series, mean in controls]
    columns = np.stack([np.ones(BATCHES), *(c / c.std() for c in found if c.std() > 0)], axis=1)
    y = batched(values)
    coefficients, *_ = np.linalg.lstsq(columns, y, rcond=None)
    free = BATCHES - columns.shape[1]
    assert free >= 50  # what STUDENT is for
    rest = y - columns @ coefficients
    variance = rest @ rest / free * np.linalg.inv(columns.T @ columns)[0, 0]
    return Interval(float(coefficients[0]), STUDENT * float(variance) ** 0.5)


# ---- the laws


def moment(law: Law, power: int) -> float:
    return sum(probability * s**power for s, probability in law.items())


def pollaczek_khinchine(law: Law, rate: float) -> float:
    """Mean wait of M/G/1, ns; `rate` per ns."""
    return rate * moment(law, 2) / (2 * (1 - rate * moment(law, 1)))


def without_half(law: Law, rate: float) -> float:
    """Wrong: twice the wait of M/D/1, as if the residual service were a whole one."""
    return 2 * pollaczek_khinchine(law, rate)


def without_variance(law: Law, rate: float) -> float:
    """Wrong: every service takes the mean."""
    return pollaczek_khinchine({round(moment(law, 1)): 1.0}, rate)


def positive_part(law: Law, rate: float, count: int) -> float:
    """Mean of the positive part of the sum of `count` differences S - A, the gaps being exponential."""
    sums: dict[int, float] = {0: 1.0}
    for _ in range(count):
        longer: dict[int, float] = {}
        for total, p in sums.items():
            for s, q in law.items():
                longer[total + s] = longer.get(total + s, 0.0) + p * q
        sums = longer

    def erlang(stages: int, x: float) -> float:  # distribution function
        term, total = 1.0, 0.0
        for stage in range(stages):
            total += term
            term *= rate * x / (stage + 1)
        return 1 - exp(-rate * x) * total

    return sum(p * (s * erlang(count, s) - count / rate * erlang(count + 1, s)) for s, p in sums.items())


def controls(arrival: np.ndarray, services: np.ndarray, law: Law, rate: float) -> list[tuple[np.ndarray, float]]:
    """Gaps, services, their squares, and positive parts of sums; the first of each request are those before it."""
    difference = services[:-1] - np.diff(arrival)
    total = np.concatenate([[0], np.cumsum(difference)])
    found = [
        (np.diff(arrival, prepend=arrival[0] - round(1 / rate)).astype(float), 1 / rate),
        (services.astype(float), moment(law, 1)),
        (services.astype(float) ** 2, moment(law, 2)),
    ]
    for count in SUMS:
        sums = total[count:] - total[:-count]
        found.append((np.concatenate([np.zeros(count), np.maximum(sums, 0)]), positive_part(law, rate, count)))
    return found


def test_the_means_of_the_controls_are_exact() -> None:
    law, rate = {2: 0.5, 5: 0.5}, 0.2
    # E (s - A)^+ = s - (1 - e^(-rate s)) / rate.
    by_hand = sum(0.5 * (s - (1 - exp(-rate * s)) / rate) for s in law)
    assert positive_part(law, rate, 1) == pytest.approx(by_hand, rel=1e-12)
    rng = np.random.default_rng(0)
    sums = rng.choice([2, 5], (200_000, 4)).sum(axis=1) - rng.exponential(5, (200_000, 4)).sum(axis=1)
    assert positive_part(law, rate, 4) == pytest.approx(np.maximum(sums, 0).mean(), rel=0.02)


# ---- by arithmetic


@pytest.mark.parametrize("output", [1, 2, 3, 5])
def test_service_times_are_those_worked_out_by_hand(output: int) -> None:
    table = serve({"kind": "all", "requests": 2, "output": output}).requests
    ends = [ROUTED + FIRST + service(output), ROUTED + FIRST + 2 * service(output)]
    assert table["started_ns"].tolist() == [ROUTED, ends[0]]
    assert table["finished_ns"].tolist() == ends


def open_queue(law: Mapping[int, float], output: object, load: float, requests: int) -> tuple[Interval, Law, float]:
    """The real server under Poisson traffic: interval of the mean wait, law of service times, rate per ns."""
    services = {service(tokens): probability for tokens, probability in law.items()}
    rate = load / moment(services, 1)
    traffic = {"kind": "poisson", "rate": rate * 1e9, "requests": requests, "output": output}
    table = serve(traffic).requests
    arrival, started, finished = (table[f"{name}_ns"] for name in ("arrival", "started", "finished"))
    assert len(arrival) == requests
    taken = np.array([service(tokens) for tokens in table["output_tokens"].tolist()])
    # Request by request: it starts when it is routed and the one before has left, and takes what its length says.
    assert finished[0] - started[0] == taken[0] + FIRST
    assert (finished - started == taken)[1:].all()
    assert (started[1:] == np.maximum(arrival[1:] + ROUTED, finished[:-1])).all()
    wait = started - arrival - ROUTED
    return interval(wait.astype(float), controls(arrival, taken, services, rate)), services, rate


def test_m_d_1() -> None:
    found, law, rate = open_queue({1: 1.0}, 1, load=0.5, requests=60_000)
    assert found.agrees(pollaczek_khinchine(law, rate)), found
    assert pollaczek_khinchine(law, rate) == pytest.approx(0.5 * service(1) / (2 * 0.5))
    assert not found.agrees(without_half(law, rate))


def test_m_g_1() -> None:
    thirds = dict.fromkeys((1, 2, 3), 1 / 3)
    found, law, rate = open_queue(thirds, {"kind": "uniform", "min": 1, "max": 3}, load=0.4, requests=60_000)
    assert found.agrees(pollaczek_khinchine(law, rate)), found
    for wrong in (without_half, without_variance):
        assert not found.agrees(wrong(law, rate))


def test_gamma_gaps_of_cv_1_are_a_poisson_process() -> None:
    traffic = {"rate": 20_000.0, "requests": 300, "output": {"kind": "uniform", "min": 1, "max": 3}}
    poisson = serve({"kind": "poisson", **traffic}).requests
    gamma = serve({"kind": "gamma", "cv": 1.0, **traffic}).requests
    bursts = serve({"kind": "gamma", "cv": 2.0, **traffic}).requests
    assert all((poisson[name] == gamma[name]).all() for name in poisson)
    assert bursts["output_tokens"].tolist() == gamma["output_tokens"].tolist()
    assert (bursts["arrival_ns"] != gamma["arrival_ns"]).any()


# ---- closed loops


@pytest.mark.parametrize("output", [1, 3])
@pytest.mark.parametrize("users", [1, 2, 5])
def test_a_closed_loop_is_as_fast_as_its_server(users: int, output: int) -> None:
    """One user alone also waits for its prompt to be routed; beside others that happens while one is served."""
    requests = 50
    result = serve({"kind": "closed", "concurrency": users, "requests": requests, "output": output})
    routing = requests if users == 1 else 1
    assert result.requests["finished_ns"][-1] == FIRST + requests * service(output) + routing * ROUTED
    assert result.counters["output_tokens"] == requests * output


@pytest.mark.parametrize("users", [1, 4, 7])
def test_a_batch_of_all_users_goes_in_step(users: int) -> None:
    """A layer-wise router keeps nobody waiting: all users begin, decode and end together, in the same steps."""
    output, rounds = 3, 6
    traffic = {"kind": "closed", "concurrency": users, "requests": users * rounds, "output": output}
    result = serve(traffic, requests=users, router="layerwise")
    # Decide 2000, launch 300, attention 1000 a prompt's token (1000 for all that decode), the gate 5, synchronise 500,
    # launch 300, experts 10000, sampling 700, synchronise 500. The first also copies the expert, 1000.
    prefill = 2000 + 300 + 1000 * PROMPT * users + 5 + 500 + 300 + 10_000 + 700 + 500
    decode = 2000 + 300 + 1000 + 5 + 500 + 300 + 10_000 + 700 + 500
    assert result.counters["span_ns"] == 1000 + rounds * (prefill + (output - 1) * decode)
    assert result.counters["steps"] == rounds * output


def test_two_users_and_a_slow_router() -> None:
    """Machines and repairmen: one user's prompt is routed while the other's request is served, for max(S, r) a cycle.

    The router is as slow as a prefill and a decode step, so that short requests wait for it and long ones do not.
    """
    slow, requests = 15_500, 6_000
    routed = PROMPT * slow
    law = {service(tokens) + (tokens - 1) * (slow - 400): 1 / 3 for tokens in (1, 2, 3)}
    output = {"kind": "uniform", "min": 1, "max": 3}
    traffic = {"kind": "closed", "concurrency": 2, "requests": requests, "output": output}
    table = serve(traffic, costs=Costs(router_ns=slow)).requests
    started = table["started_ns"][1:]
    cycles = np.diff(started).astype(float)
    taken = (table["finished_ns"] - table["started_ns"])[1:-1]
    assert set(taken.tolist()) == set(law)
    assert (cycles == np.maximum(taken, routed)).all()
    found = interval(cycles, [(taken.astype(float), moment(law, 1))])
    assert found.agrees(sum(p * max(s, routed) for s, p in law.items())), found
    assert not found.agrees(moment(law, 1))  # the router forgotten
    assert not found.agrees(moment(law, 1) + routed)  # nothing at the same time
