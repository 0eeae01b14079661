"""What a refactorized model loses, and how it routes, on held-out text: the figures behind the report.

Losses are means over all next tokens of a domain's texts, in nats. They run in the precision of the tuning.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moesim.live.dense import Dense
from moesim.live.distill import OverlapMeter
from moesim.live.domain_job import tensor
from moesim.live.domains import DomainModel
from moesim.live.experts import ExpertSet, watch_channels
from moesim.live.fine_grained import FineGrainedBlock, Gate
from moesim.live.settings import RefactorConfig
from moesim.live.stages import Arrays, Stages
from moesim.live.texts import Texts
from moesim.live.tuning import LanguageLoss, padded
from moesim.trace.info import LAGS, persistence, shares

PAPER = "2921 of 4096 tokens repeat the previous choice (Read-ME, 5.3: .713)"
PAPER_INFORMATION = "Read-ME, Fig. 2b, only drawn"


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Texts of one domain: `ids` and `valid` [texts, longest], padded on the right."""

    ids: Tensor
    valid: Tensor

    @property
    def lengths(self) -> list[int]:
        return [int(n) for n in self.valid.sum(dim=1)]


def held_out(texts: Texts, domain: int, config: RefactorConfig, device: torch.device) -> HeldOut:
    """The longest prompts of a domain, cut."""
    mine = [tensor(p)[: config.report_length] for p in texts.held_out(domain, config.report_texts)]
    return HeldOut(*padded(mine, device))


# ---- scheme domains


@torch.no_grad()
def measure_domain(
    model: DomainModel,
    experts: ExpertSet,
    held: HeldOut,
    own: int,
    config: RefactorConfig,
    before: Mapping[str, Tensor],
) -> Arrays:
    """Losses on one domain by who routes, and the router's and the label's choices of its tokens.

    `before`: the FFN weights that were there before they were tuned, by layer and projection; none where deltas were.
    """
    loss = LanguageLoss(model.dense, config.precision)

    def of(choice: Tensor | None) -> float:
        with model.routed(choice):
            return float(loss(held.ids, held.valid))

    meter, choice = OverlapMeter(experts), model.router(held.ids).argmax(dim=-1)
    with _untuned(model, before):
        with watch_channels(model.dense, lambda layer, inner: meter.watch(layer, inner.float())):
            dense = of(None)
        untuned = of(choice)
    label = meter.read().argmax(dim=-1).to(held.ids.device)
    count = experts.experts
    random = torch.Generator().manual_seed(config.seed * 100_003 + own)
    chance = torch.randint(count, held.ids.shape, generator=random).to(held.ids.device)
    found = {
        "dense": dense,
        "routed": of(choice),
        "routed_untuned": untuned,
        "oracle_label": of(label),
        "random_expert": of(chance),
    }
    for expert in range(count):
        found[f"expert_{expert}"] = of(torch.full_like(choice, expert))
    return {
        **{name: np.array(value) for name, value in found.items()},
        "choice": choice[held.valid].cpu().numpy().astype(np.int16),
        "label": label[held.valid].cpu().numpy().astype(np.int16),
        "lengths": np.array(held.lengths),
    }


@contextmanager
def _untuned(model: DomainModel, before: Mapping[str, Tensor]) -> Iterator[None]:
    kept = [ffn.deltas for ffn in model.ffns]
    weights = {name: getattr(model.ffns[int(layer)].dense, part).weight
               for name in before for layer, part in [name.split(".")]}  # fmt: skip
    tuned = {name: weight.detach().clone() for name, weight in weights.items()}
    for ffn in model.ffns:
        ffn.deltas = None
    for name, weight in weights.items():
        weight.data.copy_(before[name])
    try:
        yield
    finally:
        for name, weight in weights.items():
            weight.data.copy_(tuned[name])
        for ffn, deltas in zip(model.ffns, kept, strict=True):
            ffn.deltas = deltas


