"""The tokens that the statistics are about."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from moesim.trace.routing import RoutingTrace


@dataclass(frozen=True, slots=True)
class Sample:
    """experts int16 [tokens, R, k] of whole sequences, offsets int64 [sequences + 1], `count` experts a layer.

    `domains`: of each sequence; `predicted`: distance -> int16 [tokens, R, p], where the trace has recorded any; `best`
    int16 [tokens, R]: each token's best expert, where that is stored; `first`: the same, or else the first chosen one.
    """

    experts: np.ndarray
    offsets: np.ndarray
    count: int
    of: str
    domains: tuple[str, ...] = ()
    predicted: dict[int, np.ndarray] = field(default_factory=dict)
    best: np.ndarray | None = None

    @property
    def first(self) -> np.ndarray:
        return self.experts[:, :, 0] if self.best is None else self.best

    @property
    def tokens(self) -> int:
        return len(self.experts)

    @property
    def sequence(self) -> np.ndarray:
        """int64 [tokens]: the sequence of each token."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def halves(self) -> tuple[Sample, Sample]:
        """The first and the second half: of the sequences, or of the tokens where there is only one sequence."""
        middle = (len(self.offsets) - 1) // 2
        cut = int(self.offsets[middle]) if len(self.offsets) > 2 else self.tokens // 2
        first = np.append(self.offsets[self.offsets < cut], cut)
        second = np.append(0, self.offsets[self.offsets > cut] - cut)
        return (self._of(slice(cut), first), self._of(slice(cut, None), second))

    def _of(self, rows: slice, offsets: np.ndarray) -> Sample:
        predicted = {distance: ids[rows] for distance, ids in self.predicted.items()}
        return Sample(self.experts[rows], offsets, self.count, self.of, predicted=predicted)


def sample_of(trace: RoutingTrace) -> Sample:
    """The output tokens, which a decode cache sees one by one; all tokens where there are no outputs."""
    best = None if trace.top_experts is None else trace.top_experts[:, :, 0]
    count = trace.meta.experts
    if not trace.output_tokens.any():
        return Sample(trace.experts, trace.offsets, count, "prompt tokens", trace.domains, dict(trace.predicted), best)
    position = np.arange(trace.tokens) - np.repeat(trace.offsets[:-1], trace.lengths)
    output = position >= np.repeat(trace.prompt_tokens, trace.lengths)
    there = trace.output_tokens > 0
    offsets = np.concatenate([[0], np.cumsum(trace.output_tokens[there])]).astype(np.int64)
    domains = tuple(domain for domain, any_of_it in zip(trace.domains, there, strict=True) if any_of_it)
    predicted = {distance: ids[output] for distance, ids in trace.predicted.items()}
    best = None if best is None else best[output]
    return Sample(trace.experts[output], offsets, count, "output tokens", domains, predicted, best)
