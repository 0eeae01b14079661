"""What one step asks of each layer: its keys, ranked, and how many tokens each of them gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import add
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from moesim.trace.routing import RoutingTrace

if TYPE_CHECKING:
    from moesim.sim.engine import StepCosts


class Part(NamedTuple):
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


class Work:
    """One step: its parts and the work of each layer (one entry that serves every layer if the router is decoupled).

    `layers` may be given as what makes them when somebody first asks: compiled steps (moesim.sim.compiled) do not.
    """

    __slots__ = ("_layers", "costs", "decode_tokens", "parts", "prefill_tokens")

    def __init__(
        self,
        parts: tuple[Part, ...],
        layers: tuple[LayerWork, ...] | Callable[[], tuple[LayerWork, ...]],
        prefill_tokens: int,
        decode_tokens: int,
    ) -> None:
        self.parts = parts
        self.prefill_tokens = prefill_tokens
        self.decode_tokens = decode_tokens
        self.costs: StepCosts | None = None
        """kernel times of the step, once somebody has asked for them"""
        self._layers = layers

    @property
    def layers(self) -> tuple[LayerWork, ...]:
        if not isinstance(self._layers, tuple):
            self._layers = self._layers()
        return self._layers

    def layer(self, layer: int) -> LayerWork:
        layers = self.layers
        return layers[0] if len(layers) == 1 else layers[layer]


def make_work(parts: tuple[Part, ...], trace: RoutingTrace, sequences: Sequence[int]) -> Work:
    """Work of a step whose request `r` replays captured sequence `sequences[r]`."""
    prefill = decode = 0
    for _, _, tokens, of_prefill in parts:
        if of_prefill:
            prefill += tokens
        else:
            decode += tokens
    return Work(parts, lambda: _layers(parts, trace, sequences), prefill, decode)


def _layers(parts: tuple[Part, ...], trace: RoutingTrace, sequences: Sequence[int]) -> tuple[LayerWork, ...]:
    experts = trace.experts
    starts = [trace.offsets[sequences[part.request]] + part.start for part in parts]
    chosen = [experts[row : row + part.tokens] for row, part in zip(starts, parts, strict=True)]
    return tuple(_layer([c[:, layer] for c in chosen], parts) for layer in range(experts.shape[1]))


def _layer(chosen: list[np.ndarray], parts: tuple[Part, ...]) -> LayerWork:
    ranked: list[int] = []
    prefill: list[int] = []
    decode: list[int] = []
    for ids, part in zip(chosen, parts, strict=True):
        found = ids.ravel().tolist()
        ranked += found
        if part.prefill:
            prefill += found
        else:
            decode += found
    experts = tuple(e for e in dict.fromkeys(ranked) if e >= 0)
    prefills, decodes = Counter(prefill), Counter(decode)
    of_prefill = tuple([prefills.get(e, 0) for e in experts])
    of_decode = tuple([decodes.get(e, 0) for e in experts])
    return LayerWork(experts, of_prefill, of_decode, tuple(map(add, of_prefill, of_decode)))
