"""GPU memory: how it is shared out between the expert cache, KV memory and the rest (docs/kv.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from moesim.hardware.keys import Keys
from moesim.hardware.shape import ModelShape


class KVSize(Protocol):
    """Its `kv`: at most one of `blocks`, `bytes` and `share` is given."""

    @property
    def blocks(self) -> int | None: ...
    @property
    def bytes(self) -> int | None: ...
    @property
    def share(self) -> float | None: ...
    @property
    def block_tokens(self) -> int: ...
    def model_copy(self, *, update: Mapping[str, Any]) -> Any: ...


class Size(Protocol):
    """The memory section of an experiment: at most one of `slots`, `bytes` and `share` is given."""

    @property
    def gpu(self) -> int | None: ...
    @property
    def workspace(self) -> int: ...
    @property
    def slots(self) -> int | None: ...
    @property
    def bytes(self) -> int | None: ...
    @property
    def share(self) -> float | None: ...
    @property
    def scope(self) -> str: ...
    @property
    def staging(self) -> int: ...
    @property
    def kv(self) -> KVSize | None: ...
    def model_copy(self, *, update: Mapping[str, Any]) -> Any: ...


Section = TypeVar("Section", bound=Size)


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes of each part. `gpu` None: no budget was given; `blocks` None: KV memory has no limit."""

    gpu: int | None
    static: int
    workspace: int
    experts: int
    """pools and staging slots"""
    staging: int
    block_bytes: int
    blocks: int | None

    @property
    def kv(self) -> int:
        return (self.blocks or 0) * self.block_bytes

    @property
    def left(self) -> int:
        """What nobody has; below 0 if the parts do not fit."""
        return (self.gpu or 0) - self.static - self.workspace - self.experts - self.kv

    def verify(self, experts: int, blocks: int) -> None:
        """Whether so many bytes of experts, staging included, and blocks fit (`--check`); raises AssertionError."""
        total = self.static + self.workspace + experts + blocks * self.block_bytes
        if self.gpu is not None and total > self.gpu:
            held = f"{experts:,} bytes of experts and {blocks:,} KV blocks are there"
            raise AssertionError(f"{held}: {total:,}, of {self}")

    def __str__(self) -> str:
        """All of it, as in `24,000,000,000 bytes: static weights 876,..., workspace 0, experts ...`."""
        kv = "" if self.blocks is None else f", KV {self.kv:,} ({self.blocks:,} blocks of {self.block_bytes:,})"
        return (
            f"{self.gpu or 0:,} bytes: static weights {self.static:,}, workspace {self.workspace:,}, "
            f"experts {self.experts:,} (staging {self.staging:,}){kv}"
        )


def budget(memory: Size, keys: Keys, shape: ModelShape) -> Budget:
    """Where the bytes go. A size that was left out is what is left: of experts at most all there are."""
    staging, kv = staging_bytes(memory, keys), memory.kv
    left = (memory.gpu or 0) - shape.static_bytes - memory.workspace
    sized = any(size is not None for size in (memory.slots, memory.bytes, memory.share))
    block = shape.kv_bytes_per_token * (kv.block_tokens if kv else 0)
    experts = sum(capacity for _, capacity in pools(memory, keys)) + staging if sized else 0
    if kv is None:
        blocks = None
    elif kv.blocks is not None:
        blocks = kv.blocks
    elif kv.bytes is not None:
        blocks = kv.bytes // block
    elif kv.share is not None:
        blocks = max(0, int(kv.share * left)) // block
    else:
        blocks = max(0, left - experts) // block
    if not sized:
        experts = max(0, min(left - (blocks or 0) * block, keys.total_bytes + staging))
    return Budget(memory.gpu, shape.static_bytes, memory.workspace, experts, staging, block, blocks)


def settled(memory: Section, keys: Keys, shape: ModelShape) -> Section:
    """The section with the sizes that it leaves out, or gives as a share of `gpu`, in bytes and blocks."""
    if memory.gpu is None and memory.kv is None:
        return memory
    found = budget(memory, keys, shape)
    sizes: dict[str, Any] = {}
    if memory.slots is None and memory.bytes is None and memory.share is None:
        sizes["bytes"] = found.experts
    if memory.kv is not None:
        sizes["kv"] = memory.kv.model_copy(update={"blocks": found.blocks, "bytes": None, "share": None})
    settled: Section = memory.model_copy(update=sizes)
    return settled


def staging_bytes(memory: Size, keys: Keys) -> int:
    """Bytes of the staging slots."""
    return memory.staging * keys.largest


def pools(memory: Size, keys: Keys) -> list[tuple[range, int]]:
    """Keys and capacity in bytes of each pool: one a layer, or one for all.

    `slots` are the largest keys of each layer, and staging comes on top; of `bytes` and `share` it is taken off first.
    A capacity below zero means that nothing was left (`check` in `moesim.sim` refuses it).
    """
    if memory.slots is not None:
        capacities = [memory.slots * keys.largest_of(layer) for layer in range(keys.layers)]
    else:
        given = memory.bytes if memory.bytes is not None else round((memory.share or 0) * keys.total_bytes)
        left = given - staging_bytes(memory, keys)
        if memory.scope == "global":
            return [(range(keys.count), left)]
        capacities = [left // keys.layers] * keys.layers
    if memory.scope == "global":
        return [(range(keys.count), sum(capacities))]
    width = keys.experts
    return [(range(width * layer, width * (layer + 1)), capacity) for layer, capacity in enumerate(capacities)]
