"""Domain experts: the strongest FFN channels of each layer for each domain (Read-ME, Eq. 3)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Watch = Callable[[int, Tensor], None]


@dataclass(frozen=True, slots=True)
class ExpertSet:
    """Masks over FFN channels: bool [experts, layers, channels], each with the same number of channels per layer."""

    masks: Tensor

    @property
    def experts(self) -> int:
        return self.masks.shape[0]

    @property
    def layers(self) -> int:
        return self.masks.shape[1]

    @property
    def width(self) -> int:
        """Channels of an expert in one layer, its copy of the permanent ones included."""
        return int(self.masks[0, 0].sum())

    @property
    def permanent(self) -> Tensor:
        """bool [layers, channels]: channels that all experts have, the permanent expert of Read-ME, section 3."""
        return self.masks.all(dim=0)

    def channels(self, expert: int, layer: int) -> Tensor:
        """int64 [width]: the channels of an expert; the permanent ones are among them, copied into each expert."""
        return self.masks[expert, layer].nonzero().flatten()

    def key_bytes(self, d_model: int, bytes_per_weight: int = 2) -> int:
        """Bytes of one layer of one expert: gate, up and down projections."""
        return 3 * self.width * d_model * bytes_per_weight


@contextmanager
def watch_channels(model: Any, watch: Watch) -> Iterator[None]:
    """Call `watch(layer, activations [batch, tokens, channels])` with the input of every down projection.

    The activations are silu(gate) * up. The hooks only read, so the model's output does not change.
    """

    def hook(layer: int) -> Callable[..., None]:
        return lambda module, args: watch(layer, args[0])

    ffns = [getattr(block.mlp, "dense", block.mlp) for block in model.model.layers]  # inside a DomainFFN, or alone
    handles = [ffn.down_proj.register_forward_pre_hook(hook(at)) for at, ffn in enumerate(ffns)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def channel_strength(model: Any, texts: Iterable[Tensor]) -> Tensor:
    """float64 [layers, channels]: mean |activation| over the tokens of `texts` (each int64 [tokens])."""
    config = model.config
    total = torch.zeros(config.num_hidden_layers, config.intermediate_size, dtype=torch.float64, device=model.device)
    tokens = 0

    def add(layer: int, activations: Tensor) -> None:
        total[layer] += activations.abs().sum(dim=(0, 1), dtype=torch.float64)

    with watch_channels(model, add):
        for ids in texts:
            model.model(ids[None].to(model.device), use_cache=False)
            tokens += len(ids)
    return (total / max(tokens, 1)).cpu()


def strongest(strength: Tensor, share: float) -> Tensor:
    """bool, the shape of `strength` [..., channels]: exactly round(share * channels) strongest; ties to the first."""
    keep = round(share * strength.shape[-1])
    order = torch.argsort(strength, dim=-1, descending=True, stable=True)[..., :keep]
    return torch.zeros_like(strength, dtype=torch.bool).scatter_(-1, order, True)


def build_experts(strengths: Tensor, share: float) -> ExpertSet:
    """Experts from `strengths` [domains, layers, channels]: one for each domain, aligned over the layers."""
    return ExpertSet(strongest(strengths, share))
