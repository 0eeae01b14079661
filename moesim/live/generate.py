"""Batched sampling with a KV cache; sequences of a batch leave it when they have their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moesim.live.refactor import DecodeState, RoutedModel
from moesim.live.tracer import RoutingTracer

Seen = Callable[[Sequence[int], Tensor], None]


@dataclass(slots=True)
class Sampler:
    """Draws tokens at a temperature; `banned` ids never come, so that lengths are those asked for."""

    temperature: float
    banned: Sequence[int]
    random: torch.Generator

    def draw(self, logits: Tensor) -> Tensor:
        """int64 [batch] from logits [batch, vocabulary]."""
        logits = logits.clone()
        logits[:, list(self.banned)] = -torch.inf
        chances = (logits / self.temperature).softmax(dim=-1)
        return torch.multinomial(chances, 1, generator=self.random).flatten()


def left_padded(prompts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(ids, valid) [batch, longest]: prompts that end together."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    valid = torch.zeros_like(ids, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = prompt
        valid[row, longest - len(prompt) :] = True
    return ids, valid


@torch.no_grad()
def generate(
    model: RoutedModel,
    prompts: Sequence[Tensor],
    outputs: Sequence[int],
    sampler: Sampler,
    tracer: RoutingTracer,
    seen: Seen = lambda rows, valid: None,
) -> list[np.ndarray]:
    """Continue each prompt by `outputs` tokens; every prompt and output token is run, and so routed, once.

    Row numbers given to `tracer` and `seen` (called after each pass) are indices into `prompts`. Returns the ids.
    """
    rows = list(range(len(prompts)))
    tokens: list[list[int]] = [[] for _ in prompts]
    state = DecodeState.new()
    ids, valid = left_padded(prompts)
    while True:
        tracer.expect(rows, valid)
        logits = model(ids, valid, state, last_only=True)[:, -1]
        seen(rows, valid)
        going = [index for index, row in enumerate(rows) if len(tokens[row]) < outputs[row]]
        if not going:
            return [np.array(line, np.int32) for line in tokens]
        if len(going) < len(rows):
            keep = torch.tensor(going)
            state.select(keep)
            rows, logits = [rows[index] for index in going], logits[keep]
        drawn = sampler.draw(logits)
        for row, token in zip(rows, drawn.tolist(), strict=True):
            tokens[row].append(token)
        ids, valid = drawn[:, None], torch.ones(len(rows), 1, dtype=torch.bool)
