"""Low-rank deltas of FFN projections: W + up @ down, of ranks that all experts share and ranks of one expert each."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


class LowRank(nn.Module):
    """x [..., inputs] -> [..., outputs] through `ranks` dimensions; `reach` [..., ranks] is 1 where a token uses one.

    `up` starts at zero, so that a new delta changes nothing.
    """

    def __init__(self, inputs: int, outputs: int, ranks: int, random: torch.Generator | None = None) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.randn(ranks, inputs, generator=random) / math.sqrt(inputs))
        self.up = nn.Parameter(torch.zeros(outputs, ranks))

    def forward(self, x: Tensor, reach: Tensor | None = None) -> Tensor:
        inner = F.linear(x, self.down)
        return F.linear(inner if reach is None else inner * reach.to(inner.dtype), self.up)


def reach_of(experts: int, rank: int, shared_rank: int) -> Tensor:
    """float32 [experts, shared_rank + experts * rank]: which ranks each expert uses, the shared ones first."""
    own = torch.eye(experts).repeat_interleave(rank, dim=1)
    return torch.cat([torch.ones(experts, shared_rank), own], dim=1)


class LayerDeltas(nn.ModuleDict):
    """The deltas of one layer's three projections."""

    def __init__(self, d_model: int, channels: int, ranks: int, random: torch.Generator | None = None) -> None:
        sizes = {"gate_proj": (d_model, channels), "up_proj": (d_model, channels), "down_proj": (channels, d_model)}
        super().__init__({name: LowRank(*sizes[name], ranks, random) for name in PROJECTIONS})
