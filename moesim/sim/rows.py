"""Rows of the routing trace that the tokens of the running step replay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moesim.sim.work import Part
from moesim.trace.routing import RoutingTrace


class StepRows:
    """`rows` int64 [tokens], in the order of the step's parts; for those who read more of the trace than experts.

    Who makes the requests says where they are: request r is sequence `sequences[r]` of `trace`.
    """

    def __init__(self, trace: RoutingTrace) -> None:
        self.bind(trace, ())
        self.rows = np.zeros(0, dtype=np.int64)
        self.parts: Sequence[Part] = ()

    def bind(self, trace: RoutingTrace, sequences: Sequence[int]) -> None:
        """Read requests from there; `sequences` grows with them."""
        self.trace, self.sequences = trace, sequences

    def begin(self, parts: Sequence[Part]) -> None:
        """A step of these parts starts."""
        starts = [int(self.trace.offsets[self.sequences[part.request]]) + part.start for part in parts]
        rows = [np.arange(first, first + part.tokens) for first, part in zip(starts, parts, strict=True)]
        self.rows, self.parts = np.concatenate(rows), parts
