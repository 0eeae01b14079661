"""What a user says about a source, and what a source says about itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from moesim.errors import Problem

FORMATS = {
    "moesim": "our own Parquet",
    "bigmoe": "BigMoeOnEdge --route-trace CSV ('# route_trace v1', turn,phase,step,layer,slot,expert,...)",
    "llamacpp": "llama.cpp tracers: layer,expert without a header, or phase,n_tokens,layer,token_idx,e0,e1,...",
    "npy": "array [tokens, layers, k] of expert ids, as vLLM and SGLang return routed experts",
    "npz": "such arrays by name: experts, or prompt_routed_experts and routed_experts, or one a sequence",
    "csv": "plain CSV with the columns position, layer, expert (or e0, e1, ...)",
    "jsonl": "plain JSONL, an object per token with its experts",
}
SHOWN = 10
"""lines that are named of one kind of mistake"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the source may not say itself.

    `layers`: of a decoupled router, which decides once for all of them. `prompt_tokens`: of each sequence; 0 takes
    every token for a prompt's.
    """

    format: str = "auto"
    model: str = ""
    router: Literal["", "layerwise", "decoupled"] = ""
    layers: int | None = None
    experts: int | None = None
    k: int | None = None
    key_bytes: int | None = None
    prompt_tokens: int | None = None


@dataclass(slots=True)
class Source:
    """What a source says of itself. `layer_bytes`: of one expert, by the source's layer number."""

    format: str
    model: str = ""
    router: Literal["layerwise", "decoupled"] = "layerwise"
    layers: int | None = None
    experts: int | None = None
    k: int | None = None
    key_bytes: int | list[int] | None = None
    layer_bytes: dict[int, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def at_lines(path: object, lines: Iterable[int], text: str) -> list[Problem]:
    """A problem for each of the first lines, and one for how many more there are."""
    all_lines = np.unique(np.fromiter(lines, dtype=np.int64)).tolist()
    found = [Problem(f"{path}:{line}", text) for line in all_lines[:SHOWN]]
    if len(all_lines) > SHOWN:
        found.append(Problem(str(path), f"{len(all_lines) - SHOWN} more lines: {text}"))
    return found
