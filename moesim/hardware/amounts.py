"""Bytes that a piece of a layer has to read at least, and its FLOPs: what a roofline figure needs of each point."""

from __future__ import annotations

from dataclasses import dataclass

from moesim.hardware.roofline import ROUTER_WEIGHTS, ROUTER_WIDTH
from moesim.hardware.shape import ModelShape, stored

ACTIVATION = 2
"""bytes of a number of an activation"""


@dataclass(frozen=True, slots=True)
class Amount:
    """`bytes` of weights, keys, values and activations, each once; `flops`: two a weight and token."""

    bytes: float
    flops: float


def amount(shape: ModelShape, component: str, point: tuple[int, ...]) -> Amount:
    """Of a component at full arguments (`moesim.hardware.files.ARGUMENTS`), as the formulas of the roofline have it."""
    d, width = shape.d_model, shape.heads * shape.head_dim
    if component in ("attention_prefill", "attention_decode"):
        tokens, context = point if component == "attention_decode" else (point[0], sum(point))
        pairs = context if component == "attention_decode" else point[0] * point[1] + point[0] * (point[0] + 1) / 2
        return Amount(context * shape.layer_kv_bytes + 2 * ACTIVATION * tokens * width, 4 * width * pairs)
    tokens = point[0]
    if component in ("experts", "cpu_expert"):
        active = point[1] if component == "experts" else 1
        moved = active * shape.key_bytes + 2 * ACTIVATION * (d + shape.expert_width) * tokens
        return Amount(moved, 2 * shape.expert_matrices * d * shape.expert_width * tokens)
    weights, values = {
        "layer_rest": (shape.attention_weights + shape.shared_weights, 10 * d),
        "gate": (d * shape.experts, d),
        "router": (ROUTER_WEIGHTS + ROUTER_WIDTH * shape.experts, 12 * ROUTER_WIDTH),
        "step_rest": (
            shape.head_weights + shape.dense_layers * shape.expert_matrices * d * shape.dense_width,
            4 * shape.vocab,
        ),
    }[component]
    return Amount(stored(weights, shape.dense_bits) + ACTIVATION * values * tokens, 2 * weights * tokens)
