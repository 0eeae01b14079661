"""How often the intervals hold what they should, on queues whose means are known, over many experiments."""

from __future__ import annotations

import numpy as np
import pytest

from moesim.analysis import compare
from moesim.analysis.compare import Interval
from moesim.analysis.configurations import read
from tests.analysis import factory, queue

EXPERIMENTS = 400


def close(hits: int, share: float) -> bool:
    """Within four standard deviations of a binomial count."""
    return abs(hits - EXPERIMENTS * share) < 4 * (EXPERIMENTS * share * (1 - share)) ** 0.5


def waits(load: float, replications: int, seed: int) -> np.ndarray:
    """Mean wait of requests 200 to 2,200 [experiments, replications] of an M/M/1 queue, with common random numbers."""
    rng = np.random.default_rng(seed)
    shape = (EXPERIMENTS, replications, 2200)
    arrival = queue.poisson(rng, *shape)
    service = (rng.exponential(load * queue.GAP, shape)).astype(np.int64)
    return (queue.served(arrival, service) - arrival - service)[..., 200:].mean(axis=-1)


@pytest.mark.parametrize("replications", [3, 8])
def test_the_interval_of_a_mean_holds_the_exact_wait(replications: int) -> None:
    """Pollaczek-Khinchine: load / (1 - load) services."""
    exact = 0.5 / 0.5 * 0.5 * queue.GAP
    found = [compare.mean(row) for row in waits(0.5, replications, 1)]
    assert close(sum(not interval.excludes(exact) for interval in found), 0.95)


def test_a_paired_difference_is_held_and_is_much_narrower_than_two_intervals() -> None:
    slow, fast = waits(0.55, 5, 2), waits(0.5, 5, 2)
    exact = (0.55**2 / 0.45 - 0.5**2 / 0.5) * queue.GAP
    paired = [compare.difference(a, b) for a, b in zip(slow, fast, strict=True)]
    assert close(sum(not interval.excludes(exact) for interval in paired), 0.95)
    halves = [(compare.mean(a).half, compare.mean(b).half) for a, b in zip(slow, fast, strict=True)]
    apart = np.mean(np.hypot(*np.array(halves).T))
    assert np.mean([interval.half for interval in paired]) < 0.5 * apart
    real = sum(interval.excludes(0) for interval in paired)
    assert real > 0.9 * EXPERIMENTS, "and so the difference is found"


def test_no_difference_is_called_real_one_time_in_twenty() -> None:
    one, other = waits(0.5, 5, 3), waits(0.5, 5, 4)
    assert close(sum(compare.difference(a, b).excludes(0) for a, b in zip(one, other, strict=True)), 0.05)


def intervals(values: np.ndarray, clusters: list[int] | None) -> list[Interval]:
    """Of the table's configurations, one an experiment, as the summary would give them."""
    rows = [(f"p{n}", "history", "", "layer", row.tolist(), row.tolist()) for n, row in enumerate(values)]
    frame = factory.plain(rows)
    if clusters is not None:
        frame["cluster"] = frame["replication"].map(dict(enumerate(clusters)))
    return [compare.mean(c.values("ns_per_output_token")) for c in read(frame)]


def test_replications_that_share_sequences_are_one_observation() -> None:
    """Six replications over three sets of sequences, whose own effect is as large as all else: as if they were six, the
    interval is too narrow; by cluster it holds what it should."""
    rng = np.random.default_rng(5)
    clusters = [0, 1, 2, 0, 1, 2]
    values = 10 + rng.normal(size=(EXPERIMENTS, 3))[:, clusters] + rng.normal(size=(EXPERIMENTS, 6)) / 2
    right = intervals(values, clusters)
    assert close(sum(not interval.excludes(10) for interval in right), 0.95)
    wrong = intervals(values, None)
    assert sum(not interval.excludes(10) for interval in wrong) < 0.88 * EXPERIMENTS
