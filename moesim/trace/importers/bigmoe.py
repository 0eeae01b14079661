"""BigMoeOnEdge's `--route-trace` CSV, version 1: a line per (step, layer, slot), sizes of experts by layer above it.

Columns: turn, phase (0 prompt, 1 output), step (absolute position), layer, slot, expert, weight, residency,
expert_bytes (read for this line; not used). Each turn is a sequence. In a prompt the last layer runs for the last
token only, as llama.cpp does, so that the other tokens name no expert there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from moesim.errors import InputError, Problem
from moesim.trace.importers.assemble import OUTPUT, PROMPT, Part
from moesim.trace.importers.options import Options, Source
from moesim.trace.importers.rows import Rows, parts_of
from moesim.trace.importers.text import Columns, comment_pairs

HEADER = "turn,phase,step,layer,slot,expert,weight,residency,expert_bytes"
MARK = "# route_trace"
VERSION = "# route_trace v1"


def read(path: Path, lines: list[str], options: Options) -> tuple[list[Part], Source]:
    """The sequences, and what the file says of its model."""
    source = Source("bigmoe")
    problems = [] if lines[0].strip() == VERSION else [Problem(f"{path}:1", f"is {lines[0]!r}; expected {VERSION!r}")]
    problems += _preamble(path, lines, source)
    columns = Columns(path, lines)
    if ",".join(columns.names) != HEADER:
        problems.append(Problem(str(path), f"has the columns {','.join(columns.names)}; expected {HEADER}"))
        raise InputError(problems)
    columns.problems += problems
    turn = columns.integers("turn")
    phase = columns.codes("phase", {"0": PROMPT, "1": OUTPUT})
    step, layer = columns.integers("step"), columns.integers("layer")
    slot, expert, weight = columns.integers("slot"), columns.integers("expert"), columns.reals("weight")
    columns.check()
    turns, sequence = np.unique(turn, return_inverse=True)
    names = tuple(f"turn {number}" for number in turns.tolist())
    rows = Rows(sequence, step, layer, slot, expert, phase, columns.line, weight, names=names)
    return parts_of(path, rows, source, options), source


def _preamble(path: Path, lines: list[str], source: Source) -> list[Problem]:
    problems = []
    for number, pairs in comment_pairs(lines):
        try:
            if "model" in pairs:
                source.model = pairs["model"].replace("\\", "/").rsplit("/", 1)[-1]
                source.experts = int(pairs["n_expert"]) if "n_expert" in pairs else None
            elif "layer" in pairs and "expert_bytes" in pairs:
                source.layer_bytes[int(pairs["layer"])] = int(pairs["expert_bytes"])
        except ValueError:
            problems.append(Problem(f"{path}:{number}", "numbers of the preamble must be whole numbers"))
    return problems