def domain_report(
    model: DomainModel,
    experts: ExpertSet,
    texts: Texts,
    config: RefactorConfig,
    stages: Stages,
    before: Mapping[str, Tensor],
) -> Any:
    """The report of scheme domains; a domain is a stage. `before`: as of `measure_domain`."""
    found = []
    for index in range(len(texts.domains)):
        held = held_out(texts, index, config, model.dense.device)
        found.append(
            stages.get(f"quality-{index}", lambda h=held, i=index: measure_domain(model, experts, h, i, config, before))  # type: ignore[misc]
        )
    names = texts.domains
    kinds = ["dense", "routed", "routed_untuned", "oracle_label", "random_expert"]
    losses = {name: {kind: float(part[kind]) for kind in kinds} for name, part in zip(names, found, strict=True)}
    for index, (row, part) in enumerate(zip(losses.values(), found, strict=True)):
        row["own_expert"] = float(part[f"expert_{index}"])
    choice, label = (np.concatenate([part[key] for part in found]) for key in ("choice", "label"))
    truth = np.repeat(np.arange(len(names)), [len(part["choice"]) for part in found])
    offsets = np.cumsum([0, *(int(n) for part in found for n in part["lengths"])])
    return {
        **_common(losses, found, names, config),
        "matrix": [[_round(part[f"expert_{e}"]) for e in range(experts.experts)] for part in found],
        "own_expert_is_best": [
            bool(np.argmin([part[f"expert_{e}"] for e in range(experts.experts)]) == i) for i, part in enumerate(found)
        ],
        "agreement": {
            "oracle_label": _agreement(choice == label, truth, names),
            "true_domain": _agreement(choice == truth, truth, names),
            "oracle_label_is_true_domain": _agreement(label == truth, truth, names),
        },
        "shares": [_round(v) for v in shares(choice[:, None, None], experts.experts)],
        "confusion": [[_round(v) for v in shares(choice[truth == i], experts.experts)] for i in range(len(names))],
        "repeats": {"router": _repeats(choice, offsets), "oracle_label": _repeats(label, offsets), "paper": PAPER},
        "permanent_share": _round(experts.permanent.float().mean()),
        "common_share": _common_share(experts),
    }


def _common_share(experts: ExpertSet) -> list[list[float]]:
    masks = experts.masks.float().flatten(1)
    return [[_round(value, 3) for value in row] for row in (masks @ masks.T) / masks.sum(dim=1)]


# ---- scheme fine-grained


class RandomGate(nn.Module):
    """k different experts by chance, each with the weight of an expert of mean probability."""

    def __init__(self, gate: Gate, random: torch.Generator) -> None:
        super().__init__()
        self._gate, self._random = gate, random

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        count = len(self._gate.weight)
        logits = torch.rand(len(hidden), count, generator=self._random).to(hidden.device)
        chosen = logits.topk(self._gate.k, dim=-1).indices
        return logits, 1 + self._gate.scale[chosen] / count, chosen


@torch.no_grad()
def measure(dense: Dense, held: HeldOut, config: RefactorConfig) -> float:
    """Mean loss of a model as it stands."""
    return float(LanguageLoss(dense.model, config.precision)(held.ids, held.valid))


@torch.no_grad()
def measure_fine_grained(dense: Dense, held: HeldOut, own: int, config: RefactorConfig) -> Arrays:
    """Losses on one domain of the model whose FFNs are `FineGrainedBlock`s, and the choices [tokens, layers, k]."""
    blocks: list[FineGrainedBlock] = [block.mlp for block in dense.model.model.layers]
    chosen: list[Tensor] = []
    handles = [b.gate.register_forward_hook(lambda module, args, out: chosen.append(out[2])) for b in blocks]
    found = {"routed": measure(dense, held, config)}
    for handle in handles:
        handle.remove()
    choices = torch.stack(chosen, dim=1)[held.valid.flatten()]
    random = torch.Generator().manual_seed(config.seed * 100_003 + own)
    gates = [block.gate for block in blocks]
    for block, gate in zip(blocks, gates, strict=True):
        block.register_module("gate", RandomGate(gate, random))
    found["random_expert"] = measure(dense, held, config)
    for block, gate in zip(blocks, gates, strict=True):
        block.gate = gate
    return {
        **{name: np.array(value) for name, value in found.items()},
        "choice": choices.cpu().numpy().astype(np.int16),
        "lengths": np.array(held.lengths),
    }


def losses_of(name: str, dense: Dense, texts: Texts, config: RefactorConfig, stages: Stages) -> list[float]:
    """Loss of each domain by a model as it stands; one stage."""

    def make() -> Arrays:
        device = dense.model.device
        values = [measure(dense, held_out(texts, i, config, device), config) for i in range(len(texts.domains))]
        return {"losses": np.array(values)}

    return [float(value) for value in stages.get(name, make)["losses"]]


