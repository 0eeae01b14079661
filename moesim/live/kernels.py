"""The pieces of a layer in torch, as the live engine runs them and `moesim profile` times them.

A piece is what a cost table has a component for (docs/costs.md): attention over the context, the rest of a layer, gate,
experts (one by one, or all in one grouped product), the rest of a step. Weights are given (see `moesim.live.weights`),
or random: what a product takes does not depend on its numbers. A decoupled router is `moesim.live.router`.

T: tokens of a step, d: d_model, H and G: heads of queries and of keys, e: head_dim, w: expert_width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from moesim.hardware.shape import ModelShape
from moesim.live.weights import ExpertForm, LayerWeights, RandomWeights, StepWeights, attention_form

EPS = 1e-5
MOST_GROUPS = 1023
"""slots of one grouped product: a GPU's kernel refuses more"""
ROPE_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Prompt:
    """Rows `first` .. `first + tokens - 1` of a step: positions `start` and on of the request in KV slot `slot`."""

    first: int
    tokens: int
    slot: int
    start: int


class Batch:
    """The tokens of one step: prompts' rows first, then one row of each decoding request.

    `decodes` is a list of (KV slot, position). Index tensors are made once a step, on the device.
    """

    def __init__(self, prompts: Sequence[Prompt], decodes: Sequence[tuple[int, int]], device: torch.device) -> None:
        self.prompts = tuple(prompts)
        self.decodes = tuple(decodes)
        self.prefill_tokens = sum(prompt.tokens for prompt in prompts)
        self.tokens = self.prefill_tokens + len(decodes)
        positions = [p.start + i for p in prompts for i in range(p.tokens)] + [at for _, at in decodes]
        self.positions = torch.tensor(positions, device=device)
        """int64 [T]"""
        self.slots = torch.tensor([slot for slot, _ in decodes], device=device)
        self.places = torch.tensor([at for _, at in decodes], device=device)
        self.ahead = [self._seen(prompt, device) if prompt.start else None for prompt in prompts]
        """bool [tokens, start + tokens] of each prompt that goes on: what a row sees; None: causal from the start"""
        self.longest = max((at + 1 for _, at in decodes), default=0)
        self.padding: Tensor | None = None
        if device.type != "cpu" and decodes:
            behind = torch.arange(self.longest, device=device)[None] > self.places[:, None]
            self.padding = torch.zeros(behind.shape, device=device).masked_fill_(behind, -torch.inf)
            """float [decodes, longest]: -inf behind a request's last token"""


    @staticmethod
    def _seen(prompt: Prompt, device: torch.device) -> Tensor:
        size = (prompt.tokens, prompt.start + prompt.tokens)
        return torch.ones(size, dtype=torch.bool, device=device).tril_(prompt.start)


