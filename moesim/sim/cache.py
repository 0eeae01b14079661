"""The expert cache: which keys are on the GPU, which may leave, and who decides (docs/model.md)."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from moesim.policy import CachePolicy

ABSENT, LOADING, FRESH, RESIDENT = range(4)
"""states of a key; FRESH came by prefetch and has not been used yet"""

STAGING = -1
"""the place of keys that bypass the cache, where a pool's number names the others"""


class Either:
    """Membership in one of two containers, without building their union."""

    __slots__ = ("one", "other")

    def __init__(self, one: Container[int], other: Container[int]) -> None:
        self.one, self.other = one, other

    def __contains__(self, key: object) -> bool:
        return key in self.one or key in self.other


class Ahead:
    """Keys of the present event that have to run and come before `key` in the order of `index`."""

    __slots__ = ("key", "unrun")

    def __init__(self, unrun: Container[int], key: int) -> None:
        self.unrun, self.key = unrun, key

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and key < self.key and key in self.unrun


class Elsewhere:
    """Keys that are in no pool: absent, or in a staging slot."""

    __slots__ = ("staged", "state")

    def __init__(self, state: bytearray, staged: Container[int]) -> None:
        self.state, self.staged = state, staged

    def __contains__(self, key: object) -> bool:
        return isinstance(key, int) and (self.state[key] == ABSENT or key in self.staged)


@dataclass(slots=True)
class CacheCounts:
    evictions: int = 0
    """keys that left: evicted, cancelled on their way, or out of a staging slot"""
    demand_loads: int = 0
    demand_bytes: int = 0
    prefetch_loads: int = 0
    prefetch_bytes: int = 0
    bypasses: int = 0
    """loads into a staging slot"""
    wasted_bytes: int = 0
    """prefetched and gone before any use"""


