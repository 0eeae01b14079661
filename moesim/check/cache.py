"""The contract of cache policies: what each must do, whatever it decides."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np

from moesim.check.broken import Broken, Calls, require, whole
from moesim.check.drive import Drive
from moesim.policy import FAR, CachePolicy, Pool, View
from moesim.policy.cache import wants_users
from moesim.policy.rule import Rule, rule_of
from moesim.sim.cache import Either

POOL = range(40, 52)
LARGE = range(100, 190)
Make = Callable[[], CachePolicy]


class Careful(CachePolicy):
    """Stands between driver and policy: checks every answer, and sometimes asks twice or turns an answer down."""

    def __init__(self, made: CachePolicy, rng: random.Random) -> None:
        self.made, self.rng, self.calls = made, rng, Calls()
        self.resident: set[int] = set()
        self.none = self.answers = 0

    def start(self, pool: Pool, view: View) -> None:
        self.calls(self.made.start, pool, view)

    def used_by(self, requests: Mapping[int, Sequence[int]]) -> None:
        if wants_users(self.made):
            self.calls(self.made.used_by, requests)

    def ended(self, requests: Sequence[int]) -> None:
        if wants_users(self.made):
            self.calls(self.made.ended, requests)

    def used(self, keys: Sequence[int]) -> None:
        self.calls(self.made.used, keys)

    def inserted(self, key: int, prefetched: bool) -> None:
        admitted = self.calls(self.made.admit, key, prefetched)
        require(isinstance(admitted, bool | np.bool_), self.calls, f"answered {admitted!r}, which is not True or False")
        self.resident.add(key)
        self.calls(self.made.inserted, key, prefetched)

    def evicted(self, key: int) -> None:
        self.resident.remove(key)
        self.calls(self.made.evicted, key)

    def victim(self, barred: Container[int]) -> int | None:
        turned_down: set[int] = set()
        while self.rng.random() < 0.3:  # the engine does so where one victim is not enough and the rest is pinned
            victim = self._ask(barred, turned_down)
            if victim is None:
                break
            turned_down.add(victim)
        return self._ask(barred, set())

    def _ask(self, barred: Container[int], turned_down: set[int]) -> int | None:
        free = {key for key in self.resident if key not in barred} - turned_down
        victim = self.calls(self.made.victim, Either(barred, turned_down) if turned_down else barred)
        self.answers += 1
        self.none += victim is None
        if victim is None:
            require(not free, self.calls, f"named no victim although {_keys(free)} may go")
        else:
            require(whole(victim), self.calls, f"named {victim!r}, which is no key")
            require(victim in self.resident, self.calls, f"named {victim!r}, which is not there")
            require(victim in free, self.calls, f"named {victim!r}, which is barred")
        return victim


def _keys(keys: set[int]) -> str:
    return ", ".join(map(str, sorted(keys)[:6])) + ", …" * (len(keys) > 6)


def events(drive: Drive, rng: random.Random, count: int, pool: range) -> None:
    """Random layer events of one to five keys, as likely near the last ones as not, and prefetches between them."""
    for number in range(count):
        drive.uses[:] = np.where(
            np.arange(len(drive.uses)) * (number + 3) % 7 < 4,
            drive.view.event + 2 + np.arange(len(drive.uses)) * number % 9,
            FAR,
        )
        keys = rng.sample(pool, rng.randint(1, 5))
        drive.use(*keys)
        if rng.random() < 0.4:
            absent = [key for key in pool if key not in drive.resident]
            barred = set(keys) | set(rng.sample(pool, rng.randint(0, len(pool))))
            if absent:
                drive.prefetch(rng.choice(absent), barred)


def victims(make: Make, slots: int) -> Careful:
    """Keys of the pool start at 40; in events of more keys than slots those that have run may go (waves)."""
    careful = Careful(make(), random.Random(slots))
    drive = Drive(careful, slots, POOL)
    events(drive, random.Random(7), 150, POOL)
    return careful


def unequal_sizes(make: Make) -> Careful:
    careful = Careful(make(), random.Random(5))
    events(Drive(careful, 6, POOL, sizes=[4 + 13 * key % 11 for key in range(60)]), random.Random(9), 150, POOL)
    return careful


def large_pool(make: Make) -> Careful:
    """Policies may search large pools in another way."""
    careful = Careful(make(), random.Random(1))
    events(Drive(careful, 60, LARGE), random.Random(2), 100, LARGE)
    return careful


def layers(make: Make, slots: int) -> Careful:
    """Events come layer by layer, as in a step; prefetches are of any layer."""
    careful, pool = Careful(make(), random.Random(slots)), range(12)
    drive, rng = Drive(careful, slots, pool, layers=3), random.Random(7)
    for number in range(150):
        layer = number % 3
        drive.uses[:] = np.where(np.arange(20) * (number + 3) % 7 < 4, drive.view.event + 2 + np.arange(20) % 9, FAR)
        drive.use(*rng.sample(range(4 * layer, 4 * layer + 4), rng.randint(1, 3)))
        absent = [key for key in pool if key not in drive.resident]
        if absent and rng.random() < 0.4:
            drive.prefetch(rng.choice(absent), set(rng.sample(pool, rng.randint(0, len(pool)))))
    return careful


def nothing_may_go(make: Make) -> None:
    """Nothing there, or all barred, is None; the only key that may go is named."""
    careful = Careful(make(), random.Random(0))
    drive = Drive(careful, 3, POOL)
    careful.victim(())
    drive.use(40, 41, 42)
    careful.victim({40, 41, 42, 43})
    careful.victim({40, 42})


def asking_changes_nothing(make: Make) -> None:
    """Two of one policy go the same way although one is asked eleven times more, all answers being turned down.

    Eleven, which no number of keys in the pool divides: whoever only counts would come out where it was.
    """
    asked, left_alone = Drive(make(), 4, POOL), Drive(make(), 4, POOL)
    one, other = random.Random(3), random.Random(3)
    for round_ in range(100):
        for number in range(11):
            asked.policy.admit(POOL[number], False)
            asked.policy.victim(set(POOL[number % 5 : number]))
        events(asked, one, 1, POOL)
        events(left_alone, other, 1, POOL)
        if asked.resident != left_alone.resident:
            kept = f"{_keys(asked.resident)} are there, and {_keys(left_alone.resident)} if it is not asked"
            raise Broken(
                f"layer event {round_ + 1}: asked for victims that were turned down and for admissions, it evicts "
                f"other keys: {kept}; `victim` and `admit` must not change any state"
            )


def equal_drives(make: Make) -> None:
    """Equal seeds and equal calls give equal answers: chance comes from the pool's `rng` alone."""
    one, other = Drive(make(), 4, POOL, seed=5), Drive(make(), 4, POOL, seed=5)
    first, second = random.Random(11), random.Random(11)
    for number in range(150):
        events(one, first, 1, POOL)
        events(other, second, 1, POOL)
        if one.resident != other.resident:
            kept = f"{_keys(one.resident)} are there the first time, {_keys(other.resident)} the second"
            raise Broken(f"layer event {number + 1}: equal calls, other victims: {kept}; draw from pool.rng only")


