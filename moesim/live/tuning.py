"""Tuning experts with the language-model loss: only deltas (or the FFNs) and gates learn, all else is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moesim.live.deltas import LayerDeltas
from moesim.live.head_loss import head_loss
from moesim.live.settings import RefactorConfig

GATE_SHARE = 0.1  # gates move this much slower than deltas: a small change of theirs changes which experts run


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Products in bfloat16, sums in float32; or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


class LanguageLoss:
    """Mean loss of the next token over batches of texts, run by `backbone` (a LLaMA model without its head)."""

    def __init__(self, model: Any, precision: str) -> None:
        self._backbone, self._precision, self._device = model.model, precision, model.device
        head = model.lm_head.weight.detach()
        self._head = head.bfloat16() if precision == "bfloat16" else head

    def __call__(self, ids: Tensor, valid: Tensor) -> Tensor:
        """`ids` [batch, tokens] padded on the right, `valid` says which are real."""
        with autocast(self._device, self._precision):
            hidden = self._backbone(ids, use_cache=False).last_hidden_state
        kept = valid[:, 1:]
        return head_loss(hidden[:, :-1][kept].float(), self._head, ids[:, 1:][kept])


def padded(texts: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """(ids, valid) [batch, longest], padded on the right."""
    ids = nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    lengths = torch.tensor([len(text) for text in texts])
    valid = torch.arange(ids.shape[1]) < lengths[:, None]
    return ids.to(device), valid.to(device)


def order(count: int, batch: int, step: int, key: Sequence[int]) -> list[int]:
    """Which of `count` texts are in the batch of a step: a pass over all of them in one order, then in another."""
    batches = max(count // batch, 1)
    passed, at = divmod(step, batches)
    found = np.random.default_rng([*key, passed]).permutation(count)
    return [int(index) for index in found[at * batch : (at + 1) * batch]]


def new_deltas(config: RefactorConfig, experts: int, shape: Any) -> list[LayerDeltas]:
    """One for each layer, seeded; `shape` is the model's configuration. In scheme fine-grained all ranks are shared."""
    random = torch.Generator().manual_seed(config.seed)
    own = config.rank * experts if config.scheme == "domains" else 0
    sizes = (shape.hidden_size, shape.intermediate_size, config.shared_rank + own)
    return [LayerDeltas(*sizes, random) for _ in range(shape.num_hidden_layers)]


def named(parts: Sequence[nn.Module], name: str) -> dict[str, nn.Parameter]:
    """Parameters of `parts`, one a layer, as name.layer.parameter."""
    found = {}
    for layer, part in enumerate(parts):
        for key, value in part.named_parameters():
            value.requires_grad_(True)
            found[f"{name}.{layer}.{key}"] = value
    return found
