"""Whether a server can keep up with open traffic: the drift of the number in the system while its batch is full.

A queue is stable where that drift is negative outside a finite set of states (Foster, On the stochastic matrices
associated with certain queuing processes, Ann. Math. Stat. 24, 1953; Asmussen, Applied Probability and Queues, I.5).
Here that set are the times at which no more requests are in the system than the largest step had. The rest of the time
the server has all the work that it can take, so that requests leave as fast as they ever will. If they still come
faster, their number grows for as long as the traffic goes on, and any mean of their latencies with it.

A server that works at many requests in turn has done much for them before the first is gone. So what has been done for
those that are there, evenly from the first step to the last token, counts as the part of a request that has left; at
the end of the time, less that at its beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEAST = 20
"""requests that must have been expected while the batch was full"""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What one run saw between two instants; times in ns."""

    period: int
    full: int
    """time with more requests in the system than the largest step has"""
    left: float
    """requests that left in that time, with what was done for those that had not"""
    expected: float
    """requests that come in that time on average, at the rate of the traffic"""


def pressure(
    lives: tuple[np.ndarray, np.ndarray, np.ndarray], most: int, start: int, end: int, gap: float | None = None
) -> Pressure:
    """Of requests that came, started and left (-1: not yet) at these times, from `start` to `end`.

    `most` is the number of requests of the largest step, `gap` the mean time between two arrivals; those of the period
    give it where it is not known. What has begun and not ended is taken to be half done when the last of all leaves.
    """
    arrival, begun, gone = lives
    times = np.unique(np.concatenate([arrival, gone[gone >= 0], [start, end]]))
    came, went = (_until(column[column >= 0], times) for column in (arrival, gone))
    full = (times[:-1] >= start) & (times[1:] <= end) & (came[:-1] - went[:-1] > most)
    time, left = int(np.diff(times)[full].sum()), float(np.diff(went)[full].sum())
    for place, sign in ((-1, 1), (0, -1)):
        inside = np.flatnonzero((times[:-1] >= start) & (times[1:] <= end))
        if len(inside) and full[inside[place]]:
            left += sign * _done(begun, gone, end if sign > 0 else start)
    period = end - start
    within = int(((arrival > start) & (arrival <= end)).sum())
    rate = 1 / gap if gap else within / period if period > 0 else 0.0
    return Pressure(period, time, left, time * rate)


def _until(instants: np.ndarray, times: np.ndarray) -> np.ndarray:
    """How many of the instants have come at each time."""
    return np.searchsorted(np.sort(instants), times, side="right")


def _done(begun: np.ndarray, gone: np.ndarray, now: int) -> float:
    """Requests' worth of work that has been done for those that are being served."""
    last = max(gone.max(initial=now), now)
    serving = (begun >= 0) & (begun < now) & ((gone < 0) | (gone > now))
    begun, gone = begun[serving], gone[serving]
    return float(((now - begun) / (np.where(gone < 0, 2 * last - begun, gone) - begun)).sum())


def overloaded(runs: Sequence[Pressure]) -> bool:
    """Whether a server cannot keep up, from all replications of a configuration together.

    Its batch was full for at least half of the time, and meanwhile more requests came than left.
    """
    full, period = sum(run.full for run in runs), sum(run.period for run in runs)
    expected, left = sum(run.expected for run in runs), sum(run.left for run in runs)
    return 2 * full >= period > 0 and expected >= LEAST and expected > left
