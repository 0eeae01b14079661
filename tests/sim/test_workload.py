"""Requests: which captured sequences they replay, when they arrive, and that compared runs see the same ones."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import pytest

from moesim.check.toy import trace
from moesim.experiment import Traffic
from moesim.sim.workload import NOT_YET, Workload, eligible, weights
from moesim.trace.routing import RoutingTrace

DOMAINS = ("code",) * 8 + ("prose",) * 4
LONG = trace([([0] * (1 + n), [0] * (2 + n % 5)) for n in range(12)], domains=DOMAINS)
"""8 sequences of code and 4 of prose; sequence n has a prompt of n + 1 tokens and 2 + n % 5 output tokens"""


def traffic(**changes: Any) -> Traffic:
    return Traffic(**({"kind": "all", "requests": 12} | changes))


def workload(
    made: RoutingTrace = LONG, seed: int = 0, replication: int = 0, replications: int = 1, **changes: Any
) -> Workload:
    return Workload(made, traffic(**changes), seed, replication, replications)


def drawn(of: Workload, count: int = 12) -> list[int]:
    return [of[n].sequence for n in range(count)]


def close_to(count: int, total: int, share: float) -> bool:
    """Within four standard deviations of a binomial count."""
    return abs(count - total * share) < 4 * (total * share * (1 - share)) ** 0.5


# ---- shares of the capture


@pytest.mark.parametrize("replications", [1, 2, 3, 4])
def test_shares_of_replications_are_disjoint_whole_and_stratified(replications: int) -> None:
    shares = [workload(replication=r, replications=replications).shares for r in range(replications)]
    for domain, sequences in ((0, range(8)), (1, range(8, 12))):
        held = [s for share in shares for s in share[domain].tolist()]
        assert sorted(held) == list(sequences)
        sizes = [len(share[domain]) for share in shares]
        assert max(sizes) - min(sizes) <= 1


def test_a_domain_with_fewer_sequences_than_replications_makes_clusters() -> None:
    """Prose has 4 sequences for 6 replications: there are 4 shares, and replications 0 and 4, 1 and 5 have the same."""
    made = [workload(replication=r, replications=6) for r in range(6)]
    assert [one.cluster for one in made] == [0, 1, 2, 3, 0, 1]
    for domain, sequences in ((0, range(8)), (1, range(8, 12))):
        held = [made[r].shares[domain].tolist() for r in range(6)]
        assert sorted(s for share in held[:4] for s in share) == list(sequences)
        assert held[4:] == held[:2]
    assert drawn(made[0]) != drawn(made[4]), "another order, from other random streams"


def test_a_domain_that_no_request_is_of_makes_no_clusters() -> None:
    made = [workload(replication=r, replications=6, mix={"code": 1.0}) for r in range(6)]
    assert [one.cluster for one in made] == list(range(6))
    drifting = {"mix": {"from": {"code": 1.0}, "to": {"code": 1.0, "prose": 0.1}}}
    assert workload(replication=5, replications=6, **drifting).cluster == 1


def test_the_seed_decides_the_shares() -> None:
    def share(seed: int) -> list[int]:
        return sorted(workload(seed=seed, replications=2).shares[0].tolist())

    assert share(0) == share(0)
    assert len({tuple(share(seed)) for seed in range(8)}) > 1


# ---- the same for all that are compared


def test_equal_seeds_give_equal_requests_in_whatever_order_they_are_asked_for() -> None:
    changes: dict[str, Any] = {"kind": "poisson", "rate": 3.0, "requests": 30}
    one, other = workload(**changes), workload(**changes)
    other[29]
    assert [astuple(one[n]) for n in range(30)] == [astuple(other[n]) for n in range(30)]
    assert drawn(one, 30) != drawn(workload(seed=1, **changes), 30)
    assert drawn(one, 30) != drawn(workload(replication=1, replications=2, **changes), 30)


def test_arrivals_do_not_change_the_sequences_nor_the_number_of_users() -> None:
    expected = drawn(workload())
    assert drawn(workload(kind="poisson", rate=9.0)) == expected
    assert drawn(workload(kind="closed", concurrency=3)) == expected


# ---- domains


def domain_counts(of: Workload, first: int, last: int) -> tuple[int, int]:
    domains = [of[n].domain for n in range(first, last)]
    return domains.count("code"), domains.count("prose")


@pytest.mark.parametrize(
    ("mix", "share"),
    [("uniform", 0.5), ({"code": 3.0, "prose": 1.0}, 0.75), ({"code": 0.2}, 1.0), ({"prose": 1e-9, "code": 0.0}, 0.0)],
)
def test_domains_come_by_their_weights(mix: Any, share: float) -> None:
    code, prose = domain_counts(workload(mix=mix, requests=2000), 0, 2000)
    assert code + prose == 2000
    assert code == 2000 * share if share in (0.0, 1.0) else close_to(code, 2000, share)


def test_a_drift_moves_in_a_straight_line_from_the_first_request_to_the_last() -> None:
    moving = traffic(mix={"from": {"code": 1.0}, "to": {"code": 1.0, "prose": 3.0}}, requests=11)
    shares = [weights(moving, ["code", "prose"], number / 10).tolist() for number in range(11)]
    assert shares[0] == [1.0, 0.0]
    assert shares[5] == pytest.approx([0.625, 0.375])
    assert shares[10] == [0.25, 0.75]


def test_a_drift_is_met_by_what_is_drawn() -> None:
    made = workload(mix={"from": {"code": 1.0}, "to": {"prose": 1.0}}, requests=4000)
    assert (made[0].domain, made[3999].domain) == ("code", "prose")
    for quarter, share in enumerate((7 / 8, 5 / 8, 3 / 8, 1 / 8)):
        code, _ = domain_counts(made, 1000 * quarter, 1000 * (quarter + 1))
        assert close_to(code, 1000, share), quarter


def test_one_request_is_at_the_start_of_a_drift() -> None:
    assert workload(mix={"from": {"code": 1.0}, "to": {"prose": 1.0}}, requests=1)[0].domain == "code"


# ---- sequences


def test_a_share_is_used_up_before_any_of_it_comes_again_and_then_it_is_shuffled_anew() -> None:
    made = workload(mix={"prose": 1.0}, requests=400)
    rounds = [[made[4 * n + i].sequence for i in range(4)] for n in range(100)]
    assert all(sorted(once) == [8, 9, 10, 11] for once in rounds)
    assert len({tuple(once) for once in rounds}) == 24  # every order occurs


def test_a_request_is_recycled_from_the_second_time_its_sequence_serves() -> None:
    made = workload(mix={"prose": 1.0}, requests=9)
    assert [made[n].recycled for n in range(9)] == [False] * 4 + [True] * 5


def test_recycling_is_counted_by_domain() -> None:
    made = workload(requests=60)
    seen: set[int] = set()
    for n in range(60):
        assert made[n].recycled == (made[n].sequence in seen)
        seen.add(made[n].sequence)
    assert len(seen) == 12


def test_a_request_takes_its_lengths_from_its_sequence() -> None:
    made = workload()
    for n in range(12):
        assert (made[n].prompt, made[n].output) == (made[n].sequence + 1, 2 + made[n].sequence % 5)


def test_output_max_cuts_what_is_longer() -> None:
    made = workload(output_max=4)
    assert [made[n].output for n in range(12)] == [min(4, 2 + made[n].sequence % 5) for n in range(12)]


@pytest.mark.parametrize(
    ("limits", "expected"),
    [({}, range(12)), ({"prompt_min": 5}, range(4, 12)), ({"prompt_max": 5}, range(5)),
     ({"prompt_min": 3, "prompt_max": 3}, [2]), ({"prompt_min": 13}, [])],
)  # fmt: skip
def test_prompt_limits_include_both_ends(limits: dict[str, int], expected: Any) -> None:
    assert eligible(LONG, traffic(**limits)).tolist() == list(expected)


def test_a_sequence_without_output_serves_nobody() -> None:
    made = trace([([0], []), ([0], [0]), ([0, 0], [])])
    assert eligible(made, traffic()).tolist() == [1]


# ---- arrivals


def test_all_are_there_at_once_and_a_closed_loop_starts_with_its_users() -> None:
    at_once, closed = workload(), workload(kind="closed", concurrency=5)
    assert [at_once[n].arrival for n in range(12)] == [0] * 12
    assert [closed[n].arrival for n in range(12)] == [0] * 5 + [NOT_YET] * 7


def test_poisson_gaps_have_the_mean_and_the_spread_of_the_rate() -> None:
    made = workload(kind="poisson", rate=4.0, requests=4000)
    arrivals = [made[n].arrival for n in range(4000)]
    gaps = [b - a for a, b in zip([0, *arrivals], arrivals, strict=False)]
    assert all(isinstance(at, int) for at in arrivals)
    assert min(gaps) >= 0
    mean = 1e9 / 4
    assert abs(sum(gaps) / 4000 - mean) < 4 * mean / 4000**0.5  # an exponential's deviation is its mean
    above = sum(gap > mean for gap in gaps)
    assert close_to(above, 4000, 0.36788)  # exp(-1) of them are longer than the mean
