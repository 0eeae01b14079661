"""Fine-grained experts: each layer's FFN channels parted into a shared expert and clusters, with a gate in each layer.

The strongest channels are shared by all tokens; the others are parted by co-activation into experts of equal width, and
a linear gate names the experts whose channels carry most of a token's activation energy. This is the way of CMoE (Pei
et al. 2025, arXiv 2502.04416); the whole is the layer-wise twin of the domain experts, from the same dense model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moesim.live.deltas import LayerDeltas

SHARED = -1


@dataclass(frozen=True, slots=True)
class Partition:
    """`owner` int16 [layers, channels]: the expert that has a channel, or SHARED."""

    owner: np.ndarray

    @property
    def layers(self) -> int:
        return self.owner.shape[0]

    @property
    def experts(self) -> int:
        return int(self.owner.max()) + 1

    @property
    def width(self) -> int:
        """Channels of one routed expert in one layer."""
        return int((self.owner[0] == 0).sum())

    @property
    def shared_width(self) -> int:
        return int((self.owner[0] == SHARED).sum())

    def channels(self, expert: int, layer: int) -> Tensor:
        """int64: the channels of an expert, or of SHARED, in their order."""
        return torch.from_numpy(np.flatnonzero(self.owner[layer] == expert))

    def key_bytes(self, d_model: int, bytes_per_weight: int = 2) -> int:
        """Bytes of one layer of one routed expert: gate, up and down projections."""
        return 3 * self.width * d_model * bytes_per_weight


def widths(channels: int, experts: int, shared: float) -> tuple[int, int]:
    """(shared, routed) channels: about `shared` of all are shared, the rest is split evenly without remainder."""
    routed = (channels - round(shared * channels)) // experts
    return channels - experts * routed, routed


# ---- which channels go together


def part_layer(contribution: np.ndarray, experts: int, shared: float, seed: int) -> np.ndarray:
    """int16 [channels]: owner of each channel from `contribution` [tokens, channels], its magnitudes on a text."""
    channels = contribution.shape[1]
    kept, _ = widths(channels, experts, shared)
    order = np.argsort(-contribution.mean(axis=0), kind="stable")
    owner = np.full(channels, SHARED, np.int16)
    rest = np.sort(order[kept:])
    owner[rest] = balanced_clusters(contribution[:, rest], experts, seed)
    return owner


def balanced_clusters(columns: np.ndarray, count: int, seed: int, rounds: int = 12) -> np.ndarray:
    """int16 [columns]: k-means of the columns of [tokens, columns] by correlation, all clusters of one size."""
    centred = columns.astype(np.float32) - columns.mean(axis=0, dtype=np.float32)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=0), 1e-12)
    alike = unit.T @ unit  # correlations: all that k-means needs of the columns
    size = len(alike) // count
    members = _first_clusters(alike, count, np.random.default_rng(seed))
    for _ in range(rounds):
        chosen = np.eye(count, dtype=np.float32)[members]
        near = alike @ chosen
        near /= np.sqrt(np.maximum(np.einsum("ck,ck->k", chosen, near), 1e-12))
        moved = balanced_assignment(near, size)
        if np.array_equal(moved, members):
            break
        members = moved
    return members.astype(np.int16)


def _first_clusters(alike: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Seeds as k-means++ draws them, and each column with its nearest."""
    seeds = [int(random.integers(len(alike)))]
    for _ in range(count - 1):
        far = np.clip(1 - alike[seeds].max(axis=0), 0, None).astype(np.float64) ** 2
        far[seeds] = 0
        total = far.sum()
        free = np.setdiff1d(np.arange(len(alike)), seeds)
        seeds.append(int(random.choice(len(alike), p=far / total) if total > 0 else free[0]))
    return balanced_assignment(alike[:, seeds], len(alike) // count)


def balanced_assignment(value: np.ndarray, size: int) -> np.ndarray:
    """int64 [items]: a bin for each item of `value` [items, bins], `size` items a bin, of nearly the largest sum.

    Prices make full bins dear (the dual of the assignment problem); what they leave over goes by regret.
    """
    items, bins = value.shape
    price = np.zeros(bins)
    spread = float(value.std()) or 1.0
    for step in range(300):
        counts = np.bincount((value - price).argmax(axis=1), minlength=bins)
        if (counts == size).all():
            break
        price += spread * 0.5 / (1 + step / 10) * (counts - size) / size
    worth = value - price
    best = np.sort(worth, axis=1)
    order = np.argsort(best[:, -2] - best[:, -1], kind="stable") if bins > 1 else np.arange(items)
    room = np.full(bins, size)
    found = np.empty(items, np.int64)
    for item in order:
        found[item] = int(np.where(room > 0, worth[item], -np.inf).argmax())
        room[found[item]] -= 1
    return found


def energy_shares(contribution: np.ndarray, owner: np.ndarray, experts: int) -> np.ndarray:
    """float32 [tokens, experts]: the share of the routed energy (squared contributions) that each expert has."""
    member = np.eye(experts, dtype=np.float32)[np.maximum(owner, 0)] * (owner != SHARED)[:, None]
    energy: np.ndarray = np.square(contribution, dtype=np.float32) @ member
    return energy / np.maximum(energy.sum(axis=1, keepdims=True), 1e-12)


# ---- the MoE block


class Gate(nn.Module):
    """A linear gate: top-k of softmax(hidden @ weight.T), `weight` [experts, d].

    A chosen expert is weighted by 1 + p * scale, p being its probability and `scale` [experts] being zero until it is
    tuned: the untuned experts are slices of one FFN, so that each must enter with weight 1, and renormalised weights
    (Mixtral) would halve them. (CMoE, section on differentiable routing.)
    """

    def __init__(self, weight: Tensor, scale: Tensor, k: int) -> None:
        super().__init__()
        self.weight, self.scale, self.k = nn.Parameter(weight), nn.Parameter(scale), k

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(logits [tokens, experts], weights [tokens, k], experts [tokens, k]), best first."""
        logits = F.linear(hidden, self.weight)
        best = logits.float().softmax(dim=-1).topk(self.k, dim=-1)
        return logits, 1 + best.values * self.scale[best.indices], best.indices


class Experts(nn.Module):
    """Routed experts as two stacked tensors: gate_up_proj [experts, 2 width, d] and down_proj [experts, d, width]."""

    def __init__(self, dense: Any, channels: list[Tensor]) -> None:
        super().__init__()
        gate, up, down = (getattr(dense, name).weight.detach() for name in ("gate_proj", "up_proj", "down_proj"))
        self.gate_up_proj = nn.Parameter(torch.stack([torch.cat([gate[mine], up[mine]]) for mine in channels]))
        self.down_proj = nn.Parameter(torch.stack([down[:, mine] for mine in channels]))
        self.num_experts, self.act_fn = len(channels), dense.act_fn

    def forward(self, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """[tokens, d]: the weighted sum of the chosen experts; indices and weights are [tokens, k]."""
        out = torch.zeros_like(hidden)
        for expert in top_k_index.unique().tolist():
            token, place = torch.where(top_k_index == expert)
            gate, up = F.linear(hidden[token], self.gate_up_proj[expert]).chunk(2, dim=-1)
            part = F.linear(self.act_fn(gate) * up, self.down_proj[expert])
            out.index_add_(0, token, (part * top_k_weights[token, place, None]).to(out.dtype))
        return out


class FineGrainedBlock(nn.Module):
    """Shared expert plus the k routed experts that `gate` names, in the place of a dense FFN."""

    def __init__(self, dense: Any, partition: Partition, layer: int, gate: Gate) -> None:
        super().__init__()
        owned = [partition.channels(expert, layer) for expert in range(partition.experts)]
        self.gate, self.experts = gate, Experts(dense, owned)
        self.shared = Experts(dense, [partition.channels(SHARED, layer)])

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.reshape(-1, x.shape[-1])
        _, weights, chosen = self.gate(hidden)
        routed = self.experts(hidden, chosen, weights)
        always = torch.zeros_like(chosen[:, :1])
        shared: Tensor = self.shared(hidden, always, torch.ones_like(weights[:, :1]))
        return (routed + shared).view_as(x)


class TuningFFN(nn.Module):
    """The same block as a dense FFN with silenced channels and low-rank deltas: the form in which it is tuned."""

    def __init__(self, dense: Any, partition: Partition, layer: int, gate: Gate, deltas: LayerDeltas | None) -> None:
        super().__init__()
        self.dense, self.gate, self.deltas = dense, gate, deltas
        owner = torch.from_numpy(partition.owner[layer].astype(np.int64))
        self.member: Tensor
        self.register_buffer("member", F.one_hot(owner + 1, partition.experts + 1).float().T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        ffn = self.dense
        _, weights, chosen = self.gate(x.flatten(0, 1))
        share = torch.zeros(len(chosen), len(self.member), device=x.device)
        share = torch.cat([torch.ones_like(share[:, :1]), share[:, 1:].scatter(1, chosen, weights.float())], dim=1)
        gate, up = ffn.gate_proj(x), ffn.up_proj(x)
        if self.deltas is not None:
            gate, up = gate + self.deltas["gate_proj"](x), up + self.deltas["up_proj"](x)
        inner = ffn.act_fn(gate) * up
        inner = inner * (share @ self.member).view(inner.shape).to(inner.dtype)
        out: Tensor = ffn.down_proj(inner)
        return out if self.deltas is None else out + self.deltas["down_proj"](inner)
