"""CSV of llama.cpp tracers, which read the `ffn_moe_topk` tensors as the graph runs. Two forms are known:

* `layer,expert` without a header, a line per choice (examples/moe-trace): the tensors of each micro-batch one after
  the other, k lines per token;
* `phase,n_tokens,layer,token_idx,e0,e1,...` with a header, a line per token and layer.

A micro-batch ends where the layer number falls. Of the last layer llama.cpp runs only the tokens whose output is
wanted, so that fewer lines than the micro-batch has tokens are of its last tokens. One sequence a file, but in the
second form a prefill after a decode opens the next one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moesim.errors import InputError, Problem
from moesim.trace.importers.assemble import OUTPUT, PROMPT, Part
from moesim.trace.importers.options import Options, Source, at_lines
from moesim.trace.importers.rows import Rows, parts_of
from moesim.trace.importers.text import Columns

HEADER = ("phase", "n_tokens", "layer", "token_idx", "e0")
PHASES = {"prefill": PROMPT, "prompt": PROMPT, "decode": OUTPUT, "generate": OUTPUT}


def read(path: Path, lines: list[str], options: Options) -> tuple[list[Part], Source]:
    """The sequences, and what is known of their source."""
    source = Source("llamacpp")
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    rows = _with_header(path, lines) if first.startswith(HEADER[0]) else _bare(path, lines, options, source)
    return parts_of(path, rows, source, options), source


def _bare(path: Path, lines: list[str], options: Options, source: Source) -> Rows:
    columns = Columns(path, lines, ("layer", "expert"))
    layer, expert = columns.integers("layer"), columns.integers("expert")
    columns.check()
    starts = np.flatnonzero(np.diff(layer, prepend=-1))  # each tensor
    lengths = np.diff(np.append(starts, len(layer)))
    if len(np.unique(layer)) < 2:
        text = "has one layer only: where a micro-batch ends cannot be told; use the plain CSV"
        raise InputError(Problem(str(path), text))
    k = options.k or int(np.gcd.reduce(lengths))
    wrong = starts[lengths % k != 0]
    if len(wrong):
        raise InputError(at_lines(path, columns.line[wrong], f"the layer's lines from here are no multiple of k = {k}"))
    if options.k is None:
        source.notes.append(f"k is not in the source: taken to be {k}, the greatest common divisor of its runs")
    batch_of, tokens, base = _micro_batches(layer[starts], lengths // k)
    run = np.repeat(np.arange(len(starts)), lengths)
    within = np.arange(len(layer)) - starts[run]
    late = tokens[batch_of[run]] - (lengths // k)[run]  # the last tokens only
    output = np.where(tokens[batch_of] > 1, PROMPT, OUTPUT)
    if output[0] == OUTPUT:
        output[batch_of == 0] = PROMPT  # a prompt of one token
    behind = np.flatnonzero(np.diff(output, prepend=PROMPT) < 0)
    if len(behind):
        text = "a micro-batch of several tokens after single ones: two sequences cannot be told apart here"
        raise InputError(at_lines(path, columns.line[starts[behind]], text))
    if options.prompt_tokens is None:
        source.notes.append("prompt: the micro-batches of several tokens, or the first token")
    return Rows(
        sequence=np.zeros(len(layer), dtype=np.int64),
        position=base[batch_of[run]] + late + within // k,
        layer=layer,
        slot=within % k,
        expert=expert,
        output=output[run],
        line=columns.line,
    )


def _micro_batches(layer: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each tensor its micro-batch; of each micro-batch its tokens and the tokens before it."""
    batch_of = np.cumsum(np.diff(layer, prepend=-1) <= 0)
    counts = np.zeros(int(batch_of[-1]) + 1, dtype=np.int64)
    np.maximum.at(counts, batch_of, tokens)
    return batch_of, counts, np.cumsum(counts) - counts


def _with_header(path: Path, lines: list[str]) -> Rows:
    columns = Columns(path, lines)
    slots = [name for name in columns.names if name[:1] == "e" and name[1:].isdigit()]
    if tuple(columns.names[:5]) != HEADER or columns.names[4:] != [f"e{i}" for i in range(len(slots))]:
        text = f"has the columns {','.join(columns.names)}; expected {','.join(HEADER)},e1,..."
        raise InputError(Problem(str(path), text))
    phase = columns.codes("phase", PHASES)
    declared, layer, token = (columns.integers(name) for name in HEADER[1:4])
    experts = np.stack([columns.integers(name, empty=-1) for name in slots], axis=1)
    columns.problems += at_lines(path, columns.line[token >= declared], "token_idx must be below n_tokens")
    columns.check()
    starts = np.flatnonzero((np.diff(layer, prepend=-1) != 0) | (np.diff(token, prepend=-1) <= 0))
    run = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(layer))))
    batch_of, _, _ = _micro_batches(layer[starts], declared[starts])
    tokens = np.zeros(int(batch_of[-1]) + 1, dtype=np.int64)
    np.maximum.at(tokens, batch_of[run], declared)
    output = np.zeros(len(tokens), dtype=np.int64)
    output[batch_of[run]] = phase
    opens = np.diff(output, prepend=OUTPUT) < 0  # a prefill after a decode, and the first
    sequence = np.cumsum(opens) - 1 if opens[0] else np.cumsum(opens)
    before = np.cumsum(tokens) - tokens
    base = before - before[np.searchsorted(sequence, sequence)]
    late = tokens[batch_of] - _rows_of(starts, len(layer))
    row, slot = np.nonzero(experts >= 0)
    return Rows(
        sequence=sequence[batch_of[run]][row],
        position=(base[batch_of[run]] + np.maximum(late, 0)[run] + token)[row],
        layer=layer[row],
        slot=slot,
        expert=experts[row, slot],
        output=phase[row],
        line=columns.line[row],
    )


def _rows_of(starts: np.ndarray, count: int) -> np.ndarray:
    return np.diff(np.append(starts, count))
