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
    offsets = trace.offsets
    chosen = rows_of(trace.experts, [(offsets[sequences[number]] + start, n) for number, start, n, _ in parts])
    # The ids of each part stand together, k a token: [tokens of all parts][layer][k].
    k, at, ranges = chosen.shape[2], 0, []
    for part in parts:
        ranges.append((at, at + part.tokens * k, part.prefill))
        at += part.tokens * k
    if chosen.shape[1] > 1 and (chosen == chosen[:, :1]).all():  # a decoupled router's, revealed at each gate
        return (_layer(chosen[:, 0].ravel().tolist(), ranges),) * chosen.shape[1]
    return tuple(_layer(chosen[:, layer].ravel().tolist(), ranges) for layer in range(chosen.shape[1]))


def rows_of(array: np.ndarray, pieces: Sequence[tuple[int, int]]) -> np.ndarray:
    """Rows of `array` put together, piece by piece: the first row of each, and how many.

    Most pieces of a step are single rows: those that stand together are looked up at once.
    """
    found, single = [], []
    for row, count in pieces:
        if count == 1:
            single.append(row)
            continue
        if single:
            found.append(array[np.array(single)])
            single = []
        found.append(array[row : row + count])
    if single:
        found.append(array[np.array(single)])
    return found[0] if len(found) == 1 else np.concatenate(found)


def _layer(ranked: list[int], ranges: Sequence[tuple[int, int, bool]]) -> LayerWork:
    """`ranked` are the ids of all tokens; `ranges` say which of them are of a part, and whether that is of a prompt."""
    prefill: list[int] = []
    decode: list[int] = []
    for start, end, of_prompt in ranges:
        if of_prompt:
            prefill += ranked[start:end]
        else:
            decode += ranked[start:end]
    experts = tuple(e for e in dict.fromkeys(ranked) if e >= 0)
    prefills, decodes = Counter(prefill), Counter(decode)
    of_prefill = tuple([prefills.get(e, 0) for e in experts])
    of_decode = tuple([decodes.get(e, 0) for e in experts])
    return LayerWork(experts, of_prefill, of_decode, tuple(map(add, of_prefill, of_decode)))
