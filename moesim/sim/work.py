"""What one step asks of each layer: its keys, ranked, and how many tokens each of them gets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moesim.trace.routing import RoutingTrace


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of one request in a step: positions `start` .. `start + tokens - 1`."""

    request: int
    start: int
    tokens: int
    prefill: bool


@dataclass(frozen=True, eq=False)
class LayerWork:
    """Experts of one layer event, ranked by first use (position, then slot); token counts go along with them.

    Compared by identity: it is made once per step and looked up once per layer.
    """

    experts: tuple[int, ...]
    prefill: tuple[int, ...]
    decode: tuple[int, ...]
    tokens: tuple[int, ...]

    @cached_property
    def total(self) -> int:
        return sum(self.tokens)

    @cached_property
    def largest(self) -> int:
        return max(self.tokens)

    @property
    def lasting(self) -> tuple[int, ...]:
        """Experts that a decoding request uses: those that `persist` expects again."""
        return tuple(e for e, n in zip(self.experts, self.decode, strict=True) if n)


@dataclass(frozen=True, slots=True)
class Work:
    """One step: its parts and the work of each layer (one entry that serves every layer if the router is decoupled)."""

    parts: tuple[Part, ...]
    layers: tuple[LayerWork, ...]
    prefill_tokens: int
    decode_tokens: int

    def layer(self, layer: int) -> LayerWork:
        return self.layers[0] if len(self.layers) == 1 else self.layers[layer]


def make_work(parts: tuple[Part, ...], trace: RoutingTrace, sequences: list[int]) -> Work:
    """Work of a step whose request `r` replays captured sequence `sequences[r]`."""
    experts = trace.experts
    offsets = trace.offsets
    rows = [offsets[sequences[p.request]] + p.start for p in parts]
    chosen = [experts[row : row + p.tokens] for row, p in zip(rows, parts, strict=True)]
    layers = tuple(_layer([c[:, layer] for c in chosen], parts) for layer in range(experts.shape[1]))
    prefill = sum(p.tokens for p in parts if p.prefill)
    return Work(parts, layers, prefill, sum(p.tokens for p in parts) - prefill)


def _layer(chosen: list[np.ndarray], parts: tuple[Part, ...]) -> LayerWork:
    prefill: dict[int, int] = {}
    decode: dict[int, int] = {}
    order: dict[int, None] = {}
    for ids, part in zip(chosen, parts, strict=True):
        counts = prefill if part.prefill else decode
        for expert in ids.ravel().tolist():
            if expert >= 0:
                counts[expert] = counts.get(expert, 0) + 1
                order[expert] = None
    experts = tuple(order)
    of_prefill = tuple(prefill.get(e, 0) for e in experts)
    of_decode = tuple(decode.get(e, 0) for e in experts)
    return LayerWork(experts, of_prefill, of_decode, tuple(p + d for p, d in zip(of_prefill, of_decode, strict=True)))
