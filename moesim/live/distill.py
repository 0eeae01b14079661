"""Distilling the pre-gating router: each token should go to the expert whose mask holds most of its strongest channels.

Read-ME, Eq. 4, with the overlaps counted per layer and averaged over layers: summed over layers, as printed, the
softmax is one-hot. The loss of the published code is there as another meter.
"""

from __future__ import annotations

from collections.abc import Sequence
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
        active = active_channels(activations, self._share).float()
        counts = active @ self._masks[layer].to(active.device)
        self._sum = counts if self._sum is None else self._sum + counts

    def read(self) -> Tensor:
        if self._sum is None:
            raise RuntimeError("no forward pass was watched since the last read")
        mean, self._sum = self._sum / len(self._masks), None
        return mean


def active_channels(activations: Tensor, share: float) -> Tensor:
    """bool, like `activations` [..., channels]: the top `share` by magnitude (all that tie with the last of them)."""
    size = activations.detach().abs()
    below = size.shape[-1] - round(share * size.shape[-1])
    if size.device.type != "cpu":
        return size >= size.float().kthvalue(below + 1, dim=-1, keepdim=True).values.to(size.dtype)
    values = size.numpy()
    threshold = np.partition(values, below, axis=-1)[..., below : below + 1]  # several times faster than torch's
    return torch.from_numpy(values >= threshold)


def soft_labels(overlaps: Tensor) -> Tensor:
    """Target distribution over experts [..., experts] from mean overlap counts."""
    return overlaps.softmax(dim=-1)


class PublishedMeter:
    """Targets of the published code: per layer .75 hard (smoothed by half) and .25 soft, meaned over layers.

    A channel counts once for each fifth of the strongest channels that it is in, by value (not magnitude). The cross
    entropy is linear in its target, so the mean of the layers' targets gives the sum of their losses.
    """

    def __init__(self, experts: ExpertSet) -> None:
        self._masks = experts.masks.permute(1, 2, 0).float().contiguous()
        self._width = experts.width
        self._sum: Tensor | None = None

    def watch(self, layer: int, activations: Tensor) -> None:
        values, width = activations.detach().float(), self._width
        ranks = values.argsort(dim=-1, descending=True).argsort(dim=-1)
        ends = torch.tensor([width - 1, *(int(width / 5 * part) for part in (4, 3, 2, 1))], device=values.device)
        depth = (ranks[..., None] < ends).sum(dim=-1).float() / (3 * width)
        counts = depth @ self._masks[layer].to(values.device)
        counts = (counts - counts.mean()) * 10
        count = counts.shape[-1]
        hard = 0.5 * F.one_hot(counts.argmax(dim=-1), count).float() + 0.5 / count
        target = 0.75 * hard + 0.25 * counts.softmax(dim=-1)
        self._sum = target if self._sum is None else self._sum + target

    def read(self) -> Tensor:
        if self._sum is None:
            raise RuntimeError("no forward pass was watched since the last read")
        mean, self._sum = self._sum / len(self._masks), None
        return mean


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text: ids int64 [tokens], target float32 [tokens, experts] (sums to 1), domain index."""

    ids: Tensor
    target: Tensor
    domain: int


def domain_weights(examples: Sequence[Example]) -> Tensor:
    """Weight of a token of each domain: the inverse of the domain's tokens, with mean 1 over all tokens."""
    domains = max(example.domain for example in examples) + 1
    tokens = torch.zeros(domains)
    for example in examples:
        tokens[example.domain] += len(example.ids)
    return tokens.sum() / (tokens.clamp(min=1) * (tokens > 0).sum())


def batch_loss(router: PreGatingRouter, batch: Sequence[Example], weights: Tensor) -> Tensor:
    """Weighted mean KL(label || router) over the tokens of a batch, the direction that is usual in distillation.

    Texts are padded on the right, which a causal router never sees.
    """
    ids = torch.nn.utils.rnn.pad_sequence([example.ids for example in batch], batch_first=True)
    logits = router(ids.to(router.embedding.weight.device)).log_softmax(dim=-1)
    mine = torch.cat([logits[row, : len(example.ids)] for row, example in enumerate(batch)])
    target = torch.cat([example.target for example in batch]).to(logits.device)
    weight = torch.cat([weights[example.domain].expand(len(example.ids)) for example in batch]).to(logits.device)
    divergence = F.kl_div(mine, target, reduction="none").sum(dim=-1)
    return (divergence * weight).sum() / weight.sum()
