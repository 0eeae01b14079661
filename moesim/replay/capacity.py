"""Sizes of a cache as a user gives them: experts, experts a layer, bytes, or a share of all keys."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from moesim.experiment import UNITS
from moesim.trace.meta import RoutingMeta

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
RULE = "write experts in all ('400'), experts a layer ('8/layer'), bytes ('500MiB', '2GB') or a share ('10%')"


@dataclass(frozen=True, slots=True)
class Capacity:
    """Room for expert keys over all layers, whatever the scope, so that scopes compare at equal memory.

    `number` is of experts, bytes, or percent of the bytes of all keys.
    """

    text: str
    number: Fraction
    unit: Literal["experts", "experts a layer", "bytes", "percent"]

    @classmethod
    def parse(cls, text: str) -> Capacity:
        """Raises ValueError, saying what is allowed, for anything else."""
        text = text.strip()
        if re.fullmatch(r"\d+", text):
            return cls(text, _positive(text, Fraction(text)), "experts")
        if found := re.fullmatch(r"(\d+)\s*/\s*layer", text):
            return cls(text, _positive(text, Fraction(found[1])), "experts a layer")
        if found := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text):
            number = _positive(text, Fraction(found[1]))
            if number > 100:
                raise ValueError(f"{text!r} is more than all keys; {RULE}")
            return cls(text, number, "percent")
        found = SIZE.fullmatch(text)
        if not found or found[2] not in UNITS:
            raise ValueError(f"{text!r} is no cache size; {RULE}")
        return cls(text, _positive(text, Fraction(found[1]) * UNITS[found[2]]), "bytes")

    @property
    def counted(self) -> bool:
        """Whether it counts experts, so that all keys are taken to be of one size."""
        return self.unit.startswith("experts")

    def amount(self, meta: RoutingMeta) -> int:
        """Experts (where `counted`) or bytes, rounded down."""
        if self.unit == "percent":
            return int(self.number * int(meta.key_sizes.sum()) / 100)
        return int(self.number) * (meta.layers if self.unit == "experts a layer" else 1)

    def problem(self, meta: RoutingMeta, scope: str, strict: bool) -> str:
        """Why no cache of this size can be: bytes of keys unknown, or too small for a single key; '' if it can."""
        if self.unit == "bytes" and not sizes_known(meta):
            return (
                f"{self.text!r} is in bytes, but the trace does not say how large a key is: give experts or a share, "
                "or import it with --key-bytes"
            )
        largest = 1 if self.counted else int(meta.key_sizes.max())
        pools = meta.layers if scope == "layer" else 1
        if strict and self.amount(meta) // pools < largest:
            unit = "experts" if self.counted else "bytes"
            each = f", {self.amount(meta) // pools:,} for each of {pools} layers" if pools > 1 else ""
            return f"{self.text!r} is {self.amount(meta):,} {unit}{each}; the largest key takes {largest:,}"
        return ""


def sizes_known(meta: RoutingMeta) -> bool:
    """Whether the bytes of keys mean anything: an import that could not tell writes 1 (docs/traces.md)."""
    return not np.array_equal(np.unique(meta.key_sizes), [1])


def _positive(text: str, number: Fraction) -> Fraction:
    if not number:
        raise ValueError(f"{text!r} holds nothing; {RULE}")
    return number
