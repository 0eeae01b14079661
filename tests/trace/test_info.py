from __future__ import annotations

import json

import numpy as np
import pytest

from moesim.trace.info import describe, persistence, render, shares
from moesim.trace.routing import RoutingMeta, RoutingTrace, read_routing, write_routing


def trace(experts: list[int], offsets: list[int], prompt: list[int]) -> RoutingTrace:
    meta = RoutingMeta(
        model="tiny", router="decoupled", layers=2, experts=3, key_bytes=[1, 2, 3, 4, 5, 6], label="synthetic"
    )
    ids = np.array(experts, np.int16).reshape(-1, 1, 1)
    return RoutingTrace(
        meta,
        ids,
        np.ones(ids.shape, np.float16),
        np.array(offsets, np.int64),
        np.array(prompt, np.int32),
        ("code", "maths")[: len(prompt)],
    )


def test_persistence_never_crosses_a_sequence():
    ids = np.array([0, 0, 1, 1, 1], np.int16).reshape(5, 1, 1)
    assert persistence(ids, np.array([0, 5]), 1) == 3 / 4
    assert persistence(ids, np.array([0, 3, 5]), 1) == 2 / 3
    assert persistence(ids, np.array([0, 5]), 2) == 1 / 3
    assert persistence(ids, np.array([0, 5]), 5) is None


def test_persistence_of_several_experts_counts_the_shared_ones():
    ids = np.array([[0, 1], [1, 2], [2, -1]], np.int16).reshape(3, 1, 2)
    assert persistence(ids, np.array([0, 3]), 1) == 2 / 3


def test_shares_leave_out_the_missing():
    assert shares(np.array([0, 0, 2, -1], np.int16).reshape(2, 1, 2), 4) == pytest.approx([2 / 3, 0, 1 / 3, 0])


def test_describe_and_render(tmp_path):
    write_routing(tmp_path / "t.parquet", trace([0, 0, 1, 2, 2], [0, 3, 5], [2, 1]))
    info = describe(read_routing(tmp_path / "t.parquet"))
    assert json.loads(json.dumps(info)) == info
    assert (info["sequences"], info["tokens"], info["prompt_tokens"], info["output_tokens"]) == (2, 5, 3, 2)
    assert info["persistence"] == {"1": 2 / 3, "2": 0.0, "4": None, "16": None, "64": None}
    assert info["shares"] == pytest.approx([0.4, 0.2, 0.4])
    assert info["domains"]["maths"] == {
        "sequences": 1,
        "prompt_tokens": 1,
        "output_tokens": 1,
        "shares": [0.0, 0.0, 1.0],
    }
    assert info["key_bytes"] == {"smallest": 1, "largest": 6, "all": 21}
    text = render(info)
    for part in ("synthetic", "decoupled", "5 (3 prompt, 2 output)", "lag 1: 0.667", "code", "maths", "1..6 bytes"):
        assert part in text