def fine_grained_report(
    dense: Dense, before: dict[str, list[float]], texts: Texts, config: RefactorConfig, stages: Stages
) -> Any:
    """The report of scheme fine-grained; `before` has the losses by domain of the dense and of the untuned model."""
    found = []
    for index in range(len(texts.domains)):
        held = held_out(texts, index, config, dense.model.device)
        found.append(
            stages.get(f"quality-{index}", lambda h=held, i=index: measure_fine_grained(dense, h, i, config))  # type: ignore[misc]
        )
    names = texts.domains
    losses = {
        name: {
            **{kind: values[i] for kind, values in before.items()},
            **{kind: float(found[i][kind]) for kind in ("routed", "random_expert")},
        }
        for i, name in enumerate(names)
    }
    choice = np.concatenate([part["choice"] for part in found])
    offsets = np.cumsum([0, *(int(n) for part in found for n in part["lengths"])])
    layers = range(choice.shape[1])
    return {
        **_common(losses, found, names, config),
        "shares": [[_round(v) for v in shares(choice[:, layer : layer + 1], config.experts)] for layer in layers],
        "repeats": {"gates": _repeats(choice, offsets), "paper": PAPER},
        "information": information_report(choice[:, :, 0], config.experts),
    }


def information_report(best: np.ndarray, experts: int) -> dict[str, Any]:
    """Mutual information (bits) of the best experts [tokens, layers] of neighbouring layers, and their entropies."""
    pairs = [mutual_information(best[:, at], best[:, at + 1], experts) for at in range(best.shape[1] - 1)]
    own = [mutual_information(best[:, at], best[:, at], experts) for at in range(best.shape[1])]
    return {
        "neighbours": [_round(value) for value in pairs],
        "mean": _round(np.mean(pairs)) if pairs else None,
        "entropy": [_round(value) for value in own],
        "mean_entropy": _round(np.mean(own)),
        "tokens": len(best),
        "paper": PAPER_INFORMATION,
    }


def mutual_information(one: np.ndarray, other: np.ndarray, experts: int) -> float:
    """Bits that one choice tells about the other, from their counts (plug-in; its bias is (experts-1)^2 / 2n ln 2)."""
    joint = np.bincount(one.astype(np.int64) * experts + other, minlength=experts * experts).reshape(experts, experts)
    p = joint / max(joint.sum(), 1)
    apart = p.sum(axis=1, keepdims=True) * p.sum(axis=0, keepdims=True)
    used = p > 0
    return float((p[used] * np.log2(p[used] / apart[used])).sum())


# ---- both


def _common(losses: dict[str, dict[str, float]], found: Sequence[Arrays], names: Sequence[str], config: Any) -> Any:
    rows = {name: {kind: _round(value) for kind, value in row.items()} for name, row in losses.items()}
    kinds = list(next(iter(losses.values())))
    mean = {kind: float(np.mean([row[kind] for row in losses.values()])) for kind in kinds}
    return {
        "held_out": {
            name: {"texts": len(part["lengths"]), "tokens": int(part["lengths"].sum())}
            for name, part in zip(names, found, strict=True)
        },
        "precision": config.precision,
        "loss": {**rows, "mean": {kind: _round(value) for kind, value in mean.items()}},
        "perplexity": {
            name: {kind: _round(np.exp(value), 2) for kind, value in row.items()}
            for name, row in {**losses, "mean": mean}.items()
        },
        "routed_beats_random": {name: bool(row["routed"] < row["random_expert"]) for name, row in losses.items()},
    }


def _agreement(hit: np.ndarray, truth: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    return {"all": _round(hit.mean()), "by_domain": {n: _round(hit[truth == i].mean()) for i, n in enumerate(names)}}


def _repeats(choice: np.ndarray, offsets: np.ndarray) -> dict[str, float | None]:
    shaped = choice[:, None, None] if choice.ndim == 1 else choice
    found = {str(lag): persistence(shaped, offsets, lag) for lag in LAGS}
    return {lag: None if value is None else _round(value) for lag, value in found.items()}


def _round(value: Any, digits: int = 4) -> float:
    return round(float(value), digits)
