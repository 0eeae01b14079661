"""The pre-gating router of Read-ME (Table 1): one causal transformer layer over token ids, apart from the backbone.

It sees only the tokens up to and including its own, so a token's experts are known in all layers before its forward
pass.
"""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(slots=True)
class RouterCache:
    """Keys and values [batch, heads, tokens, head width] of the tokens seen, and which of them are real."""

    keys: Tensor | None = None
    values: Tensor | None = None
    valid: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor, valid: Tensor) -> None:
        if self.keys is None or self.values is None or self.valid is None:
            self.keys, self.values, self.valid = keys, values, valid
        else:
            self.keys = torch.cat([self.keys, keys], dim=2)
            self.values = torch.cat([self.values, values], dim=2)
            self.valid = torch.cat([self.valid, valid], dim=1)

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch."""
        if self.keys is not None and self.values is not None and self.valid is not None:
            self.keys, self.values, self.valid = self.keys[rows], self.values[rows], self.valid[rows]


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

    def forward(self, ids: Tensor, valid: Tensor | None = None, cache: RouterCache | None = None) -> Tensor:
        """`valid` bool [batch, tokens] marks real tokens (None: all). With a `cache`, `ids` continue what it holds."""
        valid = torch.ones_like(ids, dtype=torch.bool) if valid is None else valid
        cache = RouterCache() if cache is None else cache
        x = self.embedding(ids)
        x = x + self._attend(self.attention_norm(x), valid, cache)
        normed = self.mlp_norm(x)
        x = x + self.down(F.silu(self.gate(normed)) * self.up(normed))
        logits: Tensor = self.head(self.norm(x))
        return logits

    def _attend(self, x: Tensor, valid: Tensor, cache: RouterCache) -> Tensor:
        past = 0 if cache.valid is None else cache.valid.shape[1]
        position = torch.arange(past, past + x.shape[1])
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        base = self.config.rope_base
        query, key = rotate(query, position, base), rotate(key, position, base)
        cache.append(key, value, valid)
        assert cache.keys is not None and cache.values is not None and cache.valid is not None
        seen = position[:, None] >= torch.arange(cache.keys.shape[2])[None, :]
        # A padded query sees itself, or its softmax would be over nothing.
        own = position[:, None] == torch.arange(cache.keys.shape[2])[None, :]
        mask = (seen & cache.valid[:, None, :]) | own
        mixed = F.scaled_dot_product_attention(query, cache.keys, cache.values, attn_mask=mask[:, None])
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.config.heads, -1)).transpose(1, 2)


def rotate(x: Tensor, position: Tensor, base: float) -> Tensor:
    """Rotary position embedding of `x` [batch, heads, tokens, head width]; only differences of position matter."""
    half = x.shape[-1] // 2
    angle = position[:, None] * base ** (-torch.arange(half) / half)
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
        router.embedding.weight[:, :known] = embedding[:, :known]
    return router
