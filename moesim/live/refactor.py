"""The refactorized model: a dense LLM whose FFNs run only the channels of the expert that the router chose.

One decision per token holds in all layers (Read-ME, 4.2). The gate weight is not multiplied in, as in the published
code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from moesim.live.experts import ExpertSet
from moesim.live.router import PreGatingRouter, RouterCache


@dataclass(slots=True)
class DecodeState:
    """Caches of a batch that is being decoded: the LLM's KV cache and the router's."""

    model: Any
    router: RouterCache = field(default_factory=RouterCache)

    @classmethod
    def new(cls) -> DecodeState:
        from transformers import DynamicCache

        return cls(DynamicCache())

    def select(self, rows: Tensor) -> None:
        """Keep only these rows of the batch."""
        self.model.batch_select_indices(rows)
        self.router.select(rows)


class RoutedModel(nn.Module):
    """`dense` LLaMA model + `router` + `experts`; without `apply_experts` the FFNs stay dense, the router looks on."""

    def __init__(self, dense: Any, router: PreGatingRouter, experts: ExpertSet, *, apply_experts: bool = True) -> None:
        super().__init__()
        self.dense, self.router, self.experts = dense, router, experts
        self.apply_experts = apply_experts

    def forward(
        self,
        ids: Tensor,
        valid: Tensor | None = None,
        state: DecodeState | None = None,
        choice: Tensor | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits [batch, tokens or 1, vocabulary] of `ids` [batch, tokens].

        `valid` bool marks real tokens (padding is on the left), `state` continues a batch, `choice` [batch, tokens]
        overrules the router.
        """
        state = DecodeState.new() if state is None else state
        logits = self.router(ids, valid, state.router)
        choice = logits.argmax(dim=-1) if choice is None else choice
        with self._channels(choice) if self.apply_experts else nullcontext():
            return self._backbone(ids, state, last_only)

    def _backbone(self, ids: Tensor, state: DecodeState, last_only: bool) -> Tensor:
        seen = state.router.valid
        assert seen is not None
        position = (seen.long().cumsum(dim=1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        out = self.dense(
            ids,
            attention_mask=seen.long(),
            position_ids=position,
            past_key_values=state.model,
            use_cache=True,
            logits_to_keep=1 if last_only else 0,
        )
        logits: Tensor = out.logits
        return logits

    @contextmanager
    def _channels(self, choice: Tensor) -> Iterator[None]:
        """Silence, for each token, all channels outside its expert: the same as running the expert's slices only."""
        chosen = self.experts.masks[choice]  # batch, tokens, layers, channels

        def hook(layer: int) -> Any:
            return lambda module, args: (args[0] * chosen[:, :, layer],)

        blocks = self.dense.model.layers
        handles = [block.mlp.down_proj.register_forward_pre_hook(hook(at)) for at, block in enumerate(blocks)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def expert_weights(dense: Any, experts: ExpertSet, expert: int, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """One key, slices of the dense FFN: (gate [width, d], up [width, d], down [d, width]) of an expert in a layer."""
    mlp, channels = dense.model.layers[layer].mlp, experts.channels(expert, layer)
    return mlp.gate_proj.weight[channels], mlp.up_proj.weight[channels], mlp.down_proj.weight[:, channels]
