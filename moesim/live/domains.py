"""The refactorized model of Read-ME: a dense LLM whose FFNs run only the channels of the expert the router chose.

One decision per token holds in all layers (Read-ME, 4.2). The gate weight is not multiplied in, as in the published
code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from moesim.live.deltas import LayerDeltas
from moesim.live.experts import ExpertSet
from moesim.live.router import PreGatingRouter


@dataclass(slots=True)
class Switch:
    """The expert of each token [batch, tokens] of the pass that runs; None: the FFNs are dense and untuned."""

    choice: Tensor | None = None


class DomainFFN(nn.Module):
    """A dense FFN of which each token runs its expert's channels, with that expert's deltas.

    All channels are computed and the others silenced: the same numbers as the expert's slices alone.
    """

    def __init__(self, dense: Any, masks: Tensor, switch: Switch) -> None:
        super().__init__()
        self.dense, self.switch = dense, switch
        self.deltas: LayerDeltas | None = None
        self.masks: Tensor
        self.reach: Tensor | None
        self.register_buffer("masks", masks.float())  # experts, channels
        self.register_buffer("reach", None)  # experts, ranks; None: every expert uses every rank

    def forward(self, x: Tensor) -> Tensor:
        choice, ffn = self.switch.choice, self.dense
        if choice is None:
            dense: Tensor = ffn(x)
            return dense
        gate, up, reach = ffn.gate_proj(x), ffn.up_proj(x), None
        if self.deltas is not None:
            reach = None if self.reach is None else self.reach[choice]
            gate = gate + self.deltas["gate_proj"](x, reach)
            up = up + self.deltas["up_proj"](x, reach)
        inner = ffn.act_fn(gate) * up
        inner = inner * self.masks.to(inner.dtype)[choice]
        out: Tensor = ffn.down_proj(inner)
        return out if self.deltas is None else out + self.deltas["down_proj"](inner, reach)


class DomainModel(nn.Module):
    """`dense` + `router` + `experts`, called as a Hugging Face causal LM.

    The router's keys and values ride in `past_key_values` as one layer more, so what selects rows there serves both.
    """

    def __init__(self, dense: Any, router: PreGatingRouter, experts: ExpertSet) -> None:
        super().__init__()
        self.dense, self.router, self.switch = dense, router, Switch()
        for layer, block in enumerate(dense.model.layers):
            block.mlp = DomainFFN(block.mlp, experts.masks[:, layer], self.switch)
        self.to(next(dense.parameters()).device)

    @property
    def config(self) -> Any:
        return self.dense.config

    @property
    def ffns(self) -> list[DomainFFN]:
        return [block.mlp for block in self.dense.model.layers]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        choice: Tensor | None = None,
    ) -> Any:
        """The dense model's output for `input_ids` [batch, tokens], each token run by its expert.

        `choice` [batch, tokens] overrules the router. The other arguments are those of transformers' LLaMA.
        """
        past_key_values, position = self._places(input_ids, attention_mask, position_ids, past_key_values, use_cache)
        layer = None if past_key_values is None else past_key_values.layers[self.config.num_hidden_layers]
        logits = self.router(input_ids, attention_mask, layer, position)
        with self.routed(logits.argmax(dim=-1) if choice is None else choice):
            return self.dense(
                input_ids,
                attention_mask=attention_mask,
                position_ids=position,
                past_key_values=past_key_values,
                use_cache=past_key_values is not None,
                logits_to_keep=logits_to_keep,
            )

    def _places(self, ids: Tensor, mask: Tensor | None, position: Tensor | None, cache: Any, use: bool | None) -> Any:
        import torch
        from transformers.cache_utils import DynamicCache, DynamicLayer

        if cache is None and use:
            cache = DynamicCache()
        past = 0
        if cache is not None:
            past = cache.get_seq_length()
            while len(cache.layers) <= self.config.num_hidden_layers:
                cache.layers.append(DynamicLayer())
        if position is None and mask is not None:
            position = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        elif position is None:
            position = torch.arange(past, past + ids.shape[1], device=ids.device).expand(ids.shape)
        return cache, position

    def routed(self, choice: Tensor | None) -> _Routed:
        """Context in which the FFNs of `dense` run the experts of `choice`; outside it they are dense."""
        return _Routed(self.switch, choice)


class _Routed:
    def __init__(self, switch: Switch, choice: Tensor | None) -> None:
        self._switch, self._choice = switch, choice

    def __enter__(self) -> None:
        self._switch.choice = self._choice

    def __exit__(self, *error: object) -> None:
        self._switch.choice = None


def expert_weights(dense: Any, experts: ExpertSet, expert: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """One key, slices of the dense FFN: (gate [width, d], up [width, d], down [d, width]) of an expert in a layer."""
    mlp, channels = dense.model.layers[layer].mlp, experts.channels(expert, layer)
    mlp = getattr(mlp, "dense", mlp)
    return mlp.gate_proj.weight[channels], mlp.up_proj.weight[channels], mlp.down_proj.weight[:, channels]
