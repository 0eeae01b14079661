"""Distilling the pre-gating router: each token should go to the expert whose mask holds most of its strongest channels.

Read-ME, Eq. 4, with the overlaps counted per layer and averaged over layers: summed over layers, as printed, the
softmax is one-hot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from moesim.live.experts import ExpertSet
from moesim.live.router import PreGatingRouter


class OverlapMeter:
    """Counts, for each token of a forward pass, its strongest channels inside each expert's mask.

    Give `watch` to `watch_channels`; `read()` after the pass returns float32 [batch, tokens, experts], the mean over
    layers, and starts anew. Strongest: |activation| among the top `share` of the layer's channels for that token.
    """

    def __init__(self, experts: ExpertSet, share: float = 0.5) -> None:
        self._masks = experts.masks.permute(1, 2, 0).float().contiguous()  # layers, channels, experts
        self._share = share
        self._sum: Tensor | None = None

    def watch(self, layer: int, activations: Tensor) -> None:
        counts = active_channels(activations, self._share).float() @ self._masks[layer]
        self._sum = counts if self._sum is None else self._sum + counts

    def read(self) -> Tensor:
        if self._sum is None:
            raise RuntimeError("no forward pass was watched since the last read")
        mean, self._sum = self._sum / len(self._masks), None
        return mean


def active_channels(activations: Tensor, share: float) -> Tensor:
    """bool, like `activations` [..., channels]: the top `share` by magnitude (all that tie with the last of them)."""
    size = activations.detach().abs().numpy()
    below = size.shape[-1] - round(share * size.shape[-1])
    threshold = np.partition(size, below, axis=-1)[..., below : below + 1]  # several times faster than torch's
    return torch.from_numpy(size >= threshold)


def soft_labels(overlaps: Tensor) -> Tensor:
    """Target distribution over experts [..., experts] from mean overlap counts."""
    return overlaps.softmax(dim=-1)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """AdamW with a cosine schedule; `batch` counts sequences."""

    epochs: int = 3
    batch: int = 8
    rate: float = 1e-3
    decay: float = 0.01
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text: ids int64 [tokens], overlaps float32 [tokens, experts], domain index."""

    ids: Tensor
    overlaps: Tensor
    domain: int


def train(
    router: PreGatingRouter,
    examples: Sequence[Example],
    config: TrainConfig,
    progress: Callable[[int, int, float], None] = lambda epoch, step, loss: None,
) -> list[float]:
    """Train in place; returns the mean loss of each epoch. Every domain weighs the same, whatever its tokens.

    The loss is KL(label || router), the direction that is usual in distillation.
    """
    weights = domain_weights(examples)
    optimizer = torch.optim.AdamW(router.parameters(), lr=config.rate, weight_decay=config.decay)
    steps = config.epochs * -(-len(examples) // config.batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    random = np.random.default_rng(config.seed)
    history = []
    router.train()
    for epoch in range(config.epochs):
        order = random.permutation(len(examples))
        losses = []
        for at in range(0, len(order), config.batch):
            loss = batch_loss(router, [examples[i] for i in order[at : at + config.batch]], weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(router.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            progress(epoch, len(losses), losses[-1])
        history.append(float(np.mean(losses)))
    router.eval()
    return history


def domain_weights(examples: Sequence[Example]) -> Tensor:
    """Weight of a token of each domain: the inverse of the domain's tokens, with mean 1 over all tokens."""
    domains = max(example.domain for example in examples) + 1
    tokens = torch.zeros(domains)
    for example in examples:
        tokens[example.domain] += len(example.ids)
    return tokens.sum() / (tokens.clamp(min=1) * (tokens > 0).sum())


def batch_loss(router: PreGatingRouter, batch: Sequence[Example], weights: Tensor) -> Tensor:
    """Weighted mean KL over the tokens of a batch; texts are padded on the right, which a causal router never sees."""
    ids = torch.nn.utils.rnn.pad_sequence([example.ids for example in batch], batch_first=True)
    logits = router(ids).log_softmax(dim=-1)
    mine = torch.cat([logits[row, : len(example.ids)] for row, example in enumerate(batch)])
    target = soft_labels(torch.cat([example.overlaps for example in batch]))
    weight = torch.cat([weights[example.domain].expand(len(example.ids)) for example in batch])
    divergence = F.kl_div(mine, target, reduction="none").sum(dim=-1)
    return (divergence * weight).sum() / weight.sum()
