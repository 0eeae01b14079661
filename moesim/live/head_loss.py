"""Cross entropy over a large frozen vocabulary, in chunks whose gradient is made at once: no logits are kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CHUNK = 256


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        grad = torch.empty_like(hidden)
        for at in range(0, len(hidden), CHUNK):
            part, wanted = hidden[at : at + CHUNK].to(weight.dtype), target[at : at + CHUNK, None]
            logits = (part @ weight.T).float()
            logits -= logits.amax(dim=1, keepdim=True)
            hit = logits.gather(1, wanted)
            total_exp = logits.exp_().sum(dim=1, keepdim=True)
            total += (total_exp.log() - hit).sum()
            logits /= total_exp
            logits.scatter_add_(1, wanted, torch.full_like(hit, -1.0))
            grad[at : at + CHUNK] = logits.to(weight.dtype) @ weight
        ctx.save_for_backward(grad)
        ctx.tokens = len(hidden)
        return total / len(hidden)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (grad,) = ctx.saved_tensors
        return grad * (outer[0] / ctx.tokens), None, None


def head_loss(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Mean loss (nats) of `target` [tokens] given `hidden` [tokens, d] and the frozen head `weight` [vocabulary, d].

    The products run in the dtype of `weight`, sums in float32. Only `hidden` gets a gradient.
    """
    loss: Tensor = _HeadLoss.apply(hidden, weight, target)
    return loss
