"""Which modules may be MoE blocks by their parameters, and what one small forward pass shows of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

PROBE = 7  # tokens of the pass; few, and unlike usual k


def tensors(value: Any) -> list[Tensor]:
    """The tensors in a module's output, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [one for part in value for one in tensors(part)] if isinstance(value, Sequence) else []


# ---- candidates, by their parameters


@dataclass(frozen=True, slots=True)
class Candidate:
    """A block by its parameters: `counts` holds how many experts it may have (usually one number)."""

    name: str
    child: str
    experts: nn.Module
    counts: tuple[int, ...]
    gates: tuple[nn.Module, ...]


def candidates_in(model: nn.Module) -> Iterator[Candidate]:
    for name, block in model.named_modules():
        children = dict(block.named_children())
        for title, child in children.items():
            counts = _expert_counts(child)
            gates = tuple(one for one in children.values() if one is not child and _is_gate(one, counts))
            if counts and gates:
                yield Candidate(name, title, child, counts, gates)


def _expert_counts(module: nn.Module) -> tuple[int, ...]:
    """How many experts a module may hold, or nothing."""
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        inside = list(module.children())
        alike = len({type(one) for one in inside}) == 1 and any(True for _ in module.parameters())
        return (len(inside),) if alike and len(inside) > 1 else ()
    if isinstance(module, nn.modules.conv._ConvNd):
        return ()
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    return tuple(sorted({value.shape[0] for value in own if value.ndim >= 3 and value.shape[0] > 1}))


def _is_gate(module: nn.Module, counts: tuple[int, ...]) -> bool:
    return any(value.ndim == 2 and value.shape[0] in counts for value in module.parameters())


# ---- what one forward pass shows


@dataclass(slots=True)
class Seen:
    """What a pass showed of a candidate; `rows` counts the tokens that each expert of a list was given."""

    order: int = 1 << 30
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    gates: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any], list[Tensor]]] = field(default_factory=list)
    rows: dict[int, int] = field(default_factory=dict)


@torch.no_grad()
def probe(model: Any, candidates: Sequence[Candidate], device: str) -> list[Seen]:
    """What a pass of a few tokens shows of each candidate."""
    seen = [Seen() for _ in candidates]
    handles: list[Any] = []

    def watch(candidate: Candidate, mine: Seen) -> None:
        def begun() -> None:
            mine.order = min(mine.order, sum(len(one.gates) + len(one.calls) for one in seen))

        def called(module: nn.Module, args: Any, kwargs: Any) -> None:
            begun()
            mine.calls.append((args, kwargs))

        def gated(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            begun()
            mine.gates.append((module, args, kwargs, [part.detach().clone() for part in tensors(output)]))

        def counted(number: int) -> Any:
            def add(module: nn.Module, args: Any) -> None:
                mine.rows[number] = mine.rows.get(number, 0) + rows_of(args[0] if args else None)

            return add

        handles.append(candidate.experts.register_forward_pre_hook(called, with_kwargs=True))
        handles.extend(gate.register_forward_hook(gated, with_kwargs=True) for gate in candidate.gates)
        if isinstance(candidate.experts, nn.ModuleList | nn.ModuleDict):
            inside = enumerate(candidate.experts.children())
            handles.extend(expert.register_forward_pre_hook(counted(number)) for number, expert in inside)

    for candidate, mine in zip(candidates, seen, strict=True):
        watch(candidate, mine)
    try:
        model(input_ids=torch.arange(PROBE, device=device)[None] + 1, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def rows_of(value: object) -> int:
    return value.numel() // max(value.shape[-1], 1) if isinstance(value, Tensor) else 0
