"""From a dense model to domain experts and their router (Read-ME): every method is a stage of the work folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from moesim.live.deltas import reach_of
from moesim.live.dense import Dense
from moesim.live.distill import Example, OverlapMeter, PublishedMeter, batch_loss, domain_weights, soft_labels
from moesim.live.domains import DomainModel
from moesim.live.experts import ExpertSet, build_experts, channel_strength, watch_channels
from moesim.live.fit import Phase, fit
from moesim.live.passages import Passage
from moesim.live.router import RouterConfig, new_router
from moesim.live.settings import RefactorConfig
from moesim.live.stages import Arrays, Stages
from moesim.live.texts import Texts
from moesim.live.tuning import LanguageLoss, named, new_deltas, order, padded

LABEL_CHUNK = 16


@dataclass(frozen=True, slots=True)
class DomainJob:
    config: RefactorConfig
    dense: Dense
    texts: Texts
    stages: Stages

    def experts(self) -> ExpertSet:
        """Masks from the first `calibration` training texts of each domain."""

        def make() -> Arrays:
            strengths = []
            for name, passages in zip(self.texts.domains, self.texts.train, strict=True):
                texts = [tensor(passage) for passage in passages[: self.config.calibration]]
                strengths.append(channel_strength(self.dense.model, texts))
                self.stages.say(f"channels of {name}")
            return {"masks": build_experts(torch.stack(strengths), self.config.share).masks.numpy()}

        return ExpertSet(torch.from_numpy(self.stages.get("experts", make)["masks"]))

    def examples(self, experts: ExpertSet) -> list[Example]:
        """Labelled training texts; the overlaps of 16 texts are one stage."""
        found = []
        for domain, passages in enumerate(self.texts.train):
            for at in range(0, len(passages), LABEL_CHUNK):
                part = passages[at : at + LABEL_CHUNK]
                kept = self.stages.get(f"labels-{domain}-{at:04d}", partial(self._overlaps, experts, part))
                overlaps = torch.from_numpy(kept["overlaps"])
                target = soft_labels(overlaps) if self.config.label == "overlap" else overlaps
                parts = target.split([len(passage.ids) for passage in part])
                found += [Example(tensor(p), t, domain) for p, t in zip(part, parts, strict=True)]
        return found

    @torch.no_grad()
    def _overlaps(self, experts: ExpertSet, passages: Sequence[Passage]) -> Arrays:
        meter = OverlapMeter(experts) if self.config.label == "overlap" else PublishedMeter(experts)
        parts = []
        with watch_channels(self.dense.model, meter.watch):
            for passage in passages:
                self.dense.model.model(tensor(passage)[None].to(self.dense.model.device), use_cache=False)
                parts.append(meter.read()[0].cpu())
        return {"overlaps": torch.cat(parts).numpy()}

    def train(self) -> tuple[DomainModel, dict[str, list[list[float]]]]:
        """The model with its trained router and deltas, and the losses by round: router and experts in turns."""
        config = self.config
        experts = self.experts()
        examples = self.examples(experts)
        embedding = self.dense.model.model.embed_tokens.weight
        sizes = RouterConfig(
            embedding.shape[0], experts.experts, config.router_width, config.router_heads, config.router_mlp
        )
        model = DomainModel(self.dense.model, new_router(sizes, embedding, config.seed), experts)
        if config.tune == "deltas":
            add_deltas(model, config)
        history: dict[str, list[list[float]]] = {"router": [], "experts": []}
        for round_ in range(config.rounds):
            history["router"].append(self._router_round(model, examples, round_))
            if config.tune != "nothing":
                history["experts"].append(self._expert_round(model, round_))
        model.requires_grad_(False)
        return model.eval(), history

    def _router_round(self, model: DomainModel, examples: list[Example], round_: int) -> list[float]:
        config, weights = self.config, domain_weights(examples)
        model.requires_grad_(False)
        parameters = named([model.router], "router")

        def loss_of(step: int) -> Tensor:
            chosen = order(len(examples), config.router_batch, step, (config.seed, 10, round_))
            return batch_loss(model.router, [examples[index] for index in chosen], weights)

        rate = config.router_rate * config.rate_decay**round_
        return fit(Phase(f"router-{round_}", config.router_steps, rate), parameters, loss_of, self.stages)

    def _expert_round(self, model: DomainModel, round_: int) -> list[float]:
        config, device = self.config, self.dense.model.device
        model.requires_grad_(False)
        if config.tune == "deltas":
            parameters = named([ffn.deltas for ffn in model.ffns if ffn.deltas is not None], "deltas")
        else:
            parameters = named([ffn.dense for ffn in model.ffns], "ffn")
        texts = [tensor(passage) for passages in self.texts.train for passage in passages]
        loss = LanguageLoss(self.dense.model, config.precision)

        def loss_of(step: int) -> Tensor:
            chosen = order(len(texts), config.expert_batch, step, (config.seed, 11, round_))
            ids, valid = padded([texts[index] for index in chosen], device)
            with torch.no_grad():
                choice = model.router(ids).argmax(dim=-1)
            with model.routed(choice):
                return loss(ids, valid)

        rate = config.expert_rate * config.rate_decay**round_
        phase = Phase(f"experts-{round_}", config.expert_steps, rate, decay=0.0 if config.tune == "deltas" else 0.01)
        return fit(phase, parameters, loss_of, self.stages)


def add_deltas(model: DomainModel, config: RefactorConfig) -> None:
    """New deltas in all layers."""
    experts = model.ffns[0].masks.shape[0]
    reach = reach_of(experts, config.rank, config.shared_rank) if config.rank else None
    device = model.dense.device
    for ffn, deltas in zip(model.ffns, new_deltas(config, experts, model.config), strict=True):
        ffn.deltas = deltas.to(device)
        ffn.reach = None if reach is None else reach.to(device)


def tensor(passage: Passage) -> Tensor:
    return torch.from_numpy(passage.ids.astype(np.int64))