class ExpertCache:
    """States of all keys, the room in each pool, and the staging slots.

    `event` and `unrun` are set by the engine for the present layer event. Its keys leave only if nothing else can:
    first those that have run, last those that still have to (they are loaded again then).
    """

    def __init__(
        self,
        sizes: list[int],
        pool_of: Sequence[int],
        capacity: Sequence[int],
        policies: Sequence[CachePolicy],
        staging: int = 0,
    ) -> None:
        self.sizes = sizes
        """bytes of each key, as it is there or would come"""
        self.small: dict[int, int] = {}
        """keys of which a smaller copy is there or comes, and their bytes in full"""
        self.pool_of = pool_of
        self.capacity = capacity
        self.policies = policies
        self.staging = staging
        self.state = bytearray(len(sizes))
        self.used_bytes = [0] * len(capacity)
        self.pinned: set[int] = set()
        """from the start of a copy to its end or, if the layer event needs the key, to the end of its kernel"""
        self.staged: dict[int, None] = {}
        """keys in staging slots, in the order in which they took them"""
        self._elsewhere = Elsewhere(self.state, self.staged)
        self.used_elsewhere = staging > 0
        """policies may be told of the use of a key that does not come into their pool"""
        self.dying: dict[int, list[int]] = {}
        """by place: bytes of cancelled copies whose last chunk is not over"""
        self.event: Container[int] = ()
        self.unrun: Container[int] = ()
        self.count = CacheCounts()
        self.there_at_first = 0
        self.awaited = 0
        """the place in which the demand that found no room last wanted some"""
        self.script: list[tuple[str, tuple[int, ...]]] | None = None
        """what happened to keys, in order, while an engine wants to know"""
        self.next_use: Callable[[int], int] = lambda key: 0
        """when `key` is needed next, as far as the prefetcher's level shows"""
        self.needed_sooner: Callable[[int], Container[int]] = lambda key: ()
        """keys that a prefetch of `key` must not evict"""

    # -- in ------------------------------------------------------------------------------------------------------

    def make_room(self, key: int, demanded: bool) -> bool:
        """Evict until `key` fits and mark it loading; False, with nothing changed, if no set of victims will do."""
        pool = self.pool_of[key]
        bypass = self.staging and self._bypasses(key, pool, demanded)
        tier = self._stage(key, demanded) if bypass else self._evict_for(key, pool, demanded)
        if tier is None:
            if demanded:
                self.awaited = STAGING if bypass else pool
            return False
        self.note("again" if tier else "load", (key,))
        self.state[key] = LOADING
        self.pinned.add(key)
        if not bypass:
            self.used_bytes[pool] += self.sizes[key]
            self.policies[pool].inserted(key, not demanded)
        self._count_load(key, demanded)
        return True

    def start_first(self, keys: Iterable[int]) -> tuple[int, int | None]:
        """Make room for the first of `keys`, to be prefetched, that finds some; also how many found none before."""
        refused: dict[int, tuple[int, int]] = {}
        passed = 0
        for key in keys:
            pool, size, use = self.pool_of[key], self.sizes[key], self.next_use(key)
            least = refused.get(pool)
            # Whoever is needed later may push out no more than one that found no victim, so that none is asked for.
            if least is None or use < least[0] or size < least[1]:
                if self.make_room(key, False):
                    return passed, key
                if not self.staging:
                    refused[pool] = use, size
            passed += 1
        return passed, None

    def swap_in(self, key: int, barred: Container[int]) -> None:
        """`make_room` and `landed` of a demand in one, where keys are of one size and a victim is sure to be there.

        And where nothing is prefetched.
        """
        pool, size, state, count = self.pool_of[key], self.sizes[key], self.state, self.count
        policy = self.policies[pool]
        if self.used_bytes[pool] + size > self.capacity[pool]:
            victim = policy.victim(barred)
            assert victim is not None
            state[victim] = ABSENT
            count.evictions += 1
            policy.evicted(victim)
        else:
            self.used_bytes[pool] += size
        state[key] = RESIDENT
        policy.inserted(key, False)
        count.demand_loads += 1
        count.demand_bytes += size

    def _count_load(self, key: int, demanded: bool) -> None:
        count = self.count
        count.bypasses += key in self.staged
        if demanded:
            count.demand_loads += 1
            count.demand_bytes += self.sizes[key]
        else:
            count.prefetch_loads += 1
            count.prefetch_bytes += self.sizes[key]

    def _bypasses(self, key: int, pool: int, demanded: bool) -> bool:
        return self.sizes[key] > self.capacity[pool] or not self.policies[pool].admit(key, not demanded)

    def _stage(self, key: int, demanded: bool) -> int | None:
        """Take a staging slot, if need be for a demand that of a prefetched key; None if there is none."""
        if len(self.staged) + len(self.dying.get(STAGING, ())) >= self.staging:
            oldest = (k for k in self.staged if self.state[k] == FRESH and k not in self.event)
            pushed = next(oldest, None) if demanded else None
            if pushed is None:
                return None
            self._leave_staging(pushed)
        self.staged[key] = None
        return 0

    def _evict_for(self, key: int, pool: int, demanded: bool) -> int | None:
        """Evict until `key` fits; the last tier of victims needed, or None and nothing evicted."""
        short = self.used_bytes[pool] + self.sizes[key] - self.capacity[pool]
        if short <= 0:
            return 0
        chosen: list[int] = []
        for tier, barred in enumerate(self._tiers(key, demanded)):
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

    def _tiers(self, key: int, demanded: bool) -> tuple[Container[int], ...]:
        """What may not leave, tier by tier, the strictest first."""
        tiers = self._spared(key, demanded)
        # A policy may remember the use of a key that bypassed the cache.
        return tuple(Either(tier, self._elsewhere) for tier in tiers) if self.used_elsewhere else tiers

    def _spared(self, key: int, demanded: bool) -> tuple[Container[int], ...]:
        if not demanded:
            return (Either(Either(self.pinned, self.event), self.needed_sooner(key)),)
        if not self.event:
            return (self.pinned,)
        ahead = Ahead(self.unrun, key)
        return Either(self.event, self.pinned), Either(self.pinned, self.unrun), Either(self.pinned, ahead)

    # -- on its way, and out -------------------------------------------------------------------------------------

    def landed(self, key: int, demanded: bool) -> None:
        """The copy of `key` is over. A key that the present event needs stays pinned until its kernel has run."""
        self.state[key] = RESIDENT if demanded else FRESH
        if not demanded and key not in self.unrun:
            self.pinned.discard(key)

    def ran(self, keys: frozenset[int]) -> None:
        """The kernel of `keys` has ended: their pins go, and those that bypassed the cache leave."""
        self.pinned -= keys
        if self.staged:
            for key in [key for key in self.staged if key in keys]:
                self._leave_staging(key)
        self.note("release", keys)

    def place(self, key: int) -> int:
        """Where a key that is there or on its way has its room: STAGING, or a pool."""
        return STAGING if key in self.staged else self.pool_of[key]

    def cancelled(self, key: int, sent_bytes: int, over: bool) -> int:
        """The copy of `key` is given up after `sent_bytes`; unless its last chunk is `over`, its room is not free yet.

        Returns the place of that room.
        """
        pool, size, place = self.pool_of[key], self.sizes[key], self.place(key)
        self.pinned.discard(key)
        self.state[key] = ABSENT
        self.count.evictions += 1
        self.count.wasted_bytes += sent_bytes
        self.count.prefetch_bytes -= size - sent_bytes
        if place == STAGING:
            del self.staged[key]
        else:
            self.policies[pool].evicted(key)
        if not over:
            self.dying.setdefault(place, []).append(size)
        elif place != STAGING:
            self.used_bytes[pool] -= size
        return place

    def drained(self, place: int, size: int) -> None:
        """The last chunk of a cancelled copy is over."""
        self.dying[place].remove(size)
        if place != STAGING:
            self.used_bytes[place] -= size

    def _leave(self, key: int, pool: int) -> None:
        self.used_bytes[pool] -= self.sizes[key]
        self._gone(key)
        self.policies[pool].evicted(key)

    def _leave_staging(self, key: int) -> None:
        del self.staged[key]
        self._gone(key)

    def _gone(self, key: int) -> None:
        if self.state[key] == FRESH:
            self.count.wasted_bytes += self.sizes[key]
        if key in self.small:
            self.sizes[key] = self.small.pop(key)
        self.state[key] = ABSENT
        self.count.evictions += 1

    def shrink(self, key: int, nbytes: int) -> None:
        """What comes of `key`, which is absent, is a smaller copy; until it leaves."""
        self.small[key] = self.sizes[key]
        self.sizes[key] = nbytes

    def drop(self, key: int) -> None:
        """A smaller copy that is in a pool, and not pinned, will not do."""
        self._leave(key, self.pool_of[key])

    # -- accounts ------------------------------------------------------------------------------------------------

    def note(self, what: str, keys: Iterable[int]) -> None:
        """Enter into the script, if one is being written."""
        if self.script is not None:
            self.script.append((what, tuple(keys)))

    def balance(self) -> None:
        """Keys there and on their way are those loaded and not gone; raises AssertionError with the numbers."""
        count = self.count
        there = len(self.state) - self.state.count(ABSENT) - self.there_at_first
        if count.demand_loads + count.prefetch_loads - count.evictions != there:
            raise AssertionError(f"{count} do not balance: {there} keys more than at first are there")

    @property
    def taken_bytes(self) -> int:
        """Bytes that keys hold in pools and, as whole slots, in staging."""
        slots = len(self.staged) + len(self.dying.get(STAGING, ()))
        return sum(self.used_bytes) + slots * max(self.sizes)

    def verify(self) -> None:
        """Conservation at this instant (`--check`); raises AssertionError with the numbers."""
        held = [sum(self.dying.get(pool, ())) for pool in range(len(self.capacity))]
        for key, state in enumerate(self.state):
            if state and key not in self.staged:
                held[self.pool_of[key]] += self.sizes[key]
        if held != self.used_bytes or any(h > c for h, c in zip(held, self.capacity, strict=True)):
            raise AssertionError(f"pools hold {held} bytes, counted {self.used_bytes}, capacity {self.capacity}")
        slots = len(self.staged) + len(self.dying.get(STAGING, ()))
        if slots > self.staging or any(not self.state[key] for key in self.staged):
            raise AssertionError(f"{slots} of {self.staging} staging slots are taken, by {list(self.staged)}")
        if any(not self.state[key] for key in self.small):
            raise AssertionError(f"smaller copies of {list(self.small)} are not all there")
        moving = {key for key, state in enumerate(self.state) if state == LOADING}
        if not moving <= self.pinned:
            raise AssertionError(f"keys on their way {moving} are not all pinned: {self.pinned}")
