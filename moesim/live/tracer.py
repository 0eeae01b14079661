"""Tracing of routing: forward hooks record each token's choice while a model runs.

The hooks only read, and copy what they read, so the model's output is the same, bit for bit. All layers of a pass are
moved to the host at once, at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moesim.live.structure import MoEBlock

NONE = -1


@dataclass(frozen=True, slots=True)
class Routing:
    """Routing of one sequence, best first: experts int16, weights float16 [tokens, R, k]; of sequences traced in full
    also top [tokens, R, m] with their probabilities, and predicted: distance -> [tokens, R, p] (-1: none)."""

    experts: np.ndarray
    weights: np.ndarray
    top_experts: np.ndarray | None = None
    top_weights: np.ndarray | None = None
    predicted: dict[int, np.ndarray] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray]:
        """All arrays by the names of a trace's columns."""
        found = {"experts": self.experts, "weights": self.weights}
        if self.top_experts is not None and self.top_weights is not None:
            found |= {"top_experts": self.top_experts, "top_weights": self.top_weights}
        return found | {f"predicted_{distance}": ids for distance, ids in sorted(self.predicted.items())}


@dataclass(slots=True)
class _Layer:
    """What the hooks of one block saw in this pass."""

    index: Tensor | None = None
    weights: Tensor | None = None
    logits: Tensor | None = None
    predicted: dict[int, Tensor] = field(default_factory=dict)