class Ruled(CachePolicy):
    """Stands between driver and policy: its victims must be those of the rule that it declares."""

    def __init__(self, made: CachePolicy, rule: Rule) -> None:
        self.made, self.rule, self.calls = made, rule, Calls()
        self.clock = 0
        self.uses: dict[int, int] = {}
        self.stamp: dict[int, int] = {}
        self.resident: set[int] = set()

    def start(self, pool: Pool, view: View) -> None:
        self.view = view
        self.calls(self.made.start, pool, view)

    def used(self, keys: Sequence[int]) -> None:
        for key in keys:
            self.uses[key] = self.uses.get(key, 0) + 1
            self._stamp(key, self.rule.stamp == "use")
        self.calls(self.made.used, keys)

    def inserted(self, key: int, prefetched: bool) -> None:
        self.resident.add(key)
        self._stamp(key, prefetched or self.rule.stamp == "insertion")
        self.calls(self.made.inserted, key, prefetched)

    def evicted(self, key: int) -> None:
        self.resident.remove(key)
        self.calls(self.made.evicted, key)

    def victim(self, barred: Container[int]) -> int | None:
        free = [key for key in self.resident if key not in barred]
        wanted = min(free, key=self._rank, default=None)
        victim = self.calls(self.made.victim, barred)
        require(victim == wanted, self.calls, f"named {victim!r}, and by {self.rule} it is {wanted!r}")
        return wanted

    def _stamp(self, key: int, now: bool) -> None:
        self.clock += now
        if now:
            self.stamp[key] = self.clock

    def _rank(self, key: int) -> tuple[int, int]:
        by = 0
        if self.rule.by == "uses":
            by = self.uses.get(key, 0)
        elif self.rule.by == "next_use":
            ahead = int(self.view.next_uses[key])  # type: ignore[attr-defined]
            limit = FAR if self.rule.horizon is None else self.view.event + self.rule.horizon + 1
            by = -(ahead if ahead < limit else FAR)
        return by, self.stamp[key]


def keeps_its_rule(make: Make) -> None:
    """A policy with a `rule` may be run compiled, by that alone: its methods must answer accordingly."""
    for slots in (3, 6):
        made = make()
        rule = rule_of(made)
        assert rule is not None
        events(Drive(Ruled(made, rule), slots, POOL), random.Random(slots), 150, POOL)


def memory(make: Make, slots: int, count: int = 20_000) -> int:
    """The most entries that the policy's state had in `count` events of two keys of 12; it must not grow with them."""
    made = make()
    drive, rng = Drive(made, slots, POOL), random.Random(1)
    most = [0, 0]
    for number in range(count):
        drive.use(*rng.sample(POOL, 2))
        if number % 500 == 499:
            half = 2 * number >= count
            most[half] = max(most[half], entries(made))
    if most[1] > 1.25 * most[0] + 64:
        raise Broken(
            f"its state grows with time: at most {most[0]:,} entries in the first {count // 2:,} layer events, "
            f"{most[1]:,} in the next {count // 2:,}, of a pool of {len(POOL)} keys"
        )
    return max(most)


def entries(made: CachePolicy) -> int:
    """Entries of all containers in a policy's state, those within its own objects included."""
    seen: set[int] = set()
    return sum(_entries(value, seen) for value in vars(made).values())


def _entries(value: Any, seen: set[int]) -> int:
    if id(value) in seen or isinstance(value, str | bytes | type | View | Pool | random.Random):
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return value.size
    total = 0
    if isinstance(value, dict):
        total += len(value) + sum(_entries(item, seen) for item in value.values())
    elif isinstance(value, list | tuple | set | frozenset) or type(value).__name__ == "deque":
        total += len(value) + sum(_entries(item, seen) for item in value)
    slots = [getattr(value, name, None) for name in getattr(type(value), "__slots__", ())]
    return total + sum(_entries(item, seen) for item in (*slots, *getattr(value, "__dict__", {}).values()))
