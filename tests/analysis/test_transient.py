"""MSER-5: by hand, by definition, and on a transient whose end is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.analysis.transient import mser


def test_by_hand_with_batches_of_one() -> None:
    """d 0: 9, 1, 2, 1, 2, 1 has mean 8/3 and squares 92 - 6 (8/3)^2 = 49.33, over 36: 1.37. d 1: 11 - 49/5 = 1.2, over
    25: 0.048. d 2: 10 - 36/4 = 1 over 16: 0.0625. d 3: 6 - 16/3 = 0.667 over 9: 0.074."""
    assert mser(np.array([9, 1, 2, 1, 2, 1]), batch=1) == (1, True)


def test_a_step_down_is_left_out_whole_and_a_batch_is_five() -> None:
    noise = np.tile([0.0, 1.0], 100)
    level = np.where(np.arange(200) < 37, 50.0, 0.0)
    assert mser(noise + level) == (40, True)
    assert mser(noise) == (0, True)


def test_what_still_moves_has_no_end() -> None:
    assert mser(np.arange(100.0)) == (50, False)
    assert mser(np.zeros(9)) == (0, False), "one batch says nothing"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 50), min_size=10, max_size=60))
def test_as_published(values: list[int]) -> None:
    k = len(values) // 5
    means = [sum(values[5 * i : 5 * i + 5]) / 5 for i in range(k)]
    error = []
    for d in range(k // 2 + 1):
        rest = means[d:]
        centre = sum(rest) / len(rest)
        error.append(sum((z - centre) ** 2 for z in rest) / len(rest) ** 2)
    removed, ended = mser(np.array(values))
    assert error[removed // 5] == pytest.approx(min(error), abs=1e-9)
    assert ended == (removed // 5 < k // 2)


def test_a_queue_that_starts_full_is_let_drain_first() -> None:
    """30 requests wait at first and the load is 0.7: some 100 requests go by until the queue is short. On average over
    100 runs the mean wait without a warm-up is far too long, and with that of MSER-5 it is nearly right."""
    from tests.analysis import queue

    rng = np.random.default_rng(3)
    arrival = queue.poisson(rng, 100, 600)
    service = (rng.exponential(0.7 * queue.GAP, (100, 600))).astype(np.int64)
    arrival[:, :30] = 0
    arrival[:, 30:] -= arrival[:, 30:31] - queue.GAP
    wait = queue.served(arrival, service) - arrival - service
    found = [mser(row) for row in wait]
    exact = 0.7 / 0.3 * 0.7 * queue.GAP
    after = np.mean([row[removed : removed + 300].mean() for row, (removed, _) in zip(wait, found, strict=True)])
    assert wait[:, :300].mean() > 3 * exact
    assert after == pytest.approx(exact, rel=0.25)
    assert sum(ended for _, ended in found) >= 95
