"""Expert keys: which weights a layer's expert stands for, and how many bytes they take (docs/model.md, "Keys")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from moesim.hardware.shape import ModelShape


@dataclass(frozen=True)
class Keys:
    """`table[layer][expert]` is a key, `sizes[key]` its bytes. Keys are dense integers from 0."""

    layers: int
    experts: int
    table: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, shape: ModelShape, key_map: Sequence[Sequence[int]] | None = None) -> Keys:
        """Keys of a model. `key_map`, of the captured model, counts where the shape has none of its own."""
        layers, experts = shape.layers, shape.experts
        chosen = shape.key_map or key_map
        if chosen:
            table = tuple(map(tuple, chosen))
        else:
            table = tuple(tuple(range(layer * experts, (layer + 1) * experts)) for layer in range(layers))
        count = 1 + max(map(max, table))
        return cls(layers, experts, table, shape.key_sizes or (shape.key_bytes,) * count)

    @property
    def count(self) -> int:
        """How many keys there are."""
        return len(self.sizes)

    @cached_property
    def shared(self) -> bool:
        """Some key serves several layers."""
        return self.count < self.layers * self.experts

    @cached_property
    def plain(self) -> bool:
        """A key is `layer * experts + expert`."""
        return self.table == tuple(
            tuple(range(layer * self.experts, (layer + 1) * self.experts)) for layer in range(self.layers)
        )

    @cached_property
    def equal(self) -> bool:
        """All keys are of one size."""
        return len(set(self.sizes)) == 1

    @cached_property
    def total_bytes(self) -> int:
        """Bytes of all keys."""
        return sum(self.sizes)

    @cached_property
    def largest(self) -> int:
        """Bytes of the largest key."""
        return max(self.sizes)

    def largest_of(self, layer: int) -> int:
        """Bytes of the largest key of a layer."""
        return max(self.sizes[key] for key in self.table[layer])

    def of_layer(self, layer: int, experts: Sequence[int]) -> tuple[int, ...]:
        """Keys of some of a layer's experts."""
        row = self.table[layer]
        return tuple(row[expert] for expert in experts)
