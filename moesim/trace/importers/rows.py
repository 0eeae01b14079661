"""Sources with a line per choice: turned into sequences of tokens, every mistake named with its line."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from moesim.errors import InputError, Problem
from moesim.trace.importers.assemble import OUTPUT, PROMPT, UNKNOWN, Part
from moesim.trace.importers.options import Options, Source, at_lines


@dataclass(slots=True)
class Rows:
    """Choices of experts, int64 [rows] each; `sequence` is dense, `output` is PROMPT, OUTPUT or UNKNOWN."""

    sequence: np.ndarray
    position: np.ndarray
    layer: np.ndarray
    slot: np.ndarray
    expert: np.ndarray
    output: np.ndarray
    line: np.ndarray
    weight: np.ndarray | None = None
    domains: tuple[str, ...] = ()
    names: tuple[str, ...] = field(default=())


def parts_of(path: Path, rows: Rows, source: Source, options: Options) -> list[Part]:
    """The sequences of `rows`, layers numbered by rank. Raises InputError with every mistake of a line.

    Writes the bytes of every key into `source.key_bytes` where `source.layer_bytes` has them.
    """
    if not len(rows.expert):
        raise InputError(Problem(str(path), "holds no choices of experts"))
    _check_values(path, rows, options.experts or source.experts)
    layers, layer = np.unique(rows.layer, return_inverse=True)
    order = np.lexsort((rows.line, rows.slot, layer, rows.position, rows.sequence))
    tokens = np.stack([rows.sequence[order], rows.position[order]], axis=1)
    new_token = np.any(np.diff(tokens, axis=0, prepend=-2) != 0, axis=1)
    new_group = new_token | (np.diff(layer[order], prepend=-1) != 0)
    slot = _rank(new_group)
    token = np.cumsum(new_token) - 1
    sequence, position = tokens[new_token].T
    problems = _repeated(path, rows, order, np.cumsum(new_group) - 1)
    problems += _order_problems(path, rows, order, new_token, sequence, position)
    if problems:
        raise InputError(problems)
    experts = np.full((len(sequence), len(layers), int(slot.max()) + 1), -1, dtype=np.int32)
    experts[token, layer[order], slot] = rows.expert[order]
    weights = None
    if rows.weight is not None:
        weights = np.zeros(experts.shape)
        weights[token, layer[order], slot] = rows.weight[order]
    _describe_layers(path, layers, experts, source, options)
    output = rows.output[order][new_token]
    starts = np.flatnonzero(np.diff(sequence, prepend=-1))
    return [
        Part(
            experts[first:last],
            None if weights is None else weights[first:last],
            None if output[first] == UNKNOWN else int((output[first:last] == PROMPT).sum()),
            rows.domains[sequence[first]] if rows.domains else "",
            rows.names[sequence[first]] if rows.names else "",
        )
        for first, last in zip(starts, np.append(starts[1:], len(sequence)), strict=True)
    ]


def _check_values(path: Path, rows: Rows, experts: int | None) -> None:
    problems = []
    for name in ("position", "layer", "slot", "expert"):
        values = getattr(rows, name)
        problems += at_lines(path, rows.line[values < 0], f"{name} is negative; it must be 0 or more")
    if experts is not None:
        beyond = rows.line[rows.expert >= experts]
        problems += at_lines(path, beyond, f"expert beyond the last; there are {experts} (0..{experts - 1})")
    if problems:
        raise InputError(problems)


def _rank(new_group: np.ndarray) -> np.ndarray:
    """Place of each row in its group."""
    starts = np.flatnonzero(new_group)
    lengths = np.diff(np.append(starts, len(new_group)))
    return np.arange(len(new_group)) - np.repeat(starts, lengths)


def _repeated(path: Path, rows: Rows, order: np.ndarray, group: np.ndarray) -> list[Problem]:
    """Lines that name an expert, or a slot, that their token's layer has already."""
    problems = []
    for name in ("expert", "slot"):
        values = getattr(rows, name)[order]
        place = np.lexsort((rows.line[order], values, group))
        same = (np.diff(group[place]) == 0) & (np.diff(values[place]) == 0)
        lines = rows.line[order][place[1:][same]]
        problems += at_lines(path, lines, f"the same {name} twice for one token and layer")
    return problems


def _order_problems(
    path: Path, rows: Rows, order: np.ndarray, new_token: np.ndarray, sequence: np.ndarray, position: np.ndarray
) -> list[Problem]:
    """Gaps between positions, tokens of two phases, prompts behind outputs, sequences without a prompt."""
    line, output = rows.line[order], rows.output[order]
    token = np.cumsum(new_token) - 1
    phase, first_line = output[new_token], line[new_token]
    problems = at_lines(path, line[output != phase[token]], "the phase differs from that of the token's other lines")
    starts = np.diff(sequence, prepend=-1) != 0
    gap = ~starts & (np.diff(position, prepend=0) != 1)
    problems += at_lines(path, first_line[gap], "positions before this one are missing; they must run without a gap")
    back = ~starts & (phase == PROMPT) & (np.roll(phase, 1) == OUTPUT)
    problems += at_lines(path, first_line[back], "a prompt token comes after an output token of its sequence")
    bare = starts & (phase == OUTPUT)
    return problems + at_lines(path, first_line[bare], "the sequence begins with an output token; a prompt comes first")


def _describe_layers(path: Path, layers: np.ndarray, experts: np.ndarray, source: Source, options: Options) -> None:
    if not np.array_equal(layers, np.arange(len(layers))):
        source.notes.append(f"layers {', '.join(map(str, layers.tolist()))} of the source are layers 0.. here")
    empty = int((experts < 0).all(axis=2).sum())
    if empty:
        source.notes.append(f"{empty} of {experts.shape[0] * experts.shape[1]} (token, layer) pairs name no expert")
    if options.key_bytes is not None or not source.layer_bytes:
        return
    missing = [layer for layer in layers.tolist() if layer not in source.layer_bytes]
    if missing:
        text = f"does not say the bytes of an expert of layers {missing}; give --key-bytes"
        raise InputError(Problem(str(path), text))
    sizes = [source.layer_bytes[layer] for layer in layers.tolist()]
    count = options.experts or source.experts or int(experts.max()) + 1
    source.key_bytes = sizes[0] if len(set(sizes)) == 1 else [size for size in sizes for _ in range(count)]
