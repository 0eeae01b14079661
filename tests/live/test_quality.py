from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.live.quality import information_report, mutual_information


def test_information_by_hand():
    one = np.array([0, 0, 1, 1])
    assert mutual_information(one, one, 2) == pytest.approx(1.0)
    assert mutual_information(one, np.array([0, 1, 0, 1]), 2) == pytest.approx(0.0)
    # p(0,0)=1/2, p(1,1)=1/4, p(1,0)=1/4: H(one)=1, H(other)=.8113, H(both)=1.5
    assert mutual_information(one, np.array([0, 0, 1, 0]), 2) == pytest.approx(1 + 0.811278 - 1.5)


def test_layers_that_follow_each_other_share_their_entropy():
    random = np.random.default_rng(0)
    first = random.integers(0, 4, 20_000)
    best = np.stack([first, (first + 1) % 4, random.integers(0, 4, 20_000)], axis=1)
    report = information_report(best, 4)
    assert report["neighbours"] == [pytest.approx(2, abs=0.01), pytest.approx(0, abs=0.01)]
    assert report["mean_entropy"] == pytest.approx(2, abs=0.01) and report["tokens"] == 20_000
