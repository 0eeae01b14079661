"""KV caches of sequences that join and leave a running batch.

A batch's caches are padded on the left, so that the tokens of all sequences end in the same column. A sequence is run
through its prompt alone, without padding, and joins then; the mask hides the columns before its first token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

STATES = ("conv_states", "recurrent_states")


def can_join(cache: Any) -> bool:
    """Whether all layers of a cache are of kinds that are known here: keys and values by token, or a state."""
    from transformers.cache_utils import (
        DynamicLayer,
        DynamicSlidingWindowLayer,
        LinearAttentionAndFullAttentionLayer,
        LinearAttentionLayer,
    )

    known = (DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer, LinearAttentionAndFullAttentionLayer)
    return hasattr(cache, "layers") and all(type(layer) in known for layer in cache.layers)


class Lanes:
    """The caches of a batch; `lengths` holds the tokens that each row has seen."""

    def __init__(self) -> None:
        self.cache: Any = None
        self.lengths: list[int] = []

    @property
    def columns(self) -> int:
        return max(self.lengths, default=0)

    def mask(self, new: int = 1) -> Tensor | None:
        """int64 [rows, columns + new] of the tokens that are real; None where all are."""
        if min(self.lengths) == self.columns:
            return None
        columns = torch.arange(self.columns + new)
        return (columns >= (self.columns - torch.tensor(self.lengths))[:, None]).long()

    def join(self, cache: Any, length: int) -> None:
        """Add a row: `cache` of one sequence that has seen `length` tokens; it is used up."""
        if self.cache is None:
            self.cache = cache
        else:
            wide = max(self.columns, length)
            for mine, other in zip(self.cache.layers, cache.layers, strict=True):
                _merge(mine, other, wide, self.columns, length)
        self.lengths.append(length)

    def keep(self, rows: list[int]) -> None:
        """Keep only these rows, and no column that none of them needs."""
        if not rows:
            self.cache, self.lengths = None, []
            return
        before = self.columns
        self.lengths = [self.lengths[row] for row in rows]
        chosen = torch.tensor(rows)
        for layer in self.cache.layers:
            _select(layer, chosen, before - self.columns)

    def advance(self) -> None:
        """Every row has seen one token more."""
        self.lengths = [length + 1 for length in self.lengths]


def _merge(mine: Any, other: Any, wide: int, columns: int, length: int) -> None:
    for name in STATES:
        states: Any = getattr(mine, name, None) or {}
        for at in states:
            if states[at] is not None:
                states[at] = torch.cat([states[at], getattr(other, name)[at]])
    if getattr(mine, "keys", None) is None:
        return
    window = getattr(mine, "sliding_window", None)
    kept = wide if window is None else min(wide, window - 1)
    for name in ("keys", "values"):
        parts = [getattr(layer, name) for layer in (mine, other)]
        setattr(mine, name, torch.cat([pad(part, (0, 0, kept - part.shape[-2], 0)) for part in parts]))
    if window is not None:
        mine.cumulative_length = wide


def _select(layer: Any, rows: Tensor, unused: int) -> None:
    for name in STATES:
        states: Any = getattr(layer, name, None) or {}
        for at in states:
            if states[at] is not None:
                states[at] = states[at][rows.to(states[at].device)]
    if getattr(layer, "keys", None) is None:
        return
    window = getattr(layer, "sliding_window", None)
    if window is not None:
        layer.cumulative_length -= unused
    for name in ("keys", "values"):
        held = getattr(layer, name)
        held = held[rows.to(held.device)]
        kept = held.shape[-2] - unused if window is None else min(layer.cumulative_length, window - 1)
        setattr(layer, name, held[..., held.shape[-2] - kept :, :].contiguous())
