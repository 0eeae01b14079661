from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import Pool, View, register
from moesim.policy.cache import Counted, in_units


@register("gdsf")
class GDSF(Counted):
    """Evict the key of least age + uses * cost / size (GreedyDual-Size-Frequency); the age is that of the last victim.

    For keys of unequal sizes. `cost` of a miss: `one` (fewest misses), or `link`, the time of the copy but for a
    constant factor: its bytes and `fixed_bytes`, what the link could have moved in the fixed time of one copy (10 us at
    25 GB/s are 250,000). A key's uses are counted since it entered. One that enters is ranked with the age from before
    room was made for it, as in libCacheSim (and, from memory, in the report: enqueue, then evict).

    Source: Cherkasova, HP Labs report HPL-98-69R1, 1998 (section not known); libCacheSim GDSF (code, no section).
    """

    cost = "O(log n)"

    def __init__(self, cost: str = "one", fixed_bytes: int = 250_000) -> None:
        if cost not in ("one", "link"):
            raise ValueError(f"cost {cost!r} must be one or link")
        if isinstance(fixed_bytes, bool) or not isinstance(fixed_bytes, int) or fixed_bytes < 0:
            raise ValueError(f"fixed_bytes {fixed_bytes!r} must be a whole number of bytes, 0 or more")
        self.fixed_bytes = fixed_bytes if cost == "link" else None

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        # In units, values of keys of one size are whole numbers, and equal ones are equal.
        self.sizes = in_units(pool)[1]
        self.age = self.before = 0.0
        """the age, and what it was before room was made for the next key to enter"""
        self.uses: dict[int, int] = {}

    def refer(self, key: int, stamp: int, first: bool) -> tuple[float, int]:
        self.uses[key] = 1 if first else self.uses[key] + 1
        worth = self.uses[key] / self.sizes[key]
        if self.fixed_bytes is not None:
            worth *= self.fixed_bytes + self.pool.sizes[key]
        return self.age + worth, stamp

    def used(self, keys: Sequence[int]) -> None:
        self.before = self.age
        super().used(keys)

    def inserted(self, key: int, prefetched: bool) -> None:
        now, self.age = self.age, self.before
        super().inserted(key, prefetched)
        self.age = self.before = now

    def evicted(self, key: int) -> None:
        # The least value that is there, and not the key's own: that is the same for a victim which nothing barred stood
        # before, and a prefetch that is called off must not make all others old.
        least = self.ranking.first()
        if least is not None:
            self.age = self.ranking.rank[least][0]
        super().evicted(key)

    def forget(self, key: int) -> None:
        del self.uses[key]
