"""The GPU memory of the expert cache: how a configured size is shared out (docs/model.md, "The cache")."""

from __future__ import annotations

from typing import Protocol

from moesim.hardware.keys import Keys


class Size(Protocol):
    """The memory section of an experiment: one of `slots`, `bytes` and `share` is given."""

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
