"""What a capture measured: the router's agreement with truth and label, persistence, losses by who routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from moesim.live.corpus import DOMAINS
from moesim.live.distill import OverlapMeter
from moesim.live.experts import watch_channels
from moesim.live.refactor import RoutedModel
from moesim.trace.info import LAGS, persistence, shares
from moesim.trace.routing import RoutingTrace

BUCKETS = ((0, 16), (16, 64), (64, 256), (256, 1024), (1024, None))
PAPER = "2921 of 4096 tokens repeat the previous choice (Read-ME, 5.3: .713)"


def routing_report(trace: RoutingTrace, oracle: np.ndarray) -> dict[str, Any]:
    """Statistics of a decoupled top-1 trace; `oracle` int16 [tokens] is the expert of the largest overlap."""
    choice = trace.experts[:, 0, 0]
    lengths = trace.lengths
    truth = np.repeat([DOMAINS.index(domain) for domain in trace.domains], lengths)
    position = np.arange(trace.tokens) - np.repeat(trace.offsets[:-1], lengths)
    output = position >= np.repeat(trace.prompt_tokens, lengths)
    same = {"true_domain": choice == truth, "oracle_label": choice == oracle}
    return {
        "experts": list(DOMAINS),
        "agreement": {name: _agreement(hit, position, output, truth) for name, hit in same.items()},
        "oracle_label_is_true_domain": _mean(oracle == truth),
        "shares": _rounded(shares(trace.experts, trace.meta.experts)),
        "shares_of_oracle_label": _rounded(shares(oracle, trace.meta.experts)),
        "confusion": [_rounded(shares(choice[truth == row], trace.meta.experts)) for row in range(len(DOMAINS))],
        "persistence": {
            "router": _persistence(trace.experts, trace.offsets),
            "oracle_label": _persistence(oracle[:, None, None], trace.offsets),
            "router_by_position": _persistence_by_position(choice, position),
            "router_in_outputs": _mean((choice[1:] == choice[:-1])[output[1:]]),
            "paper": PAPER,
        },
        "experts_touched_by_a_prompt": _touched(trace),
    }


def _agreement(hit: np.ndarray, position: np.ndarray, output: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    return {
        "all": _mean(hit),
        "prompt": _mean(hit[~output]),
        "output": _mean(hit[output]),
        "by_position": {_name(low, high): _mean(hit[_within(position, low, high)]) for low, high in BUCKETS},
        "by_domain": {name: _mean(hit[truth == index]) for index, name in enumerate(DOMAINS)},
    }


def _persistence(experts: np.ndarray, offsets: np.ndarray) -> dict[str, float | None]:
    found = {str(lag): persistence(experts, offsets, lag) for lag in LAGS}
    return {lag: None if value is None else round(value, 4) for lag, value in found.items()}


def _persistence_by_position(choice: np.ndarray, position: np.ndarray) -> dict[str, float | None]:
    same = choice[1:] == choice[:-1]
    return {_name(low, high): _mean(same[_within(position[1:], max(low, 1), high)]) for low, high in BUCKETS}


def _touched(trace: RoutingTrace) -> dict[str, float | None]:
    """Mean number of different experts in the first tokens of those prompts that are as long."""
    ends = {}
    for size in (16, 64, 256, 512):
        starts = trace.offsets[:-1][trace.prompt_tokens >= size]
        counts = [len(np.unique(trace.experts[start : start + size])) for start in starts]
        ends[str(size)] = round(float(np.mean(counts)), 3) if counts else None
    return ends


def _within(position: np.ndarray, low: int, high: int | None) -> np.ndarray:
    return (position >= low) & (position < (high or np.inf))


def _name(low: int, high: int | None) -> str:
    return f"{low}-{high - 1}" if high else f"{low}-"


def _mean(values: np.ndarray) -> float | None:
    return round(float(values.mean()), 4) if len(values) else None


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 4) for value in values]


# ---- losses


@torch.no_grad()
def losses(model: RoutedModel, texts: Sequence[Tensor], own: int, random: torch.Generator) -> dict[str, float]:
    """Mean loss (nats per token) over `texts` of the domain of expert `own`, by who routes."""
    total: dict[str, list[Tensor]] = {}
    for ids in texts:
        batch = ids[None]
        dense, overlaps = _dense(model, batch)
        total.setdefault("dense", []).append(_loss(dense, batch))
        shape = batch.shape
        choices = {
            "oracle_label": overlaps.argmax(dim=-1),
            "router": None,
            "own_domain": torch.full(shape, own),
            "random_expert": torch.randint(model.experts.experts, shape, generator=random),
        }
        for name, choice in choices.items():
            total.setdefault(name, []).append(_loss(model(batch, choice=choice), batch))
    return {name: round(float(torch.cat(parts).mean()), 4) for name, parts in total.items()}


def _dense(model: RoutedModel, batch: Tensor) -> tuple[Tensor, Tensor]:
    meter = OverlapMeter(model.experts)
    with watch_channels(model.dense, meter.watch):
        logits: Tensor = model.dense(batch, use_cache=False).logits
    return logits, meter.read()


def _loss(logits: Tensor, batch: Tensor) -> Tensor:
    return F.cross_entropy(logits[0, :-1], batch[0, 1:], reduction="none")
