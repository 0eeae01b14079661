from __future__ import annotations

from collections.abc import Container

from moesim.policy import Pool, View, register
from moesim.policy.cache import Counted, Ranking


@register("lfru")
class LFRU(Counted):
    """Evict the key with the fewest uses since it entered for its age, uses / (keys used since its last use).

    What expert caches call LFRU (vLLM pull request 37190; its rule is known from notes only). It is not the LFRU of
    Bilal and Kang (1702.04078), which splits the cache in two. Among keys of equal uses the oldest has the least, so
    only the oldest of each count is looked at.

    Source: vLLM pull request 37190, from notes (code, no section).
    """

    cost = "O(different counts)"

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.uses: dict[int, int] = {}
        self.rows: dict[int, Ranking] = {}
        """by uses: keys in the order of their last use"""

    def refer(self, key: int, stamp: int, first: bool) -> int:
        before = self.uses.get(key, 0)
        if before:
            self._leave_row(key, before)
        self.uses[key] = 1 if first else before + 1
        self.rows.setdefault(self.uses[key], Ranking()).set(key, stamp)
        return stamp

    def forget(self, key: int) -> None:
        self._leave_row(key, self.uses.pop(key))

    def victim(self, barred: Container[int]) -> int | None:
        least, victim = (float("inf"), 0), None
        for uses, row in self.rows.items():
            key = row.first(barred)
            if key is not None:
                stamp = row.rank[key]
                rank = uses / (self.clock - stamp + 1), stamp
                if rank < least:
                    least, victim = rank, key
        return victim

    def _leave_row(self, key: int, uses: int) -> None:
        self.rows[uses].drop(key)
        if not len(self.rows[uses]):
            del self.rows[uses]
