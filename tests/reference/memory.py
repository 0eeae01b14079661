"""GPU memory of the reference: where each key is, what is pinned, who makes room (docs/model.md, "The cache")."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from enum import Enum

from moesim.policy import CachePolicy
from moesim.policy.cache import wants_users

STAGING = -1
"""the place of keys that bypass the cache; the other places are pools, by number"""


class State(Enum):
    """Of a key; the values are the access classes that a layer event finds."""

    RESIDENT = "reuse"
    FRESH = "prefetch"
    LOADING = "late"
    ABSENT = "miss"


THERE = (State.RESIDENT, State.FRESH)


class Event:
    """A layer event: its keys, those that have run, and those that are held until their kernel has ended."""

    def __init__(self, keys: Sequence[int], order: str) -> None:
        self.keys = tuple(keys)
        self.order = order
        self.has_run: set[int] = set()
        self.held: set[int] = set()
        self.small: set[int] = set()
        """keys that smaller copies serve"""

    @property
    def over(self) -> bool:
        return len(self.has_run) == len(self.keys)


class Holding:
    """Bytes that a key occupies, from the submission of its first chunk until it leaves."""

    def __init__(self, key: int, place: int, size: int) -> None:
        self.key, self.place, self.size = key, place, size
        self.cancelled = False


class Memory:
    """Keys in pools, each with its policy, and staging slots. A refusal to make room gives the place that is full.

    `sooner(p)`: keys that a prefetch of `p` must not push out, as far as the prefetcher's level shows.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        pools: Sequence[tuple[range, int]],
        policies: Sequence[CachePolicy],
        slots: int,
    ) -> None:
        self.sizes, self.pools, self.policies, self.slots = list(sizes), pools, policies, slots
        self.small: dict[int, int] = {}
        """bytes in full of each key of which a smaller copy is there, or comes"""
        self.state = [State.ABSENT] * len(sizes)
        self.holdings: list[Holding] = []
        """in the order in which they came"""
        self.event = Event((), "eager")
        self.running: set[int] = set()
        self.sooner: Callable[[int], Iterable[int]] = lambda key: ()
        self.count: Counter[str] = Counter()
        """bytes demanded, prefetched and wasted; evictions; what else occurred"""

    def fill(self) -> None:
        """Every key is resident."""
        self.state = [State.RESIDENT] * len(self.sizes)
        self.holdings = [Holding(key, self.pool(key), size) for key, size in enumerate(self.sizes)]

    # Where keys are

    def pool(self, key: int) -> int:
        return next(number for number, (keys, _) in enumerate(self.pools) if key in keys)

    def there(self, key: int) -> bool:
        return self.state[key] in THERE

    def holding(self, key: int) -> Holding:
        """Of a key that is there or loading."""
        return next(held for held in self.holdings if held.key == key and not held.cancelled)

    def inside(self, place: int) -> list[Holding]:
        return [held for held in self.holdings if held.place == place]

    def leaving(self, place: int) -> bool:
        """A cancelled copy still holds bytes there."""
        return any(held.cancelled for held in self.inside(place))

    def pinned(self) -> set[int]:
        loading = {key for key, state in enumerate(self.state) if state is State.LOADING}
        return loading | self.event.held | self.running

    # A layer event

    def enter(self, event: Event, users: dict[int, list[int]]) -> dict[int, State]:
        """The gate of `event`: tell the policies, use what is fresh; the state in which each key was found.

        `users`: requests that use each of its keys, ranked, and of those that are computed elsewhere or skipped.
        """
        self.event = event
        found = {key: self.state[key] for key in users}
        for number, (keys, _) in enumerate(self.pools):
            if mine := [key for key in users if key in keys]:
                if wants_users(self.policies[number]):
                    self.policies[number].used_by({key: users[key] for key in mine})
                self.policies[number].used(mine)
        for key in event.keys:
            self.use(key)
        missing = {key for key in event.keys if not self.there(key)}
        if missing:
            event.held = set(missing) if event.order == "index" else set(event.keys)
        return found

    def ended(self, request: int) -> None:
        """It has got its last token."""
        for policy in self.policies:
            if wants_users(policy):
                policy.ended([request])

    def use(self, key: int) -> None:
        """A fresh key that is used becomes resident."""
        if self.state[key] is State.FRESH:
            self.state[key] = State.RESIDENT

    def need_again(self, key: int) -> None:
        """`key` of the present event was pushed out before it ran; its policy dropped it, and must know of its use."""
        self.policies[self.pool(key)].used([key])
        self.event.held.add(key)
        self.count["reloads"] += 1

    def kernel_ended(self, event: Event, keys: Iterable[int]) -> None:
        """Experts `keys` of `event` have run."""
        self.running -= set(keys)
        event.has_run |= set(keys)
        event.held -= set(keys)
        for key in keys:
            if self.holding(key).place == STAGING:
                self._leave(self.holding(key))

    # Making room

    def place_of(self, key: int, prefetched: bool) -> int:
        """Where the copy of `key`, which could start now, would go."""
        pool = self.pool(key)
        if not self.slots:
            return pool
        if self.sizes[key] > self.pools[pool][1]:
            self.count["too large"] += 1
            return STAGING
        return pool if self.policies[pool].admit(key, prefetched) else STAGING

    def start_demand(self, key: int) -> int | None:
        """Make room for a demanded key and occupy it; the place for which it must wait, or None."""
        place = self.place_of(key, False)
        if place == STAGING:
            if not self._free_slot() and not self._push_out():
                self.count["demands that wait for a slot"] += 1
                return place
            self._stage(key)
        else:
            victims = self._victims(key, self._tiers(key))
            if victims is None:
                return place
            self._insert(key, victims, prefetched=False)
        self.count["demand_bytes"] += self.sizes[key]
        return None

    def start_prefetch(self, key: int) -> bool:
        """Make room for a prefetched key and occupy it; False if it is dropped."""
        if self.place_of(key, True) == STAGING:
            if not self._free_slot():
                return False
            self._stage(key)
        else:
            victims = self._victims(key, [self.pinned() | self._spared() | set(self.sooner(key))])
            if victims is None:
                return False
            self._insert(key, victims, prefetched=True)
        self.count["prefetch_bytes"] += self.sizes[key]
        return True

    def _spared(self) -> set[int]:
        return set() if self.event.over else set(self.event.keys)

    def _tiers(self, key: int) -> list[set[int]]:
        """Keys that may not make room for a demand of `key`: at first, if that does not suffice, and so on."""
        pinned, spared = self.pinned(), self._spared()
        unrun = spared - self.event.has_run
        tiers = [pinned | spared, pinned | unrun]
        if self.event.order == "index":
            tiers.append(pinned | {other for other in unrun if other <= key})
        return tiers

    def _victims(self, key: int, tiers: Iterable[set[int]]) -> list[int] | None:
        """Who must leave, those that may go at first before those that may go at last; None if they do not suffice."""
        pool = self.pool(key)
        inside = {held.key for held in self.inside(pool) if not held.cancelled}
        foreign = set(self.pools[pool][0]) - inside
        lacking = self.sizes[key] + sum(held.size for held in self.inside(pool)) - self.pools[pool][1]
        victims: list[int] = []
        for barred in tiers:
            while lacking > 0:
                victim = self.policies[pool].victim(barred | foreign | set(victims))
                if victim is None:
                    break
                victims.append(victim)
                lacking -= self.sizes[victim]
        if lacking > 0:
            return None
        self.count["several victims at once"] += len(victims) > 1
        self.count["victims that had run"] += not self.event.has_run.isdisjoint(victims)
        return victims

    def _insert(self, key: int, victims: Iterable[int], prefetched: bool) -> None:
        pool = self.pool(key)
        for victim in victims:
            assert self.there(victim) and victim not in self.pinned()
            self.count["pushed out before its turn"] += victim in self._spared() - self.event.has_run
            self._waste(victim)
            self._leave(self.holding(victim))
            self.policies[pool].evicted(victim)
        self._occupy(key, pool)
        assert sum(held.size for held in self.inside(pool)) <= self.pools[pool][1]
        self.policies[pool].inserted(key, prefetched)

    def _free_slot(self) -> bool:
        return len(self.inside(STAGING)) < self.slots

    def _push_out(self) -> bool:
        """Empty a staging slot for a demand."""
        for held in self.inside(STAGING):
            if not held.cancelled and self.state[held.key] is State.FRESH and held.key not in self._spared():
                self._waste(held.key)
                self._leave(held)
                self.count["pushed out of staging"] += 1
                return True
        return False

    def _stage(self, key: int) -> None:
        self._occupy(key, STAGING)
        self.count["bypasses"] += 1
        assert len(self.inside(STAGING)) <= self.slots

    def _occupy(self, key: int, place: int) -> None:
        assert self.state[key] is State.ABSENT
        self.state[key] = State.LOADING
        self.holdings.append(Holding(key, place, self.sizes[key]))

    def _waste(self, key: int) -> None:
        """`key` leaves; if it came by prefetch and was never used, its bytes were wasted."""
        if self.state[key] is State.FRESH:
            self.count["wasted_bytes"] += self.sizes[key]

    def shrink(self, key: int, size: int) -> None:
        """What comes of `key`, which is absent, is smaller, until it leaves."""
        self.small[key], self.sizes[key] = self.sizes[key], size

    def drop(self, key: int) -> None:
        """A smaller copy leaves, as it will not do."""
        held = self.holding(key)
        self._leave(held)
        self.policies[held.place].evicted(key)

    def _leave(self, held: Holding) -> None:
        self.count["evictions"] += 1
        if held.key in self.small:
            self.sizes[held.key] = self.small.pop(held.key)
        self.holdings.remove(held)
        self.state[held.key] = State.ABSENT

    # Copies

    def land(self, key: int, demanded: bool) -> None:
        """The last chunk of `key` is over."""
        self.state[key] = State.RESIDENT if demanded else State.FRESH

    def cancel(self, key: int, unsent: int) -> Holding:
        """The prefetch of `key`, under way, is given up; its bytes stay occupied until `release`."""
        held = self.holding(key)
        held.cancelled = True
        self.count["evictions"] += 1
        self.state[key] = State.ABSENT
        if held.place != STAGING:
            self.policies[held.place].evicted(key)
        self.count["prefetch_bytes"] -= unsent
        self.count["wasted_bytes"] += held.size - unsent
        return held

    def release(self, held: Holding) -> None:
        """The last submitted chunk of a cancelled prefetch is over."""
        self.holdings.remove(held)
