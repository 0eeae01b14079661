"""Where the transient of a run ends: what is better left out of its observations (docs/statistics.md)."""

from __future__ import annotations

import numpy as np

BATCH = 5


def mser(values: np.ndarray, batch: int = BATCH) -> tuple[int, bool]:
    """How many of the first values to leave out by MSER-5, and whether that is the end of a transient.

    With Z the means of successive batches of five and k their number: the d of 0 .. k / 2 that makes
    sum over j > d of (Z_j - mean of Z_(d+1) .. Z_k)^2 / (k - d)^2 least, the first of equals, times five. It is no end
    where d is the largest of them: then the values may still be on their way, and more of them are needed.

    Sources: White, An effective truncation heuristic for bias reduction in simulation output, Simulation 69 (1997);
    White, Cobb and Spratt, A comparison of five steady-state truncation heuristics for simulation, WSC (2000).
    """
    k = len(values) // batch
    if k < 2:
        return 0, False
    means = np.asarray(values[: k * batch], dtype=np.float64).reshape(k, batch).mean(axis=1)
    means -= means.mean()
    left = np.arange(1, k + 1)
    sums, squares = np.cumsum(means[::-1]), np.cumsum(means[::-1] ** 2)
    errors = np.maximum(squares - sums**2 / left, 0) / left**2
    found = int(np.argmin(errors[::-1][: k // 2 + 1]))
    return found * batch, found < k // 2
