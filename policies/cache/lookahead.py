from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np

from moesim.policy import FAR, CachePolicy, Pool, View, register
from moesim.policy.rule import Rule

SMALL = 16
"""pools with fewer resident keys are searched one by one, larger ones as arrays"""


@register("lookahead")
class Lookahead(CachePolicy):
    """Evict the key whose next use is farthest among what the level shows, the least recently used of equals.

    `level`: `step`, `queue` or `oracle`. `horizon`: uses at most that many layer events ahead are seen; None sees all
    that the level shows. `unknown`: what is assumed of a next use that the level does not show, `farthest` or
    `persist` (a decoding request keeps its expert). Horizon 0 is LRU; unlimited at `oracle` under a frozen schedule is
    Belady's MIN (Belady 1966; Read-ME 4.1 evicts argmax F(e, t) over queued tokens, which is level `queue`).

    Source: Belady, IBM Systems Journal 5(2), 1966, the algorithm called MIN (section not known); Read-ME (2410.19123),
    section 4.1.
    """

    cost = "O(n)"

    def __init__(self, level: str = "queue", horizon: int | None = None, unknown: str = "farthest") -> None:
        if level not in ("step", "queue", "oracle"):
            raise ValueError(f"level {level!r} must be step, queue or oracle")
        if horizon is not None and (isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 0):
            raise ValueError(f"horizon {horizon!r} must be null or a whole number of layer events, 0 or more")
        if unknown not in ("farthest", "persist"):
            raise ValueError(f"unknown {unknown!r} must be farthest or persist")
        self.level = level
        self.horizon = horizon
        self.unknown = unknown

    @property
    def rule(self) -> Rule:
        return Rule("next_use", horizon=self.horizon)

    def start(self, pool: Pool, view: View) -> None:
        self.view = view
        self.first = pool.keys.start
        self.last_use = np.zeros(len(pool.keys), dtype=np.int64)
        self.absent = np.ones(len(pool.keys), dtype=bool)
        self.resident: set[int] = set()
        self.clock = 0

    def used(self, keys: Sequence[int]) -> None:
        for key in keys:
            self.clock += 1
            self.last_use[key - self.first] = self.clock

    def inserted(self, key: int, prefetched: bool) -> None:
        self.resident.add(key)
        self.absent[key - self.first] = False
        if prefetched:
            self.used((key,))

    def evicted(self, key: int) -> None:
        self.resident.remove(key)
        self.absent[key - self.first] = True

    def victim(self, barred: Container[int]) -> int | None:
        limit = FAR if self.horizon is None else self.view.event + self.horizon + 1
        if len(self.resident) < SMALL:
            return self._search(barred, limit)
        return self._search_arrays(barred, limit)

    def _search(self, barred: Container[int], limit: int) -> int | None:
        best, best_rank = None, (-1, 0)
        uses = self.view.next_uses
        for key in self.resident:
            if key not in barred:
                use = int(uses[key])
                rank = (use if use < limit else FAR, -int(self.last_use[key - self.first]))
                if rank > best_rank:
                    best, best_rank = key, rank
        return best

    def _search_arrays(self, barred: Container[int], limit: int) -> int | None:
        uses = self.view.next_uses[self.first : self.first + len(self.last_use)]
        uses = np.minimum(uses, FAR) if limit == FAR else np.where(uses < limit, uses, FAR)
        uses[self.absent] = -1
        while (farthest := uses.max()) >= 0:
            equal = (uses == farthest).nonzero()[0]
            oldest = int(equal[self.last_use[equal].argmin()])
            if oldest + self.first not in barred:
                return oldest + self.first
            uses[oldest] = -1
        return None
