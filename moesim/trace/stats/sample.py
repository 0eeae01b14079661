"""The tokens that the statistics are about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from moesim.trace.routing import RoutingTrace


@dataclass(frozen=True, slots=True)
class Sample:
    """experts int16 [tokens, R, k] of whole sequences, offsets int64 [sequences + 1], `count` experts a layer."""

    experts: np.ndarray
    offsets: np.ndarray
    count: int
    of: str

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
        return (
            Sample(self.experts[:cut], first, self.count, self.of),
            Sample(self.experts[cut:], second, self.count, self.of),
        )


def sample_of(trace: RoutingTrace) -> Sample:
    """The output tokens, which a decode cache sees one by one; all tokens where there are no outputs."""
    if not trace.output_tokens.any():
        return Sample(trace.experts, trace.offsets, trace.meta.experts, "prompt tokens")
    position = np.arange(trace.tokens) - np.repeat(trace.offsets[:-1], trace.lengths)
    output = position >= np.repeat(trace.prompt_tokens, trace.lengths)
    lengths = trace.output_tokens[trace.output_tokens > 0]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Sample(trace.experts[output], offsets, trace.meta.experts, "output tokens")