class KVCache:
    """Keys and values of every layer: [slots, G, length, e] each; latent attention has one tensor for both."""

    def __init__(
        self, shape: ModelShape, layers: int, slots: int, length: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        form = attention_form(shape)
        size = (slots, form.kv_heads, length, form.kv_dim)
        self.keys = [torch.zeros(size, dtype=dtype, device=device) for _ in range(layers)]
        self.values = self.keys
        if not form.latent:
            self.values = [torch.zeros(size, dtype=dtype, device=device) for _ in range(layers)]
        self.latent = form.latent

    def write(self, layer: int, batch: Batch, keys: Tensor, values: Tensor) -> None:
        """Keep the keys and values [T, G, e] of the batch's tokens."""
        both = [(self.keys[layer], keys)] + ([] if self.latent else [(self.values[layer], values)])
        for cache, new in both:
            for prompt in batch.prompts:
                rows = new[prompt.first : prompt.first + prompt.tokens]
                cache[prompt.slot, :, prompt.start : prompt.start + prompt.tokens] = rows.transpose(0, 1)
            if batch.decodes:
                cache[batch.slots, :, batch.places] = new[batch.prefill_tokens :]


class Pieces:
    """What a layer and a step run, for one shape. Holds no weights and no state but the angles of positions."""

    def __init__(
        self,
        shape: ModelShape,
        length: int,
        dtype: torch.dtype,
        device: torch.device,
        *,
        rope_base: float = ROPE_BASE,
        eps: float = EPS,
    ) -> None:
        """`length`: positions that a request may have; `eps`: of norms."""
        self.shape, self.dtype, self.device, self.eps = shape, dtype, device, eps
        self.form = attention_form(shape)
        self.expert = ExpertForm.of(shape)
        turning = self.form.kv_dim - self.form.kv_dim % 2
        rates = rope_base ** -(torch.arange(0, turning, 2, dtype=torch.float32) / max(1, turning))
        angles = torch.outer(torch.arange(length, dtype=torch.float32), rates)
        self._cos = angles.cos().to(device, dtype)
        self._sin = angles.sin().to(device, dtype)

    # -- the rest of a layer, before and after attention ---------------------------------------------------------

    def project(self, layer: LayerWeights, hidden: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Norm and projections of `hidden` [T, d]: queries [T, H, e], keys and values [T, G, e], turned by position."""
        form = self.form
        mixed = F.linear(F.rms_norm(hidden, hidden.shape[-1:], layer.attention_norm, self.eps), layer.inward)
        tokens = hidden.shape[0]
        queries, keys, values = mixed.split([form.heads * form.head_dim, form.kv_width, form.value_width], dim=-1)
        queries = queries.view(tokens, form.heads, form.head_dim)
        if form.latent:  # absorbed form: queries meet the compressed keys, filled up to their width
            queries = F.pad(queries, (0, form.kv_dim - form.head_dim))[..., : form.kv_dim]
        keys = keys.view(tokens, form.kv_heads, form.kv_dim)
        cos, sin = self._cos[batch.positions][:, None], self._sin[batch.positions][:, None]
        turned = turn(keys, cos, sin)
        return turn(queries, cos, sin), turned, turned if form.latent else values.view_as(keys)

    def output(self, layer: LayerWeights, attended: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Output projection and residual of `attended` [T, H x e]; returns the new hidden and its norm, both [T, d].

        A shared expert is added to the hidden state here.
        """
        hidden = hidden + F.linear(attended[:, : layer.outward.shape[1]], layer.outward)
        normed = F.rms_norm(hidden, hidden.shape[-1:], layer.ffn_norm, self.eps)
        if layer.shared is not None:
            hidden = hidden + ffn(normed, *layer.shared)
        return hidden, normed

    # -- attention over the context ------------------------------------------------------------------------------

    def attend(self, batch: Batch, queries: Tensor, cache: KVCache, layer: int) -> Tensor:
        """Attention of all rows over their contexts, [T, H x e]; the keys of the batch are in the cache already."""
        keys, values = cache.keys[layer], cache.values[layer]
        parts = [
            self.attend_prompt(prompt, seen, queries[prompt.first : prompt.first + prompt.tokens], keys, values)
            for prompt, seen in zip(batch.prompts, batch.ahead, strict=True)
        ]
        if batch.decodes:
            parts.append(self.attend_decodes(batch, queries[batch.prefill_tokens :], keys, values))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def attend_prompt(
        self, prompt: Prompt, seen: Tensor | None, queries: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """One request's new tokens over what stands before them and themselves; `seen` as in `Batch.ahead`."""
        end = prompt.start + prompt.tokens
        keys, values = keys[prompt.slot, :, :end][None], values[prompt.slot, :, :end][None]
        if seen is not None and self.form.grouped:
            return self._rows_of_heads(seen, queries, keys, values)
        asked = queries.transpose(0, 1)[None]
        found = F.scaled_dot_product_attention(
            asked, keys, values, attn_mask=seen, is_causal=seen is None, enable_gqa=self.form.grouped
        )
        return found[0].transpose(0, 1).reshape(prompt.tokens, -1)

    def _rows_of_heads(self, seen: Tensor, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Heads that share keys as rows of one query: no fast product takes both a mask and heads that share."""
        form, tokens = self.form, queries.shape[0]
        sharing = form.heads // form.kv_heads
        asked = queries.view(tokens, form.kv_heads, sharing, -1).permute(1, 2, 0, 3)
        asked = asked.reshape(1, form.kv_heads, sharing * tokens, -1)
        found = F.scaled_dot_product_attention(asked, keys, values, attn_mask=seen.repeat(sharing, 1))
        return found.view(form.heads, tokens, -1).transpose(0, 1).reshape(tokens, -1)

    def attend_decodes(self, batch: Batch, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """One new token of each request over its context: one by one on a CPU, padded to the longest elsewhere."""
        return (self._one_by_one if batch.padding is None else self._padded)(batch, queries, keys, values)

    def _one_by_one(self, batch: Batch, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        # The heads that share keys are rows of one query: three times as fast as telling the product of them.
        asked = queries.view(len(batch.decodes), 1, self.form.kv_heads, -1, self.form.kv_dim)
        found = [
            F.scaled_dot_product_attention(query, keys[slot, :, : at + 1][None], values[slot, :, : at + 1][None])
            for query, (slot, at) in zip(asked, batch.decodes, strict=True)
        ]
        return torch.cat(found).view(len(batch.decodes), -1)

    def _padded(self, batch: Batch, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        assert batch.padding is not None
        count, form = len(batch.decodes), self.form
        known = keys[batch.slots, :, : batch.longest]
        asked = queries.view(count, form.kv_heads, form.heads // form.kv_heads, form.kv_dim)
        scores = torch.matmul(asked, known.transpose(-1, -2)).float() * form.kv_dim**-0.5
        weights = torch.softmax(scores + batch.padding[:, None, None], dim=-1).to(queries.dtype)
        found = torch.matmul(weights, known if form.latent else values[batch.slots, :, : batch.longest])
        return found.reshape(count, -1)

    # -- experts -------------------------------------------------------------------------------------------------

    def gate(self, weight: Tensor, normed: Tensor) -> tuple[Tensor, Tensor]:
        """A layer-wise gate [E, d]: the chosen experts int64 [T, k] and their shares [T, k], adding up to 1."""
        scores = F.linear(normed, weight).float()
        best, chosen = scores.topk(self.shape.top_k, dim=-1)
        return chosen, best.softmax(dim=-1).to(normed.dtype)

    def looped(
        self, normed: Tensor, buffers: Sequence[Tensor], rows: Sequence[Tensor], shares: Sequence[Tensor], out: Tensor
    ) -> None:
        """Add experts to `out` [T, d], one after another.

        buffers: the flat weights of each; rows: int64 [n], which rows of `normed` [T, d] it gets; shares [n]: how much
        each of them counts.
        """
        for buffer, row, share in zip(buffers, rows, shares, strict=True):
            out.index_add_(0, row, ffn(normed[row], *self.expert.views(buffer)) * share[:, None])

    def grouped(self, normed: Tensor, pool: Tensor, ends: Tensor, rows: Tensor, shares: Tensor, out: Tensor) -> None:
        """The same in two grouped products over all slots of a pool [slots, weights of a key].

        rows int64 and shares [n] are sorted by slot; ends int32 [slots]: where each slot's rows end (empty slots repeat
        the end before them and cost no product).
        """
        inward, down = self.expert.stacked(pool)
        product = F.grouped_mm(normed[rows], inward.transpose(1, 2), offs=ends)
        found = F.grouped_mm(self.expert.bend(product), down.transpose(1, 2), offs=ends)
        out.index_add_(0, rows, found * shares[:, None])

    # -- a step --------------------------------------------------------------------------------------------------

    def embed(self, step: StepWeights, ids: Tensor) -> Tensor:
        """Rows [T, d] of the embedding."""
        return F.embedding(ids, step.embedding)

    def dense_layers(self, step: StepWeights, hidden: Tensor) -> Tensor:
        """FFNs of the layers without experts (their attention is not in it)."""
        for inward, down, norm in step.dense:
            hidden = hidden + ffn(F.rms_norm(hidden, hidden.shape[-1:], norm, self.eps), inward, down)
        return hidden

    def sample(self, step: StepWeights, hidden: Tensor) -> Tensor:
        """The likeliest next token int64 [n] after each of `hidden` [n, d]."""
        normed = F.rms_norm(hidden, hidden.shape[-1:], step.norm, self.eps)
        return F.linear(normed, step.head).argmax(dim=-1)


class Router:
    """A decoupled router with the sizes of Read-ME's (Table 1; `moesim.live.router`): a causal layer of its own.

    It keeps keys and values by slot, as the model does, so that requests come and go by themselves.
    """

    WIDTH, HEADS, MLP = 512, 4, 512

    def __init__(self, shape: ModelShape, slots: int, length: int, device: torch.device, seed: int = 0) -> None:
        self.shape = ModelShape(
            name="router", layers=1, d_model=self.WIDTH, expert_width=1, experts=shape.experts, top_k=shape.top_k,
            heads=self.HEADS, kv_heads=self.HEADS, head_dim=self.WIDTH // self.HEADS, vocab=shape.vocab,
            shared_expert_width=self.MLP, dense_bits=shape.dense_bits, expert_bits=shape.dense_bits,
            kv_bits=shape.dense_bits,
        )  # fmt: skip
        random = RandomWeights(self.shape, device, seed)
        self.layer = random.layer(gate=True)
        self.embedding, self.norm = random.matrix(shape.vocab, self.WIDTH), random.ones(self.WIDTH)
        self.pieces = Pieces(self.shape, length, random.dtype, device)
        self.cache = KVCache(self.shape, 1, slots, length, random.dtype, device)

    def route(self, ids: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Experts int64 [T, k] of the tokens `ids` [T], for all layers, and their shares [T, k]."""
        hidden = F.embedding(ids, self.embedding)
        queries, keys, values = self.pieces.project(self.layer, hidden, batch)
        self.cache.write(0, batch, keys, values)
        hidden, _ = self.pieces.output(self.layer, self.pieces.attend(batch, queries, self.cache, 0), hidden)
        assert self.layer.gate is not None
        return self.pieces.gate(self.layer.gate, F.rms_norm(hidden, hidden.shape[-1:], self.norm, EPS))


def ffn(hidden: Tensor, inward: Tensor, down: Tensor) -> Tensor:
    """SwiGLU where `inward` [2 w, d] stacks gate and up, else GELU; `down` is [d, w]."""
    product = F.linear(hidden, inward)
    if inward.shape[0] == 2 * down.shape[1]:
        gate, up = product.chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, down)
    return F.linear(F.gelu(product), down)


def turn(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding of `vectors` [T, heads, e], halves paired; an odd last value stays."""
    half = cos.shape[-1]
    first, second, rest = vectors.split([half, half, vectors.shape[-1] - 2 * half], dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin, rest), dim=-1)


def synchronize(device: torch.device) -> None:
    """Wait for the device; nothing on a CPU, which is done when a call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
