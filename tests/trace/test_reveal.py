"""A decoupled trace revealed at the gates: the same choices in every layer, and nothing known sooner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.trace.check import trace_problems
from moesim.trace.reveal import at_gate
from moesim.trace.synthetic import synthetic


def test_each_layer_chooses_what_the_router_did() -> None:
    trace = synthetic("sticky", layers=3, experts=5, k=2, key_bytes=10, sequences=2, prompt_tokens=3, output_tokens=4)
    trace = replace(trace, digest="abc")
    shown = at_gate(trace, 3)
    assert (shown.meta.router, shown.meta.layers, shown.digest) == ("layerwise", 3, "abc")
    assert shown.experts.shape == (14, 3, 2)
    assert all(np.array_equal(shown.experts[:, layer], trace.experts[:, 0]) for layer in range(3))
    assert shown.ahead is trace
    assert not shown.predicted
    assert trace_problems(shown) == []


def test_no_copy_is_made() -> None:
    trace = synthetic("iid", layers=4, experts=5, key_bytes=10, sequences=2, prompt_tokens=3, output_tokens=4)
    shown = at_gate(trace, 4)
    assert np.shares_memory(shown.experts, trace.experts)
    assert np.shares_memory(shown.weights, trace.weights)


def test_a_model_of_other_layers_has_keys_of_its_own() -> None:
    trace = synthetic("iid", layers=2, experts=2, key_bytes=[1, 2, 3, 4], sequences=1, prompt_tokens=3, output_tokens=4)
    shown = at_gate(trace, 6)
    assert (shown.meta.decisions, shown.meta.keys, shown.meta.key_bytes) == (6, 12, 4)
    assert trace_problems(shown) == []


def test_a_layer_wise_trace_is_refused() -> None:
    trace = synthetic(
        "iid", layers=2, experts=2, key_bytes=1, sequences=1, prompt_tokens=3, output_tokens=4, router="layerwise"
    )
    with pytest.raises(InputError, match=r"trace.reveal: 'at-gate' is for a decoupled trace; synthetic iid has"):
        at_gate(trace, 2)
