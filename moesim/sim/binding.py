"""Binding of requests to captured sequences, so that the routing of every length that is asked stays real.

The rule (docs/traffic.md, with its measured statistics): a request takes prompt routes from its own sequence's prompt
and output routes from its output, from their beginnings. Where it asks for fewer, what is over is cut off. Where it
asks for more, `stitch` goes on with the same part of other sequences of the domain and of the replication's share,
`recycle` with that of its own again. Prompts go on at position SETTLED: the first tokens of a text are routed more
restlessly than later ones, and would come too often.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from moesim.trace.routing import RoutingTrace

SETTLED = 64
"""position from which a prompt continues another; only prompts of more than twice as many tokens do"""
Piece = tuple[int, int]
"""rows of the captured trace: first, and one past the last"""


@dataclass(frozen=True, slots=True)
class Borrowed:
    """Tokens of a request whose routing is not its own sequence's first use, by reason."""

    stitched: int
    """beyond the end of its sequence's prompt or output"""
    recycled: int
    """rows that the run has replayed before"""
    either: int


class Gathered:
    """Rows of `base`, as `index` lists them: read like an array along its first axis, and never made as a whole.

    `index` grows as requests are bound; `base[index]` of 20,000 requests with a thousand tokens each might not fit.
    """

    def __init__(self, base: np.ndarray, index: RowIndex) -> None:
        self.base, self.index = base, index
        self.dtype, self.ndim = base.dtype, base.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.index.used, *self.base.shape[1:])

    def __len__(self) -> int:
        return self.index.used

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            return self.base[(self.index.rows[key[0]], *key[1:])]
        return self.base[self.index.rows[key]]


class RowIndex:
    """int32 rows of the captured trace, one after another, in an array with room to grow."""

    __slots__ = ("rows", "used")

    def __init__(self) -> None:
        self.rows = np.zeros(1024, dtype=np.int32)
        self.used = 0

    def extend(self, rows: np.ndarray) -> None:
        """Put `rows` behind what is there."""
        end = self.used + len(rows)
        if end > len(self.rows):
            grown = np.zeros(max(end, 2 * len(self.rows)), dtype=np.int32)
            grown[: self.used] = self.rows[: self.used]
            self.rows = grown
        self.rows[self.used : end] = rows
        self.used = end


class Supply:
    """An endless line of pieces, one a sequence, in an order that is shuffled anew each time it is used up."""

    def __init__(self, pieces: dict[int, Piece], rng: np.random.Generator) -> None:
        self.pieces, self.rng = pieces, rng
        self.coming: list[int] = []

    def next(self, but: int) -> Piece:
        """The next piece that is not of sequence `but`, unless there is no other."""
        while True:
            if not self.coming:
                self.coming = self.rng.permutation(list(self.pieces)).tolist()
            sequence = self.coming.pop()
            if sequence != but or len(self.pieces) == 1:
                return self.pieces[sequence]


class Binder:
    """Gives requests of any length their rows. `shares` are the captured sequences of each domain."""

    def __init__(
        self, trace: RoutingTrace, shares: Sequence[np.ndarray], longer: str, rng: np.random.Generator
    ) -> None:
        self.captured, self.longer = trace, longer
        self.seen = np.zeros(trace.tokens, dtype=bool)
        self.index, self.offsets = RowIndex(), [0]
        self.prompts = [Supply(settled(trace, share), rng) for share in shares]
        self.outputs = [Supply({int(s): outputs_of(trace, int(s)) for s in share}, rng) for share in shares]
        self.trace = _gathered(trace, self.index, self.offsets)
        """the bound requests as a trace: request n is its sequence n"""

    def bind(self, domain: int, sequence: int, prompt: int, output: int) -> Borrowed:
        """Rows for the next request, which begins with those of `sequence`."""
        trace = self.captured
        before = settled(trace, [sequence])[sequence]
        told = [
            self._part(prompt, prompt_of(trace, sequence), before, self.prompts[domain], sequence),
            self._part(output, own := outputs_of(trace, sequence), own, self.outputs[domain], sequence),
        ]
        self.offsets.append(self.index.used)
        return Borrowed(*(sum(counts) for counts in zip(*told, strict=True)))

    def _part(self, asked: int, own: Piece, again: Piece, supply: Supply, sequence: int) -> tuple[int, int, int]:
        """Enter rows of a prompt or an output; tokens that are stitched, recycled, either."""
        start, end = own
        recycled = either = self._enter(start, min(end, start + asked))
        left = stitched = max(0, asked - (end - start))
        while left:
            start, end = again if self.longer == "recycle" else supply.next(but=sequence)
            taken = min(left, end - start)
            recycled += self._enter(start, start + taken)
            left -= taken
        return stitched, recycled, either + stitched

    def _enter(self, start: int, end: int) -> int:
        """Put rows into the index; how many of them have been there before."""
        known = int(np.count_nonzero(self.seen[start:end]))
        self.seen[start:end] = True
        self.index.extend(np.arange(start, end, dtype=np.int32))
        return known


def prompt_of(trace: RoutingTrace, sequence: int) -> Piece:
    """Rows of a sequence's prompt."""
    start = int(trace.offsets[sequence])
    return start, start + int(trace.prompt_tokens[sequence])


def outputs_of(trace: RoutingTrace, sequence: int) -> Piece:
    """Rows of a sequence's output."""
    return prompt_of(trace, sequence)[1], int(trace.offsets[sequence + 1])


def settled(trace: RoutingTrace, share: Iterable[int]) -> dict[int, Piece]:
    """Prompt rows with which each sequence continues another; whole prompts where no sequence of the share is long."""
    whole = {int(s): prompt_of(trace, int(s)) for s in share}
    long = {s: (start + SETTLED, end) for s, (start, end) in whole.items() if end - start > 2 * SETTLED}
    return long or whole


def _gathered(trace: RoutingTrace, index: RowIndex, offsets: list[int]) -> RoutingTrace:
    """A trace whose arrays are read through `index`; all that reads single rows or ranges of them can use it."""

    def through(array: np.ndarray | None) -> np.ndarray:
        return cast(np.ndarray, None if array is None else Gathered(array, index))

    return replace(
        trace,
        experts=through(trace.experts),
        weights=through(trace.weights),
        offsets=cast(np.ndarray, offsets),
        prompt_tokens=np.zeros(0, dtype=np.int32),
        domains=(),
        predicted={distance: through(array) for distance, array in trace.predicted.items()},
        predicted_weights={distance: through(array) for distance, array in trace.predicted_weights.items()},
        top_experts=through(trace.top_experts),
        top_weights=through(trace.top_weights),
    )
