"""What a batch policy may see of the expert cache: a server knows which of its own experts are on the GPU."""

from __future__ import annotations

from collections.abc import Sequence


class Residency:
    """The keys that are on the GPU or on their way, at the instant of asking; nothing of what will be.

    `table[layer][expert]` is a key, `state[key]` is 0 where the key is absent.
    """

    __slots__ = ("_state", "_table")

    def __init__(self, table: Sequence[Sequence[int]], state: Sequence[int]) -> None:
        self._table, self._state = table, state

    def shares(self) -> list[float]:
        """For each expert, the share of the layers that would not have to load it."""
        state, layers = self._state, len(self._table)
        return [sum(state[key] > 0 for key in keys) / layers for keys in zip(*self._table, strict=True)]
