"""The loops of `moesim.replay.kernels` compiled by numba: optional (the extra `fast`), and no result differs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np

LEAST = 100_000
"""accesses of a stream from which on compiled loops pay for being loaded"""


def worth(accesses: int) -> bool:
    """Whether a stream so long should run compiled: numba is there, and the stream is long."""
    return accesses >= LEAST and there()


@cache
def there() -> bool:
    """Whether numba is installed."""
    return find_spec("numba") is not None


@cache
def fast(loop: Callable[..., int]) -> Callable[..., int]:
    """The loop compiled; kept on disk, so that only the first use ever waits for it."""
    import numba

    return numba.njit(cache=True)(loop)


def lru_loop(keys: Any, bounds: Any, sizes: Any, capacity: int, strict: bool, hits: Any) -> int:
    """LRU over arrays, resident keys in a ring: `kernels.lru` itself is quicker where nothing is compiled."""
    end = len(sizes)
    older, newer = np.full(end + 1, end), np.full(end + 1, end)
    there = np.zeros(end, dtype=np.bool_)
    used = peak = held = 0
    for event in range(len(bounds) - 1):
        for i in range(bounds[event], bounds[event + 1]):
            key = keys[i]
            if there[key]:
                hits[i] = 1
                newer[older[key]], older[newer[key]] = newer[key], older[key]
            else:
                there[key] = True
                used += sizes[key]
                held += 1
            last = older[end]
            newer[last], older[key] = key, last
            newer[key], older[end] = end, key
        own = 0 if strict else bounds[event + 1] - bounds[event]
        while used > capacity and held > own:
            key = newer[end]
            newer[end], older[newer[key]] = newer[key], end
            there[key] = False
            used -= sizes[key]
            held -= 1
        peak = max(peak, used)
    return peak
