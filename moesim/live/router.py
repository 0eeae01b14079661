"""The pre-gating router of Read-ME (Table 1): one causal transformer layer over token ids, apart from the backbone.

It sees only the tokens up to and including its own, so a token's experts are known in all layers before its forward
pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """Sizes of the router; Read-ME's are embedding 512, 4 heads, MLP 512."""

    vocabulary: int
    experts: int
    width: int = 512
    heads: int = 4
    mlp: int = 512
    rope_base: float = 10000.0


class KeysValues(Protocol):
    """A layer of a KV cache, such as transformers' DynamicLayer."""

    def update(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values [batch, heads, tokens, head width]; returns those of all tokens so far."""


class PreGatingRouter(nn.Module):
    """Token ids [batch, tokens] -> logits [batch, tokens, experts]; causal, with its own embedding."""

    def __init__(self, config: RouterConfig) -> None:
        super().__init__()
        width, mlp = config.width, config.mlp
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, width)
        self.attention_norm = nn.RMSNorm(width, eps=1e-5)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.mlp_norm = nn.RMSNorm(width, eps=1e-5)
        self.gate, self.up = nn.Linear(width, mlp, bias=False), nn.Linear(width, mlp, bias=False)
        self.down = nn.Linear(mlp, width, bias=False)
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.head = nn.Linear(width, config.experts, bias=False)

    def forward(
        self,
        ids: Tensor,
        valid: Tensor | None = None,
        cache: KeysValues | None = None,
        position: Tensor | None = None,
    ) -> Tensor:
        """Logits [batch, tokens, experts] of `ids` [batch, tokens].

        `cache` holds the tokens before and takes these in. `valid` bool [batch, tokens so far] marks real tokens (all
        are by default), `position` [batch, tokens] their places in their sequences (from 0 by default).
        """
        x = self.embedding(ids)
        if position is None:
            position = torch.arange(ids.shape[1], device=ids.device).expand(ids.shape)
        x = x + self._attend(self.attention_norm(x), valid, cache, position)
        normed = self.mlp_norm(x)
        x = x + self.down(F.silu(self.gate(normed)) * self.up(normed))
        logits: Tensor = self.head(self.norm(x))
        return logits

    def _attend(self, x: Tensor, valid: Tensor | None, cache: KeysValues | None, position: Tensor) -> Tensor:
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        base = self.config.rope_base
        query, key = rotate(query, position, base), rotate(key, position, base)
        if cache is not None:
            key, value = cache.update(key, value)
        seen = torch.arange(key.shape[2], device=x.device)
        mine = seen[-x.shape[1] :, None]
        mask = (mine >= seen)[None]
        if valid is not None:
            # A padded query sees itself, or its softmax would be over nothing.
            mask = (mask & valid.bool()[:, None, :]) | (mine == seen)[None]
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None])
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.config.heads, -1)).transpose(1, 2)


def rotate(x: Tensor, position: Tensor, base: float) -> Tensor:
    """Rotary embedding of `x` [batch, heads, tokens, head width] at `position` [batch, tokens]; differences matter."""
    half = x.shape[-1] // 2
    angle = position[:, None, :, None] * base ** (-torch.arange(half, device=x.device) / half)
    one, two = x[..., :half], x[..., half:]
    return torch.cat([one * angle.cos() - two * angle.sin(), one * angle.sin() + two * angle.cos()], dim=-1)


def new_router(config: RouterConfig, embedding: Tensor, seed: int) -> PreGatingRouter:
    """A router whose embedding starts from the first dimensions of the language model's `embedding` [vocabulary, d]."""
    generator_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    router = PreGatingRouter(config)
    torch.random.set_rng_state(generator_state)
    known = min(config.width, embedding.shape[1])
    with torch.no_grad():
        router.embedding.weight[:, :known] = embedding[:, :known].float().cpu()
    return router
