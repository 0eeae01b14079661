"""The stages from a dense model to a routing trace: experts, labels, router, generation under the tracer, losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moesim.live.corpus import DOMAINS
from moesim.live.dense import Dense
from moesim.live.distill import Example, OverlapMeter, TrainConfig, train
from moesim.live.experts import ExpertSet, build_experts, channel_strength, watch_channels
from moesim.live.generate import Sampler, generate
from moesim.live.passages import Passage, output_lengths
from moesim.live.refactor import RoutedModel
from moesim.live.report import losses
from moesim.live.router import PreGatingRouter, RouterConfig, new_router
from moesim.live.settings import CaptureConfig, Texts
from moesim.live.stages import Arrays, Stages
from moesim.live.tracer import RoutingTracer, TokenLog

LABEL_CHUNK = 16


@dataclass(slots=True)
class Captured:
    """Routing of all sequences, in their order; lists hold one array [tokens, ...] per sequence."""

    experts: list[np.ndarray] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    oracle: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Job:
    """One capture: every method is a stage, which is read from the work folder where it was done before."""

    config: CaptureConfig
    dense: Dense
    texts: Texts
    stages: Stages

    def experts(self) -> ExpertSet:
        """Masks from the first `calibration` training texts of each domain."""

        def make() -> Arrays:
            strengths = []
            for name, passages in zip(DOMAINS, self.texts.train, strict=True):
                texts = [_tensor(passage) for passage in passages[: self.config.calibration]]
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
                overlaps = torch.from_numpy(kept["overlaps"]).split([len(passage.ids) for passage in part])
                found += [Example(_tensor(p), o, domain) for p, o in zip(part, overlaps, strict=True)]
        return found

    @torch.no_grad()
    def _overlaps(self, experts: ExpertSet, passages: Sequence[Passage]) -> Arrays:
        meter, parts = OverlapMeter(experts), []
        with watch_channels(self.dense.model, meter.watch):
            for passage in passages:
                self.dense.model.model(_tensor(passage)[None], use_cache=False)
                parts.append(meter.read()[0])
        return {"overlaps": torch.cat(parts).numpy()}

    def router(self, experts: ExpertSet) -> tuple[PreGatingRouter, list[float]]:
        """The distilled router and its mean loss per epoch."""
        config = self.config
        embedding = self.dense.model.model.embed_tokens.weight
        sizes = RouterConfig(embedding.shape[0], experts.experts, config.width, config.heads, config.mlp)
        router = new_router(sizes, embedding, config.seed)

        def make() -> Arrays:
            schedule = TrainConfig(config.epochs, config.batch, config.rate, seed=config.seed)
            history = train(router, self.examples(experts), schedule, self._trained)
            return {"history": np.array(history), **{k: v.numpy() for k, v in router.state_dict().items()}}

        kept = self.stages.get("router", make)
        history = kept.pop("history").tolist()
        router.load_state_dict({name: torch.from_numpy(values) for name, values in kept.items()})
        return router.eval().requires_grad_(False), history

    def _trained(self, epoch: int, step: int, loss: float) -> None:
        if step % 20 == 1:
            self.stages.say(f"router: epoch {epoch + 1} of {self.config.epochs}, step {step}, loss {loss:.4f}")

    def capture(self, model: RoutedModel) -> Captured:
        """Run every prompt and its continuation under the tracer; sequences of like length share a batch."""
        outputs = output_lengths(
            len(self.texts.prompts), self.config.output_mean, self.config.output, (self.config.seed, 3)
        )
        order = np.argsort([-len(passage.ids) for passage in self.texts.prompts], kind="stable")
        found: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        for number, at in enumerate(range(0, len(order), self.config.decode_batch)):
            rows = order[at : at + self.config.decode_batch]
            kept = self.stages.get(f"capture-{number:04d}", partial(self._batch, model, rows, outputs[rows], number))
            cuts = np.cumsum([len(self.texts.prompts[row].ids) + outputs[row] for row in rows])[:-1]
            parts = [np.split(kept[name], cuts) for name in ("experts", "weights", "oracle")]
            found |= dict(zip(rows.tolist(), zip(*parts, strict=True), strict=True))
        whole = [found[row] for row in range(len(order))]
        return Captured(*(list(column) for column in zip(*whole, strict=True)))

    def _batch(self, model: RoutedModel, rows: np.ndarray, outputs: np.ndarray, number: int) -> Arrays:
        meter, oracle = OverlapMeter(model.experts), TokenLog(())
        random = torch.Generator().manual_seed(self.config.seed * 100_003 + number)
        sampler = Sampler(self.config.temperature, self.dense.tokenizer.all_special_ids, random)
        prompts = [_tensor(self.texts.prompts[row]) for row in rows]

        def seen(going: Sequence[int], valid: Tensor) -> None:
            oracle.add(going, valid, meter.read().argmax(dim=-1))

        with RoutingTracer([model.router], self.config.top) as tracer, watch_channels(self.dense.model, meter.watch):
            generate(model, prompts, outputs.tolist(), sampler, tracer, seen)
        traced = [tracer.of(row) for row in range(len(rows))]
        return {
            "experts": np.concatenate([experts for experts, _ in traced]),
            "weights": np.concatenate([weights for _, weights in traced]),
            "oracle": np.concatenate([oracle.of(row) for row in range(len(rows))]).astype(np.int16),
        }

    def losses(self, model: RoutedModel) -> dict[str, dict[str, float]]:
        """Losses by domain on the longest held-out prompts, by who routes."""
        names = ("dense", "oracle_label", "router", "own_domain", "random_expert")
        found = {}
        for index, domain in enumerate(DOMAINS):
            kept = self.stages.get(f"losses-{index}", partial(self._losses, model, index))
            found[domain] = {name: float(kept[name]) for name in names}
        found["mean"] = {name: round(sum(row[name] for row in found.values()) / len(DOMAINS), 4) for name in names}
        return found

    def _losses(self, model: RoutedModel, domain: int) -> Arrays:
        mine = [passage for passage in self.texts.prompts if passage.domain == DOMAINS[domain]]
        longest = sorted(mine, key=lambda passage: -len(passage.ids))[: self.config.loss_texts]
        texts = [_tensor(passage)[: self.config.loss_length] for passage in longest]
        random = torch.Generator().manual_seed(self.config.seed * 100_003 + domain)
        return {name: np.array(value) for name, value in losses(model, texts, domain, random).items()}


def _tensor(passage: Passage) -> Tensor:
    return torch.from_numpy(passage.ids.astype(np.int64))


def overlap_of_experts(experts: ExpertSet) -> dict[str, Any]:
    """Shares of channels: in all experts, and in common between each two of them."""
    masks = experts.masks.float().flatten(1)
    common = (masks @ masks.T) / masks.sum(dim=1)
    return {
        "channels": experts.masks.shape[2],
        "width": experts.width,
        "permanent_share": round(float(experts.permanent.float().mean()), 4),
        "common_share": [[round(float(value), 3) for value in row] for row in common],
    }
