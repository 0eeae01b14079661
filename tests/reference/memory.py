"""GPU memory of the reference: where each key is, what is pinned, who makes room (docs/model.md, "The cache")."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import Enum

from moesim.policy import CachePolicy


class State(Enum):
    """Of a key; the values are the access classes that a layer event finds."""

    RESIDENT = "reuse"
    FRESH = "prefetch"
    LOADING = "late"
    ABSENT = "miss"


class Event:
    """A layer event: its keys, those that have run, and those that are held until their kernel has ended."""

    def __init__(self, keys: Sequence[int], order: str) -> None:
        self.keys = tuple(keys)
        self.order = order
        self.has_run: set[int] = set()
        self.held: set[int] = set()

    @property
    def over(self) -> bool:
        return len(self.has_run) == len(self.keys)


class Memory:
    """Keys in pools, each with its policy. `later(p)`: keys that a prefetch of `p` must not push out (by next use)."""

    def __init__(
        self, sizes: Sequence[int], pools: Sequence[tuple[range, int]], policies: Sequence[CachePolicy]
    ) -> None:
        self.sizes = sizes
        self.pools = pools
        self.policies = policies
        self.state = [State.ABSENT] * len(sizes)
        self.event = Event((), "eager")
        self.running: set[int] = set()
        self.sooner: Callable[[int], Iterable[int]] = lambda key: ()
        self.demand_bytes = self.prefetch_bytes = self.wasted_bytes = self.evictions = 0

    def pool(self, key: int) -> int:
        return next(number for number, (keys, _) in enumerate(self.pools) if key in keys)

    def there(self, key: int) -> bool:
        return self.state[key] in (State.RESIDENT, State.FRESH)

    def pinned(self) -> set[int]:
        loading = {key for key, state in enumerate(self.state) if state is State.LOADING}
        return loading | self.event.held | self.running

    def free(self, pool: int) -> int:
        keys, capacity = self.pools[pool]
        return capacity - sum(self.sizes[key] for key in keys if self.state[key] is not State.ABSENT)

    def enter(self, event: Event) -> dict[int, State]:
        """The gate of `event`: tell the policies, use what is fresh; the state in which each key was found."""
        self.event = event
        found = {key: self.state[key] for key in event.keys}
        for number, (keys, _) in enumerate(self.pools):
            if mine := [key for key in event.keys if key in keys]:
                self.policies[number].used(mine)
        for key in event.keys:
            self.use(key)
        missing = {key for key in event.keys if not self.there(key)}
        if missing:
            event.held = set(missing) if event.order == "index" else set(event.keys)
        return found

    def use(self, key: int) -> None:
        """A fresh key that is used becomes resident."""
        if self.state[key] is State.FRESH:
            self.state[key] = State.RESIDENT

    def need_again(self, key: int) -> None:
        """`key` of the present event was pushed out before it ran; its policy dropped it, and must know of its use."""
        self.policies[self.pool(key)].used([key])
        self.event.held.add(key)

    def room_for_demand(self, key: int) -> list[int] | None:
        """Who must leave for a demanded key, None if it must wait."""
        event, pinned = self.event, self.pinned()
        spared = [pinned | set(event.keys), pinned | (set(event.keys) - event.has_run)]
        if event.over:
            spared = [pinned]
        elif event.order == "index":
            spared.append(pinned)
        found = (self._victims(key, barred) for barred in spared)
        return next((victims for victims in found if victims is not None), None)

    def start_demand(self, key: int) -> bool:
        """Make room for a demanded key and occupy it; False if it must wait."""
        victims = self.room_for_demand(key)
        if victims is None:
            return False
        self._occupy(key, victims, prefetched=False)
        self.demand_bytes += self.sizes[key]
        return True

    def start_prefetch(self, key: int) -> bool:
        """Make room for a prefetched key and occupy it; False if it is dropped."""
        present = set() if self.event.over else set(self.event.keys)
        victims = self._victims(key, self.pinned() | present | set(self.sooner(key)))
        if victims is None:
            return False
        self._occupy(key, victims, prefetched=True)
        self.prefetch_bytes += self.sizes[key]
        return True

    def _victims(self, key: int, barred: set[int]) -> list[int] | None:
        pool = self.pool(key)
        victims: list[int] = []
        lacking = self.sizes[key] - self.free(pool)
        while lacking > 0:
            victim = self.policies[pool].victim(barred | set(victims))
            if victim is None:
                return None
            victims.append(victim)
            lacking -= self.sizes[victim]
        return victims

    def _evict(self, pool: int, key: int) -> None:
        assert self.there(key) and key not in self.pinned()
        if self.state[key] is State.FRESH:
            self.wasted_bytes += self.sizes[key]
        self.state[key] = State.ABSENT
        self.evictions += 1
        self.policies[pool].evicted(key)

    def _occupy(self, key: int, victims: Iterable[int], prefetched: bool) -> None:
        pool = self.pool(key)
        for victim in victims:
            self._evict(pool, victim)
        self.state[key] = State.LOADING
        assert self.free(pool) >= 0
        self.policies[pool].inserted(key, prefetched)

    def land(self, key: int, demanded: bool) -> None:
        """The last chunk of `key` is over."""
        self.state[key] = State.RESIDENT if demanded else State.FRESH

    def kernel_ended(self, keys: Iterable[int]) -> None:
        """Experts `keys` of the present event have run."""
        self.running -= set(keys)
        self.event.has_run |= set(keys)
        self.event.held -= set(keys)
