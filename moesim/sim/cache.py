"""The expert cache: which keys are on the GPU, which may leave, and who decides (docs/model.md)."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from moesim.policy import CachePolicy

ABSENT, LOADING, FRESH, RESIDENT = range(4)
"""states of a key; FRESH came by prefetch and has not been used yet"""


class Either:
    """Membership in one of two containers, without building their union."""

    __slots__ = ("one", "other")

    def __init__(self, one: Container[int], other: Container[int]) -> None:
        self.one, self.other = one, other

    def __contains__(self, key: object) -> bool:
        return key in self.one or key in self.other


@dataclass(slots=True)
class CacheCounts:
    evictions: int = 0
    demand_loads: int = 0
    demand_bytes: int = 0
    prefetch_loads: int = 0
    prefetch_bytes: int = 0
    wasted_bytes: int = 0
    """prefetched and evicted before any use"""


class ExpertCache:
    """States of all keys and the room in each pool.

    `event` and `unrun` are set by the engine for the present layer event. Its keys leave only if nothing else can:
    first those that have run, last those that still have to (they are loaded again then).
    """

    def __init__(
        self, sizes: Sequence[int], pool_of: Sequence[int], capacity: Sequence[int], policies: Sequence[CachePolicy]
    ) -> None:
        self.sizes = sizes
        self.pool_of = pool_of
        self.capacity = capacity
        self.policies = policies
        self.state = bytearray(len(sizes))
        self.used_bytes = [0] * len(capacity)
        self.pinned: set[int] = set()
        """from the start of a copy to its end or, if the layer event needs the key, to the end of its kernel"""
        self.event: Container[int] = ()
        self.unrun: Container[int] = ()
        self.count = CacheCounts()
        self.there_at_first = 0
        self.script: list[tuple[str, tuple[int, ...]]] | None = None
        """what happened to keys, in order, while an engine wants to know"""
        self.needed_sooner: Callable[[int], Container[int]] = lambda key: ()
        """keys that a prefetch of `key` must not evict"""

    def make_room(self, key: int, demanded: bool, now: int) -> bool:
        """Evict until `key` fits and mark it loading; False, with nothing changed, if no set of victims will do."""
        pool = self.pool_of[key]
        short = self.used_bytes[pool] + self.sizes[key] - self.capacity[pool]
        tier = self._evict(pool, short, self._tiers(key, demanded)) if short > 0 else 0
        if tier is None:
            return False
        self.note("again" if tier else "load", (key,))
        self.state[key] = LOADING
        self.used_bytes[pool] += self.sizes[key]
        self.pinned.add(key)
        self.policies[pool].inserted(key, not demanded)
        count = self.count
        if demanded:
            count.demand_loads += 1
            count.demand_bytes += self.sizes[key]
        else:
            count.prefetch_loads += 1
            count.prefetch_bytes += self.sizes[key]
        return True

    def swap_in(self, key: int, barred: Container[int]) -> None:
        """`make_room` and `landed` of a demand in one, where keys are of one size and a victim is sure to be there."""
        pool, size, state = self.pool_of[key], self.sizes[key], self.state
        policy = self.policies[pool]
        if self.used_bytes[pool] + size > self.capacity[pool]:
            victim = policy.victim(barred)
            assert victim is not None
            self._leave(victim, pool)
        state[key] = RESIDENT
        self.used_bytes[pool] += size
        policy.inserted(key, False)
        self.count.demand_loads += 1
        self.count.demand_bytes += size

    def note(self, what: str, keys: Iterable[int]) -> None:
        """Enter into the script, if one is being written."""
        if self.script is not None:
            self.script.append((what, tuple(keys)))

    def _tiers(self, key: int, demanded: bool) -> tuple[Container[int], ...]:
        if not demanded:
            return (Either(Either(self.pinned, self.event), self.needed_sooner(key)),)
        if not self.event:
            return (self.pinned,)
        return Either(self.event, self.pinned), Either(self.pinned, self.unrun), self.pinned

    def _evict(self, pool: int, short: int, tiers: tuple[Container[int], ...]) -> int | None:
        """Take victims tier by tier until `short` bytes are free; the last tier needed, or None and nothing taken."""
        chosen: list[int] = []
        for tier, barred in enumerate(tiers):
            while short > 0:
                victim = self.policies[pool].victim(Either(barred, chosen) if chosen else barred)
                if victim is None:
                    break
                chosen.append(victim)
                short -= self.sizes[victim]
            if short <= 0:
                for victim in chosen:
                    self._leave(victim, pool)
                return tier
        return None

    def _leave(self, key: int, pool: int) -> None:
        if self.state[key] == FRESH:
            self.count.wasted_bytes += self.sizes[key]
        self.state[key] = ABSENT
        self.used_bytes[pool] -= self.sizes[key]
        self.count.evictions += 1
        self.policies[pool].evicted(key)

    def landed(self, key: int, demanded: bool) -> None:
        """The copy of `key` is over. A key that the present event needs stays pinned until its kernel has run."""
        self.state[key] = RESIDENT if demanded else FRESH
        if not demanded and key not in self.unrun:
            self.pinned.discard(key)

    def balance(self) -> None:
        """Keys there and on their way are those loaded and not evicted; raises AssertionError with the numbers."""
        count = self.count
        there = len(self.state) - self.state.count(ABSENT) - self.there_at_first
        if count.demand_loads + count.prefetch_loads - count.evictions != there:
            raise AssertionError(f"{count} do not balance: {there} keys more than at first are there")

    def verify(self) -> None:
        """Conservation at this instant (`--check`); raises AssertionError with the numbers."""
        for pool, capacity in enumerate(self.capacity):
            held = sum(
                s for s, p, state in zip(self.sizes, self.pool_of, self.state, strict=True) if p == pool and state
            )
            assert held == self.used_bytes[pool] <= capacity, (pool, held, self.used_bytes[pool], capacity)
        moving = {key for key, state in enumerate(self.state) if state == LOADING}
        assert moving <= self.pinned, (moving, self.pinned)
