from __future__ import annotations

from math import log2

from moesim.policy import Pool, View, register
from moesim.policy.cache import Counted


@register("lrfu")
class LRFU(Counted):
    """Evict the key with the least combined recency and frequency: each use weighs (1/2)^(decay * uses since).

    `decay` 0 is LFU that forgets at eviction, 1 is LRU. Time runs by one with every key used, as in the paper (one
    reference a tick). A key's value shrinks at the same rate as all others', so its logarithm plus decay * last use
    orders keys for good.

    Source: Lee et al., IEEE Trans. Computers 50(12), 2001, section 3.
    """

    cost = "O(log n)"

    def __init__(self, decay: float = 0.01) -> None:
        if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay <= 1:
            raise ValueError(f"decay {decay!r} must be a number from 0 (LFU) to 1 (LRU)")
        self.decay = decay

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.value: dict[int, tuple[float, int]] = {}
        """combined recency and frequency at the last use, and when that was"""

    def refer(self, key: int, stamp: int, first: bool) -> tuple[float, int]:
        value = 1.0
        if not first:
            before, last = self.value[key]
            value += before * 2 ** (-self.decay * (stamp - last))
        self.value[key] = value, stamp
        return log2(value) + self.decay * stamp, stamp

    def forget(self, key: int) -> None:
        del self.value[key]
