"""Tracing of routing: forward hooks on the gates record each token's choice and weights while a model runs.

The hooks only read. They work for one router apart from the backbone (R = 1) and for one gate per layer (R = layers).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class TokenLog:
    """Values of tokens, gathered by sequence over many forward passes; `shape` is that of one token's values."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._parts: dict[int, list[Tensor]] = {}

    def add(self, rows: Iterable[int], valid: Tensor, values: Tensor) -> None:
        """`values` [batch, tokens, ...] of the sequences `rows` [batch]; `valid` [batch, tokens] are real tokens."""
        for index, row in enumerate(rows):
            self._parts.setdefault(int(row), []).append(values[index][valid[index]])

    def of(self, row: int) -> np.ndarray:
        """All values of one sequence, in the order of its tokens."""
        parts = self._parts.get(row)
        return torch.cat(parts).numpy() if parts else np.zeros((0, *self._shape), np.float32)


class RoutingTracer:
    """Context manager that records what `gates` choose.

    A gate's output is logits [batch, tokens, experts] or [batch * tokens, experts], alone or first in a tuple. Call
    `expect(rows, valid)` before each forward pass to say which sequences its batch holds and which tokens are real.
    """

    def __init__(self, gates: Sequence[nn.Module], top: int) -> None:
        self._gates, self._top = list(gates), top
        self._rows: list[int] = []
        self._valid: Tensor | None = None
        self._experts = [TokenLog((top,)) for _ in self._gates]
        self._weights = [TokenLog((top,)) for _ in self._gates]
        self._handles: list[Any] = []

    def expect(self, rows: Iterable[int], valid: Tensor) -> None:
        self._rows, self._valid = [int(row) for row in rows], valid

    def __enter__(self) -> RoutingTracer:
        self._handles = [gate.register_forward_hook(self._hook(at)) for at, gate in enumerate(self._gates)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def of(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """(experts int16, weights float16) [tokens, R, top] of one sequence, best first."""
        experts = np.stack([log.of(row) for log in self._experts], axis=1).astype(np.int16)
        weights = np.stack([log.of(row) for log in self._weights], axis=1).astype(np.float16)
        return experts, weights

    def _hook(self, decision: int) -> Any:
        def record(module: nn.Module, args: Any, output: Any) -> None:
            if self._valid is None:
                raise RuntimeError("call expect(rows, valid) before each forward pass")
            logits = (output[0] if isinstance(output, tuple) else output).detach()
            best = logits.reshape(*self._valid.shape, -1).float().softmax(dim=-1).topk(self._top, dim=-1)
            self._experts[decision].add(self._rows, self._valid, best.indices)
            self._weights[decision].add(self._rows, self._valid, best.values)

        return record
