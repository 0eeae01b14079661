"""Intervals over replications, paired where two runs saw the same traffic.

Replications are independent: each draws its own share of the captured sequences, so a re-used sequence stays in one
cluster. Two policies of one replication saw the same sequences in the same order, so what is compared is their
difference, or the ratio of two differences, replication by replication.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its confidence interval. NaN limits: no interval (one replication, or an unbounded one)."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2

    @property
    def bounded(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    def scaled(self, factor: float) -> Interval:
        """The same in another unit; the factor is above 0."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def excludes(self, value: float) -> bool:
        """Whether the data speak against `value`; an interval that does not exist excludes nothing."""
        return self.bounded and not self.low <= value <= self.high


NOTHING = Interval(math.nan, math.nan, math.nan)


@lru_cache(maxsize=1024)
def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """The t that |T| stays below with this probability, T being Student's with `freedom` degrees.

    The closed forms of Abramowitz and Stegun 26.7.3 and 26.7.4, inverted by bisection on the angle arctan(t / sqrt(n)).
    """
    if freedom < 1 or not 0 < confidence < 1:
        raise ValueError(f"freedom must be >= 1 and confidence inside 0..1, not {freedom} and {confidence}")
    low, high = 0.0, math.pi / 2
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _t_inside(freedom, middle) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _t_inside(freedom: int, angle: float) -> float:
    odd = freedom % 2
    term, total = (math.cos(angle), 0.0) if odd else (1.0, 0.0)
    for power in range(odd, freedom - 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total


def mean(values: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE) -> Interval:
    """The mean of independent replications and its t-interval; NaN where a replication has no value."""
    sample = np.asarray(values, dtype=float)
    if not len(sample):
        return NOTHING
    value = math.fsum(sample) / len(sample)
    if len(sample) < 2 or not math.isfinite(value):
        return Interval(value, math.nan, math.nan)
    half = t_quantile(len(sample) - 1, confidence) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return Interval(value, value - half, value + half)


def difference(
    ours: Sequence[float] | np.ndarray, theirs: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE
) -> Interval:
    """Mean of `ours - theirs` over replications in the same order, with the paired t-interval."""
    return mean(np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float), confidence)


def ratio(
    above: Sequence[float] | np.ndarray, below: Sequence[float] | np.ndarray, confidence: float = CONFIDENCE
) -> Interval:
    """mean(above) / mean(below) with Fieller's interval for paired samples.

    The interval is bounded exactly where the t-interval of mean(below) excludes zero; otherwise its limits are NaN.
    Source: Fieller, Some problems in interval estimation, J. R. Stat. Soc. B 16 (1954).
    """
    pairs = np.asarray([above, below], dtype=float)
    (x, y), n = pairs.mean(axis=1).tolist(), pairs.shape[1]
    value = x / y if y else math.nan
    if n < 2 or not math.isfinite(value):
        return Interval(value, math.nan, math.nan)
    spread = np.cov(pairs) * (t_quantile(n - 1, confidence) ** 2 / n)
    (xx, xy), (_, yy) = spread.tolist()
    square, middle = y * y - yy, x * y - xy
    if square <= 0:
        return Interval(value, math.nan, math.nan)
    root = math.sqrt(max(middle**2 - square * (x * x - xx), 0.0))
    return Interval(value, (middle - root) / square, (middle + root) / square)
