"""Weights of a shape: how a layer's, an expert's and a step's are laid out, and random ones.

An expert's weights are one flat buffer of `key_bytes` bytes - what a link copies - that a product sees as matrices. In
it stand the matrices that lead inward (gate above up, [2 w, d]; without a gate only up, [w, d]), then down [d, w].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from moesim.errors import InputError, Problem
from moesim.hardware.shape import ModelShape

DRAWN = 999_983
DTYPES = {16.0: torch.bfloat16, 32.0: torch.float32}


def dtype_of(shape: ModelShape) -> torch.dtype:
    """The numbers that a shape is computed in. Raises InputError where no product here takes them."""
    wrong = [
        Problem(f"{shape.name}: {name}", f"is {bits:g}; products here take {known} bits in every weight and KV value")
        for name in ("dense_bits", "expert_bits", "kv_bits")
        if (bits := getattr(shape, name)) not in DTYPES or bits != shape.dense_bits
        for known in [" or ".join(f"{bits:g}" for bits in DTYPES)]
    ]
    if shape.expert_matrices not in (2, 3):
        wrong.append(Problem(f"{shape.name}: expert_matrices", f"is {shape.expert_matrices}; experts here have 2 or 3"))
    if shape.key_sizes:
        wrong.append(Problem(f"{shape.name}: key_sizes", "experts of several sizes are not run here"))
    if wrong:
        raise InputError(wrong)
    return DTYPES[shape.dense_bits]


@dataclass(frozen=True, slots=True)
class AttentionForm:
    """Heads and widths of a shape's attention. `latent`: keys and values are one compressed vector for all heads."""

    heads: int
    head_dim: int
    kv_heads: int
    kv_dim: int
    outward_width: int
    """what the output projection takes: heads x head_dim, or what latent attention's weights leave for it"""
    latent: bool

    @property
    def kv_width(self) -> int:
        return self.kv_heads * self.kv_dim

    @property
    def value_width(self) -> int:
        return 0 if self.latent else self.kv_width

    @property
    def inward_width(self) -> int:
        return self.heads * self.head_dim + self.kv_width + self.value_width

    @property
    def grouped(self) -> bool:
        return self.kv_heads != self.heads


def attention_form(shape: ModelShape) -> AttentionForm:
    """As the shape has it.

    Latent attention (`kv_values`) is run absorbed: all heads over one compressed vector a token, and as many weights in
    projections as the shape's `attention_parameters`.
    """
    width = shape.heads * shape.head_dim
    if not shape.kv_values:
        return AttentionForm(shape.heads, shape.head_dim, shape.kv_heads, shape.head_dim, width, False)
    left = shape.attention_weights // shape.d_model - width - shape.kv_values
    outward = min(max(left, 1), shape.heads * shape.kv_values)
    return AttentionForm(shape.heads, shape.head_dim, 1, shape.kv_values, outward, True)


