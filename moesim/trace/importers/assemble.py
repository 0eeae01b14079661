"""Puts choices of experts, or whole sequences of them, together into a routing trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from moesim.errors import InputError, Problem
from moesim.trace.importers.options import Options, Source
from moesim.trace.meta import RoutingMeta
from moesim.trace.routing import RoutingTrace

PROMPT, OUTPUT, UNKNOWN = 0, 1, -1
MOST_EXPERTS = 32767
NO_PHASE = (
    "does not say where prompts end and outputs begin: give --prompt-tokens N, the prompt tokens of each sequence "
    "(0: all tokens are a prompt's)"
)


@dataclass(slots=True)
class Part:
    """One sequence: experts int [tokens, R, k] (-1: none), weights or None, prompt tokens or None where not said."""

    experts: np.ndarray
    weights: np.ndarray | None = None
    prompt_tokens: int | None = None
    domain: str = ""
    name: str = ""


def trace_of(path: Path, parts: Sequence[Part], source: Source, options: Options, digest: str) -> RoutingTrace:
    """The trace of these sequences. Raises InputError with everything that does not fit together."""
    problems = [p for number, part in enumerate(parts) for p in _part_problems(path, number, part)]
    shapes = {part.experts.shape[1] for part in parts if part.experts.ndim == 3}
    if len(shapes) > 1:
        problems.append(Problem(str(path), f"sequences have {sorted(shapes)} layers; all must have the same"))
    if not parts:
        problems.append(Problem(str(path), "holds no tokens"))
    if problems:
        raise InputError(problems)
    lengths = [len(part.experts) for part in parts]
    prompts, problems = _prompts(path, parts, options)
    experts, problems_of_experts = _experts(path, parts, source, options)
    router = options.router or source.router
    layers, problems_of_layers = _layers(path, shapes.pop(), router, options.layers or source.layers)
    if problems := problems + problems_of_experts + problems_of_layers:
        raise InputError(problems)
    k = max(part.experts.shape[2] for part in parts)
    chosen = np.concatenate([_widen(part.experts, k, -1) for part in parts]).astype(np.int16)
    return RoutingTrace(
        meta=_meta(path, source, options, (layers, experts, k), digest),
        experts=chosen,
        weights=np.concatenate([_weights(part, k) for part in parts]).astype(np.float16),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        prompt_tokens=np.array(prompts, dtype=np.int32),
        domains=tuple(part.domain or "imported" for part in parts),
        digest=digest,
    )


def _part_problems(path: Path, number: int, part: Part) -> list[Problem]:
    place = f"{path}: {part.name or f'sequence {number}'}"
    if part.experts.ndim != 3 or 0 in part.experts.shape:
        shape = list(part.experts.shape)
        return [Problem(place, f"has shape {shape}; expected [tokens, layers, k], none of them 0")]
    found = []
    ids = part.experts
    if (ids < -1).any() or (ids > MOST_EXPERTS - 1).any():
        token, layer, _ = np.argwhere((ids < -1) | (ids > MOST_EXPERTS - 1))[0]
        wrong = int(ids[(ids < -1) | (ids > MOST_EXPERTS - 1)][0])
        found.append(
            Problem(place, f"token {token}, layer {layer}: expert {wrong}; expected 0..{MOST_EXPERTS - 1}, -1: none")
        )
    ordered = np.sort(ids, axis=2)
    twice = ((np.diff(ordered, axis=2) == 0) & (ordered[:, :, 1:] >= 0)).any(axis=2)
    if twice.any():
        token, layer = np.argwhere(twice)[0]
        named = ids[token, layer].tolist()
        text = f"token {token}, layer {layer} names an expert twice ({named}); so do {int(twice.sum())} in all"
        found.append(Problem(place, text))
    if part.weights is not None and part.weights.shape != ids.shape:
        found.append(Problem(place, f"weights have shape {list(part.weights.shape)}, experts {list(ids.shape)}"))
    return found


def _prompts(path: Path, parts: Sequence[Part], options: Options) -> tuple[list[int], list[Problem]]:
    prompts: list[int] = []
    problems: list[Problem] = []
    for number, part in enumerate(parts):
        tokens, given = len(part.experts), part.prompt_tokens
        if given is None:
            given = options.prompt_tokens
            if given is None:
                return [], [Problem(str(path), NO_PHASE)]
            given = given or tokens
        if not 1 <= given <= tokens:
            text = f"has {given} prompt tokens of {tokens}; expected 1 to all of them"
            problems.append(Problem(f"{path}: {part.name or f'sequence {number}'}", text))
        prompts.append(given)
    return prompts, problems


def _experts(path: Path, parts: Sequence[Part], source: Source, options: Options) -> tuple[int, list[Problem]]:
    """How many experts a layer has: what the user says, else the source, else the largest id."""
    largest = max(int(part.experts.max()) for part in parts)
    count = options.experts or source.experts
    if count is None:
        source.notes.append(f"the number of experts is not in the source: {largest + 1}, the largest id + 1, is taken")
        return max(largest + 1, 1), []
    if largest >= count:
        return count, [Problem(str(path), f"names expert {largest}; there are {count} (0..{count - 1})")]
    return count, []


def _widen(values: np.ndarray, k: int, empty: float) -> np.ndarray:
    spare = k - values.shape[2]
    return np.pad(values, ((0, 0), (0, 0), (0, spare)), constant_values=empty) if spare else values


def _weights(part: Part, k: int) -> np.ndarray:
    """The source's weights, or equal ones where it has none."""
    there = part.experts >= 0
    equal = there / np.maximum(there.sum(axis=2, keepdims=True), 1)
    if part.weights is None:
        return _widen(equal, k, 0.0)
    known = np.isfinite(part.weights).all(axis=2, keepdims=True)
    return _widen(np.where(known, np.where(there, part.weights, 0.0), equal), k, 0.0)


def _layers(path: Path, decisions: int, router: str, given: int | None) -> tuple[int, list[Problem]]:
    """Layers of the model: as many as decisions, or what is given for a router that decides once for all."""
    if router == "layerwise":
        if given not in (None, decisions):
            return decisions, [Problem(str(path), f"has choices of {decisions} layers, not of {given}")]
        return decisions, []
    if decisions != 1:
        text = f"has choices of {decisions} layers; a decoupled router has one for all layers"
        return decisions, [Problem(str(path), text)]
    if given is None:
        text = "is of a decoupled router, which decides once for all layers: give their number with --layers"
        return 1, [Problem(str(path), text)]
    return given, []


def _meta(
    path: Path, source: Source, options: Options, counts: tuple[int, int, int], digest: str
) -> RoutingMeta:
    layers, experts, k = counts
    notes = list(source.notes)
    size = options.key_bytes if options.key_bytes is not None else source.key_bytes
    if size is None:
        size = 1
        notes.append("bytes of keys are not in the source: 1 is written for each, and sizes in bytes mean nothing")
    report: dict[str, Any] = {"source": {"file": path.name, "format": source.format, "sha256": digest}}
    try:
        return RoutingMeta(
            model=options.model or source.model or path.stem,
            router=options.router or source.router,
            layers=layers,
            experts=experts,
            k=k,
            key_bytes=size,
            label="captured",
            report=report,
            outputs="as in the source",
            notes="; ".join([f"imported from {path.name} ({source.format})", *notes]),
        )
    except ValidationError as error:
        raise InputError(Problem(str(path), e["msg"]) for e in error.errors()) from error
