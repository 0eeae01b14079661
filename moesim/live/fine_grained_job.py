"""From a dense model to fine-grained experts with a gate in each layer: every method is a stage of the work folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moesim.live.dense import Dense
from moesim.live.domain_job import tensor
from moesim.live.fine_grained import Gate, Partition, TuningFFN, energy_shares, part_layer
from moesim.live.fit import Phase, fit
from moesim.live.settings import RefactorConfig
from moesim.live.stages import Arrays, Stages
from moesim.live.texts import Texts
from moesim.live.tuning import GATE_SHARE, LanguageLoss, named, new_deltas, order, padded

GROUP_BYTES = 2**31  # of activations that are held at a time
GATE_BATCH = 2048


@dataclass(slots=True)
class Watched:
    """What went through one FFN: inputs float16 [tokens, d] and magnitudes float16 [tokens, channels]."""

    inputs: list[Tensor]
    magnitudes: list[Tensor]


@dataclass(frozen=True, slots=True)
class FineGrainedJob:
    config: RefactorConfig
    dense: Dense
    texts: Texts
    stages: Stages

    def layers(self) -> tuple[Partition, list[Tensor]]:
        """Owners of the channels and gate weights [experts, d] of all layers; a layer is a stage."""
        shape = self.dense.model.config
        read = {layer: self.stages.read(f"layer-{layer:03d}") for layer in range(shape.num_hidden_layers)}
        known = {layer: kept for layer, kept in read.items() if kept is not None}
        missing = [layer for layer in read if layer not in known]
        tokens = sum(len(passage.ids) for passage in self._calibration())
        each = 2 * tokens * (shape.hidden_size + shape.intermediate_size)
        group = max(GROUP_BYTES // each, 1)
        for at in range(0, len(missing), group):
            watched = self._watch(missing[at : at + group])
            for layer in missing[at : at + group]:
                known[layer] = self._layer(layer, watched.pop(layer))
                self.stages.keep(f"layer-{layer:03d}", known[layer])
                mine, best, chance = known[layer]["captured"]
                text = f"layer {layer}: the gate's {self.config.k} experts hold {mine:.3f} of the routed energy"
                self.stages.say(f"{text} (at best {best:.3f}, by chance {chance:.3f})")
        kept = [known[layer] for layer in read]
        return Partition(np.stack([k["owner"] for k in kept])), [torch.from_numpy(k["gate"]) for k in kept]

    def _calibration(self) -> list[Any]:
        return [passage for domain in self.texts.train for passage in domain[: self.config.cluster_texts]]

    @torch.no_grad()
    def _watch(self, layers: list[int]) -> dict[int, Watched]:
        model = self.dense.model
        found = {layer: Watched([], []) for layer in layers}

        def keep(into: list[Tensor], magnitude: bool) -> Callable[..., None]:
            return lambda module, args: into.append((args[0][0].abs() if magnitude else args[0][0]).half().cpu())

        handles = []
        for layer, watched in found.items():
            mlp = model.model.layers[layer].mlp
            handles += [
                mlp.register_forward_pre_hook(keep(watched.inputs, False)),
                mlp.down_proj.register_forward_pre_hook(keep(watched.magnitudes, True)),
            ]
        for passage in self._calibration():
            model.model(tensor(passage)[None].to(model.device), use_cache=False)
        for handle in handles:
            handle.remove()
        return found

    def _layer(self, layer: int, watched: Watched) -> Arrays:
        config = self.config
        norms = self.dense.model.model.layers[layer].mlp.down_proj.weight.detach().float().norm(dim=0).cpu().numpy()
        contribution = torch.cat(watched.magnitudes).float().numpy() * norms
        owner = part_layer(contribution, config.experts, config.shared, config.seed * 1009 + layer)
        shares = energy_shares(contribution, owner, config.experts)
        inputs = torch.cat(watched.inputs).float()
        gate = fit_gate(inputs, torch.from_numpy(shares), config.gate_steps, config.seed * 1009 + layer)
        return {"owner": owner, "gate": gate.numpy(), "captured": captured(inputs, gate, shares, config.k)}

    def train(self) -> tuple[Any, Partition, list[TuningFFN], dict[str, list[list[float]]]]:
        """The dense model with its FFNs in the form for tuning, tuned."""
        config, model = self.config, self.dense.model
        partition, gates = self.layers()
        deltas = new_deltas(config, config.experts, model.config) if config.tune == "deltas" else None
        ffns = []
        for layer, block in enumerate(model.model.layers):
            gate = Gate(gates[layer].to(model.device), torch.zeros(config.experts, device=model.device), config.k)
            mine = None if deltas is None else deltas[layer].to(model.device)
            ffns.append(TuningFFN(block.mlp, partition, layer, gate, mine).to(model.device))
            block.mlp = ffns[-1]
        history: dict[str, list[list[float]]] = {"experts": []}
        if config.tune != "nothing":
            history["experts"] = [self._round(ffns, round_) for round_ in range(config.rounds)]
        model.requires_grad_(False)
        return model, partition, ffns, history

    def _round(self, ffns: list[TuningFFN], round_: int) -> list[float]:
        config, model = self.config, self.dense.model
        model.requires_grad_(False)
        parameters = named([ffn.gate for ffn in ffns], "gates")
        if config.tune == "deltas":
            parameters |= named([ffn.deltas for ffn in ffns if ffn.deltas is not None], "deltas")
        else:
            parameters |= named([ffn.dense for ffn in ffns], "ffn")
        texts = [tensor(passage) for passages in self.texts.train for passage in passages]
        loss = LanguageLoss(model, config.precision)

        def loss_of(step: int) -> Tensor:
            chosen = order(len(texts), config.expert_batch, step, (config.seed, 12, round_))
            return loss(*padded([texts[index] for index in chosen], model.device))

        rate = config.expert_rate * config.rate_decay**round_
        decay = 0.0 if config.tune == "deltas" else 0.01
        phase = Phase(f"experts-{round_}", config.expert_steps, rate, (("gates", GATE_SHARE * rate),), decay)
        return fit(phase, parameters, loss_of, self.stages)


def fit_gate(inputs: Tensor, shares: Tensor, steps: int, seed: int) -> Tensor:
    """float32 [experts, d]: softmax regression of the experts' energy shares on the FFN's inputs, from zero.

    The loss is convex, so the few steps of Adam depend little on their order.
    """
    weight = torch.zeros(shares.shape[1], inputs.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    for step in range(steps):
        chosen = torch.tensor(order(len(inputs), min(GATE_BATCH, len(inputs)), step, (seed, 13)))
        loss = -(shares[chosen] * (inputs[chosen] @ weight.T).log_softmax(dim=-1)).sum(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return weight.detach()


def captured(inputs: Tensor, gate: Tensor, shares: np.ndarray, k: int) -> np.ndarray:
    """float64 [3]: share of the routed energy held by the gate's k experts, by the best k, by any k."""
    chosen = (inputs @ gate.T).topk(k, dim=-1).indices.numpy()
    best = np.sort(shares, axis=1)[:, -k:].sum(axis=1)
    return np.array([np.take_along_axis(shares, chosen, axis=1).sum(axis=1).mean(), best.mean(), k / shares.shape[1]])
