"""A decoupled trace as a layer-wise router would have shown it: each layer's choice at that layer's gate, no sooner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from moesim.errors import InputError, Problem
from moesim.trace.meta import RoutingMeta
from moesim.trace.routing import RoutingTrace

AT_GATE = "at-gate"


def at_gate(trace: RoutingTrace, layers: int) -> RoutingTrace:
    """The trace with a layer-wise router of `layers` layers, all of which choose what the decoupled one did.

    Experts, weights, sequences and the digest stay, so that information alone differs, and no predictions are added;
    `ahead` is the trace itself. Raises InputError where the trace is layer-wise already.
    """
    meta = trace.meta
    if meta.router != "decoupled":
        text = f"{AT_GATE!r} is for a decoupled trace; {meta.model} has a layer-wise router, which reveals no sooner"
        raise InputError(Problem("trace.reveal", text))
    of_all = {} if layers == meta.layers else {"key_map": None, "key_bytes": int(meta.key_sizes.max())}
    return replace(
        trace,
        meta=RoutingMeta(**meta.model_dump() | {"router": "layerwise", "layers": layers, **of_all}),
        experts=_in_each(trace.experts, layers),
        weights=_in_each(trace.weights, layers),
        top_experts=None if trace.top_experts is None else _in_each(trace.top_experts, layers),
        top_weights=None if trace.top_weights is None else _in_each(trace.top_weights, layers),
        ahead=trace,
    )


def _in_each(array: np.ndarray, layers: int) -> np.ndarray:
    """[tokens, 1, n] as [tokens, layers, n], without a copy."""
    return np.broadcast_to(array, (len(array), layers, array.shape[2]))