@dataclass(frozen=True, slots=True)
class ExpertForm:
    """How the matrices of an expert lie in its flat buffer."""

    d_model: int
    width: int
    gated: bool

    @classmethod
    def of(cls, shape: ModelShape) -> ExpertForm:
        return cls(shape.d_model, shape.expert_width, shape.expert_matrices == 3)

    @property
    def inward_rows(self) -> int:
        return self.width * (2 if self.gated else 1)

    @property
    def weights(self) -> int:
        """Numbers in a buffer."""
        return (self.inward_rows + self.width) * self.d_model

    def views(self, buffer: Tensor) -> tuple[Tensor, Tensor]:
        """`inward` [2 w or w, d] and `down` [d, w] of one flat buffer [weights]; no copies."""
        cut = self.inward_rows * self.d_model
        return buffer[:cut].view(self.inward_rows, self.d_model), buffer[cut:].view(self.d_model, self.width)

    def stacked(self, pool: Tensor) -> tuple[Tensor, Tensor]:
        """The same of a pool [slots, weights]: [slots, 2 w or w, d] and [slots, d, w]; no copies."""
        cut, slots = self.inward_rows * self.d_model, pool.shape[0]
        inward, down = pool[:, :cut], pool[:, cut:]
        return inward.view(slots, self.inward_rows, self.d_model), down.view(slots, self.d_model, self.width)

    def bend(self, product: Tensor) -> Tensor:
        """What stands between the two products."""
        if not self.gated:
            return F.gelu(product)
        gate, up = product.chunk(2, dim=-1)
        return F.silu(gate) * up


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One layer without its experts. inward [H e + 2 G e, d]; outward [d, H e]; shared: (inward, down); gate [E, d]."""

    attention_norm: Tensor
    inward: Tensor
    outward: Tensor
    ffn_norm: Tensor
    shared: tuple[Tensor, Tensor] | None
    gate: Tensor | None


@dataclass(frozen=True, slots=True)
class StepWeights:
    """What a step uses once. embedding and head [vocab, d]; dense: (inward, down, norm) of layers without experts."""

    embedding: Tensor
    head: Tensor
    norm: Tensor
    dense: tuple[tuple[Tensor, Tensor, Tensor], ...]


def repeat_normal(tensor: Tensor, random: torch.Generator | None = None) -> None:
    """Fill a contiguous tensor with `DRAWN` normal numbers again and again: drawing each takes a minute for a layer of
    a large model, and rows differ all the same, as the number is a prime."""
    flat = tensor.view(-1)
    drawn = torch.empty(min(DRAWN, len(flat)), dtype=tensor.dtype, device=tensor.device).normal_(generator=random)
    for part in flat.split(DRAWN):
        part.copy_(drawn[: len(part)])


class RandomWeights:
    """Random weights of a shape, reproducible on one device; as small as those of a model that starts to learn."""

    def __init__(self, shape: ModelShape, device: torch.device, seed: int = 0) -> None:
        self.shape, self.device, self.dtype = shape, device, dtype_of(shape)
        self._random = torch.Generator(device=device).manual_seed(seed)

    def matrix(self, rows: int, columns: int) -> Tensor:
        """[rows, columns], normal, of deviation 1 / sqrt(columns)."""
        return self._filled((rows, columns), columns**-0.5)

    def ones(self, size: int) -> Tensor:
        return torch.ones(size, dtype=self.dtype, device=self.device)

    def layer(self, *, gate: bool) -> LayerWeights:
        shape, form, d = self.shape, attention_form(self.shape), self.shape.d_model
        shared = self.pair(shape.shared_expert_width) if shape.shared_expert_width else None
        chosen = self.matrix(shape.experts, d) if gate else None
        inward, outward = self.matrix(form.inward_width, d), self.matrix(d, form.outward_width)
        return LayerWeights(self.ones(d), inward, outward, self.ones(d), shared, chosen)

    def pair(self, width: int) -> tuple[Tensor, Tensor]:
        """Inward and down matrices of an FFN of that width."""
        rows = width * (2 if self.shape.expert_matrices == 3 else 1)
        return self.matrix(rows, self.shape.d_model), self.matrix(self.shape.d_model, width)

    def experts(self, count: int) -> Tensor:
        """[count, weights of a key]: flat buffers of `count` experts."""
        form = ExpertForm.of(self.shape)
        return self._filled((count, form.weights), self.shape.d_model**-0.5)

    def _filled(self, size: tuple[int, ...], deviation: float) -> Tensor:
        made = torch.empty(size, dtype=self.dtype, device=self.device)
        repeat_normal(made, self._random)
        return made.mul_(deviation)

    def step(self) -> StepWeights:
        shape = self.shape
        embedding = self.matrix(shape.vocab, shape.d_model)
        head = embedding if shape.tied_embeddings else self.matrix(shape.vocab, shape.d_model)
        dense = tuple((*self.pair(shape.dense_width), self.ones(shape.d_model)) for _ in range(shape.dense_layers))
        return StepWeights(embedding, head, self.ones(shape.d_model), dense)