class RoutingTracer:
    """Context manager that records what `blocks` choose.

    `top` experts and predictions of `ahead` experts for `distances` layers are kept of the sequences that `full` names.
    Call `expect` before and `collect` after each forward pass; `take` hands over a sequence that has ended.
    """

    def __init__(
        self,
        blocks: Sequence[MoEBlock],
        *,
        top: int = 0,
        distances: int = 0,
        ahead: int = 0,
        full: Callable[[int], bool] = lambda number: True,
    ) -> None:
        self._blocks = list(blocks)
        self._top, self._distances, self._ahead, self._is_full = top, distances, ahead, full
        self.k = max(block.k for block in blocks)
        self._rows: list[int] | None = None
        self._tokens = 0
        self._chosen: Tensor | None = None
        self._layers = [_Layer() for _ in blocks]
        self._kept: dict[int, list[dict[str, np.ndarray]]] = {}
        self._handles: list[Any] = []

    # ---- around each pass

    def expect(self, rows: Sequence[int], tokens: int) -> None:
        """The next pass holds `tokens` tokens of each of the sequences `rows`, and no padding."""
        self._rows, self._tokens = list(rows), tokens
        full = [place for place, row in enumerate(rows) if self._top and self._is_full(row)]
        self._chosen = (torch.tensor(full, dtype=torch.long)[:, None] * tokens + torch.arange(tokens)).flatten()

    def collect(self) -> None:
        """Take in what the hooks saw of the pass."""
        if self._rows is None:
            raise RuntimeError("call expect(rows, tokens) before each forward pass")
        missed = [block.name for block, layer in zip(self._blocks, self._layers, strict=True) if layer.index is None]
        if missed:
            raise RuntimeError(f"{missed[0]} did not run in this pass")
        arrays = self._arrays()
        whole = {name: arrays.pop(name) for name in ("experts", "weights")}
        tokens, at = self._tokens, 0
        for place, row in enumerate(self._rows):
            part = {name: values[place * tokens : (place + 1) * tokens] for name, values in whole.items()}
            if self._top and self._is_full(row):
                part |= {name: values[at : at + tokens] for name, values in arrays.items()}
                at += tokens
            self._kept.setdefault(row, []).append(part)
        self._layers, self._rows = [_Layer() for _ in self._blocks], None

    def take(self, row: int) -> Routing:
        """The routing of a sequence, in the order of its tokens; it is forgotten here."""
        parts = self._kept.pop(row)
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        ahead = {int(name.rpartition("_")[2]): whole.pop(name) for name in list(whole) if name.startswith("predicted")}
        return Routing(**whole, predicted=ahead)

    # ---- hooks

    def __enter__(self) -> RoutingTracer:
        for number, block in enumerate(self._blocks):
            if block.called is not None:
                hook = self._called(number, block)
                self._handles.append(block.called.register_forward_pre_hook(hook, with_kwargs=True))
            if block.gate is not None and (self._top or block.called is None):
                self._handles.append(block.gate.register_forward_hook(self._gated(number, block), with_kwargs=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _called(self, number: int, block: MoEBlock) -> Any:
        def record(module: Any, args: Any, kwargs: Any) -> None:
            index, weights = (args[at] if isinstance(at, int) else kwargs[at] for at in block.choice_at)
            layer = self._layers[number]
            layer.index = index.detach().reshape(-1, block.k).clone()
            layer.weights = weights.detach().reshape(-1, block.k).float().clone()

        return record

    def _gated(self, number: int, block: MoEBlock) -> Any:
        def record(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            if self._rows is None or self._chosen is None:
                raise RuntimeError("call expect(rows, tokens) before each forward pass")
            layer = self._layers[number]
            logits, index, weights = block.read(output)
            if block.called is None and index is not None and weights is not None:
                layer.index, layer.weights = index.detach().clone(), weights.detach().float().clone()
            if logits is None or not len(self._chosen):
                return
            chosen = self._chosen = self._chosen.to(logits.device)
            rows = logits.detach()[chosen].float()
            layer.logits = rows if block.probable else rows.softmax(dim=-1)
            for distance in range(1, self._distances + 1):
                if number + distance < len(self._blocks):
                    value = args[0] if args else next(iter(kwargs.values()))
                    layer.predicted[distance] = _foretold(self._blocks[number + distance], value, chosen, self._ahead)

        return record

    # ---- after a pass

    def _arrays(self) -> dict[str, np.ndarray]:
        """Everything of a pass on the host, by column: [tokens, R, ...]."""
        experts = max(block.experts for block in self._blocks)
        index = torch.stack([_wide(layer.index, self.k, NONE) for layer in self._layers], dim=1)
        weights = torch.stack([_wide(layer.weights, self.k, 0) for layer in self._layers], dim=1)
        limits = torch.tensor([block.experts for block in self._blocks], device=index.device)[:, None]
        nobody = (index < 0) | (index >= limits)
        order = weights.masked_fill(nobody, -torch.inf).argsort(dim=-1, descending=True, stable=True)
        index, weights = index.masked_fill(nobody, NONE), weights.masked_fill(nobody, 0)
        found = {"experts": index.gather(-1, order).short(), "weights": weights.gather(-1, order).half()}
        if self._chosen is not None and len(self._chosen) and self._layers[0].logits is not None:
            best = torch.stack([_wide(layer.logits, experts, -1) for layer in self._layers], dim=1)
            best = best[..., :experts].masked_fill(torch.arange(experts, device=best.device) >= limits, -1)
            values, ids = best.topk(self._top, dim=-1)
            found["top_experts"] = ids.masked_fill(values < 0, NONE).short()
            found["top_weights"] = values.clamp(min=0).half()
            for distance in range(1, self._distances + 1):
                nothing = torch.full((len(self._chosen), self._ahead), NONE, device=ids.device)
                ahead = [layer.predicted.get(distance, nothing) for layer in self._layers]
                found[f"predicted_{distance}"] = torch.stack(ahead, dim=1).short()
        return {name: values.cpu().numpy() for name, values in found.items()}


def _wide(values: Tensor | None, width: int, fill: float) -> Tensor:
    """`values` [tokens, any] with at least `width` columns."""
    assert values is not None
    return torch.nn.functional.pad(values, (0, max(width - values.shape[-1], 0)), value=fill)


def _foretold(block: MoEBlock, value: Tensor, chosen: Tensor, ahead: int) -> Tensor:
    """int64 [chosen tokens, ahead]: what a later layer's gate would choose on this input, then its next best."""
    assert block.gate is not None and block.extra is not None
    flat = value.detach().reshape(-1, value.shape[-1])[chosen]
    args, kwargs = block.extra
    logits, index, weights = block.read(block.gate.forward(flat[None] if value.ndim == 3 else flat, *args, **kwargs))
    assert logits is not None and index is not None and weights is not None
    rank = torch.nn.functional.pad(logits.float()[:, : block.experts], (0, 1))
    first = index.gather(-1, weights.argsort(dim=-1, descending=True, stable=True)).clamp(max=block.experts)
    # The chosen stand before all others, in the order of their weights; what has no weights goes to the last column.
    above = rank.amax(dim=-1, keepdim=True) + torch.arange(block.k, 0, -1, device=rank.device)
    best = rank.scatter(-1, first, above)[:, : block.experts].topk(min(ahead, block.experts), dim=-1).indices
    return torch.nn.functional.pad(best, (0, ahead - best.shape[-1]), value=NONE)
