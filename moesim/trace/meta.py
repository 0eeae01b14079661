"""What a routing trace says about itself: one JSON document inside the Parquet file (traces/README.md)."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

FORMAT: Literal["moesim-routing"] = "moesim-routing"
VERSION: Literal[1] = 1

Count = Annotated[int, Field(ge=1, le=10**7, strict=True)]
Size = Annotated[int, Field(ge=0, le=10**12, strict=True)]
Bytes = Annotated[int, Field(ge=1, le=2**53, strict=True)]
MOST_KEYS = 10**6


class PromptSource(BaseModel):
    """Where prompts came from: `sequences` and `tokens` count what the trace holds of this source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    domain: str
    source: str
    licence: str
    split: str
    sequences: Size
    tokens: Size


class RoutingMeta(BaseModel):
    """Metadata of a routing trace.

    `router`: "decoupled" has one decision per token for all layers (R = 1), "layerwise" one per layer (R = layers).
    `k` experts per decision at most, `m` stored best experts (0: none), `p` predicted experts per distance (0: none).
    `key_map` maps (layer, expert) to a dense key where layers share weights; None means `layer * experts + expert`.
    `key_bytes` is the size of every key, or a list of one size per key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["moesim-routing"] = FORMAT
    version: Literal[1] = VERSION
    model: str
    router: Literal["decoupled", "layerwise"]
    layers: Count
    experts: Annotated[int, Field(ge=1, le=32767, strict=True)]
    k: Count = 1
    m: Size = 0
    p: Size = 0
    key_map: list[list[Size]] | None = None
    key_bytes: Bytes | list[Bytes]
    label: Literal["captured", "synthetic"]
    device: str = ""
    dtype: str = ""
    created: str = ""
    command: str = ""
    versions: dict[str, str] = {}
    prompts: list[PromptSource] = []
    outputs: str = ""
    report: dict[str, Any] = {}
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> RoutingMeta:
        wrong = list(_count_problems(self)) + list(_key_problems(self))
        if wrong:
            raise PydanticCustomError("routing_meta", "{text}", {"text": "; ".join(wrong)})
        return self

    @property
    def decisions(self) -> int:
        """R: routing decisions stored per token."""
        return 1 if self.router == "decoupled" else self.layers

    @cached_property
    def key_table(self) -> np.ndarray:
        """int32 [layers, experts]: the dense key of each layer's expert."""
        if self.key_map is not None:
            return np.asarray(self.key_map, dtype=np.int32)
        return np.arange(self.layers * self.experts, dtype=np.int32).reshape(self.layers, self.experts)

    @property
    def keys(self) -> int:
        """Number of distinct keys."""
        return int(self.key_table.max()) + 1

    @cached_property
    def key_sizes(self) -> np.ndarray:
        """int64 [keys]: bytes of each key."""
        return np.broadcast_to(np.asarray(self.key_bytes, dtype=np.int64), (self.keys,)).copy()


def _count_problems(meta: RoutingMeta) -> list[str]:
    wrong = []
    if meta.k > meta.experts:
        wrong.append(f"k is {meta.k}, but there are {meta.experts} experts")
    least = min(2 * meta.k, meta.experts)
    if meta.m and not least <= meta.m <= meta.experts:
        wrong.append(f"m is {meta.m}; it must be 0 or in {least}..{meta.experts} (at least 2k, at most all experts)")
    if meta.p > meta.experts:
        wrong.append(f"p is {meta.p}, but there are {meta.experts} experts")
    if meta.p and meta.router == "decoupled":
        wrong.append(f"p is {meta.p}, but a decoupled router has no later decision to predict; p must be 0")
    return wrong


def _key_problems(meta: RoutingMeta) -> list[str]:
    wrong = []
    keys = meta.layers * meta.experts
    if keys > MOST_KEYS:
        return [f"{meta.layers:,} layers of {meta.experts:,} experts are more than {MOST_KEYS:,} keys"]
    if meta.key_map is not None:
        shape = {len(row) for row in meta.key_map}
        if len(meta.key_map) != meta.layers or shape != {meta.experts}:
            wrong.append(f"key_map must have {meta.layers} rows (layers) of {meta.experts} keys (experts)")
        used = sorted({key for row in meta.key_map for key in row})
        keys = len(used)
        if used != list(range(keys)):
            wrong.append(f"key_map must use dense keys 0..{keys - 1}; its largest is {used[-1] if used else 'missing'}")
        twice = [layer for layer, row in enumerate(meta.key_map) if len(set(row)) < len(row)]
        if twice:
            wrong.append(f"key_map gives two experts of one layer the same key (layers {', '.join(map(str, twice))})")
    if isinstance(meta.key_bytes, list) and len(meta.key_bytes) != keys:
        wrong.append(f"key_bytes lists {len(meta.key_bytes)} sizes; there are {keys} keys")
    return wrong
