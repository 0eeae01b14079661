"""What every cache policy must do, whatever it decides. A new file in `policies/cache` is picked up by itself."""

from __future__ import annotations

import random
from collections.abc import Sized
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moesim.check.drive import Drive, Variant, label, variants
from moesim.files import shipped
from moesim.policy import FAR, CachePolicy, Pool, find, names
from moesim.policy.registry import _signature
from moesim.sim.cache import Either

POOL = range(40, 52)
VARIANTS = variants("cache")


class Careful(CachePolicy):
    """Stands between driver and policy: checks every answer, and sometimes asks twice or turns an answer down."""

    def __init__(self, made: CachePolicy, rng: random.Random) -> None:
        self.made, self.rng = made, rng
        self.resident: set[int] = set()
        self.none = self.answers = 0

    def start(self, pool: Pool, view: Any) -> None:
        self.made.start(pool, view)

    def used(self, keys: Any) -> None:
        self.made.used(keys)

    def inserted(self, key: int, prefetched: bool) -> None:
        self.resident.add(key)
        self.made.inserted(key, prefetched)

    def evicted(self, key: int) -> None:
        self.resident.remove(key)
        self.made.evicted(key)

    def victim(self, barred: Any) -> int | None:
        turned_down: set[int] = set()
        while self.rng.random() < 0.3:  # the engine does so where one victim is not enough and the rest is pinned
            victim = self._ask(barred, turned_down)
            if victim is None:
                break
            turned_down.add(victim)
        return self._ask(barred, set())

    def _ask(self, barred: Any, turned_down: set[int]) -> int | None:
        free = {key for key in self.resident if key not in barred} - turned_down
        victim = self.made.victim(Either(barred, turned_down))
        self.answers += 1
        self.none += victim is None
        if victim is None:
            assert not free, f"named no victim although {free} may go"
        else:
            assert victim in self.resident, f"named {victim}, which is not there"
            assert victim in free, f"named {victim}, which is barred"
        return victim


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


def make(variant: Variant) -> CachePolicy:
    name, params = variant
    made = find("cache", name)(**params)
    assert isinstance(made, CachePolicy)
    return made


def test_every_file_is_under_test() -> None:
    files = list(Path(shipped("policies", "cache")).rglob("*.py"))
    assert files
    assert {path.stem.replace("_", "-") for path in files} == {name for name, _ in VARIANTS}


@pytest.mark.parametrize("slots", [1, 3, 6, 11])
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_victims_are_resident_and_free_and_named_whenever_there_is_one(variant: Variant, slots: int) -> None:
    """Keys of the pool start at 40; in events of more keys than slots those that have run may go (waves)."""
    careful = Careful(make(variant), random.Random(slots))
    drive = Drive(careful, slots, POOL)
    events(drive, random.Random(7), 150, POOL)
    assert drive.resident == careful.resident
    assert careful.answers > careful.none > 0, "this drive asks nothing hard"


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_keys_of_unequal_sizes(variant: Variant) -> None:
    careful = Careful(make(variant), random.Random(5))
    drive = Drive(careful, 6, POOL, sizes=[4 + 13 * key % 11 for key in range(POOL.stop + 8)])
    events(drive, random.Random(9), 150, POOL)
    assert drive.resident == careful.resident
    assert careful.answers > 100


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_large_pools(variant: Variant) -> None:
    """Policies may search large pools in another way."""
    pool = range(100, 190)
    careful = Careful(make(variant), random.Random(1))
    events(Drive(careful, 60, pool), random.Random(2), 100, pool)
    assert careful.answers > 100


@pytest.mark.parametrize("slots", [2, 6, 9])
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_a_pool_of_several_layers(variant: Variant, slots: int) -> None:
    """Events come layer by layer, as in a step; prefetches are of any layer."""
    careful, pool = Careful(make(variant), random.Random(slots)), range(12)
    drive, rng = Drive(careful, slots, pool, layers=3), random.Random(7)
    for number in range(150):
        layer = number % 3
        drive.uses[:] = np.where(np.arange(20) * (number + 3) % 7 < 4, drive.view.event + 2 + np.arange(20) % 9, FAR)
        drive.use(*rng.sample(range(4 * layer, 4 * layer + 4), rng.randint(1, 3)))
        absent = [key for key in pool if key not in drive.resident]
        if absent and rng.random() < 0.4:
            drive.prefetch(rng.choice(absent), set(rng.sample(pool, rng.randint(0, len(pool)))))
    assert drive.resident == careful.resident
    assert careful.answers > 100


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_nothing_there_or_all_barred_is_none(variant: Variant) -> None:
    drive = Drive(make(variant), 3, POOL)
    assert drive.policy.victim(()) is None
    drive.use(40, 41, 42)
    assert drive.policy.victim({40, 41, 42, 43}) is None
    assert drive.policy.victim({40, 42}) == 41


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_asking_changes_nothing_that_is_seen(variant: Variant) -> None:
    """Two of one policy go the same way although one is asked a dozen times more, all answers being turned down."""
    asked, left_alone = Drive(make(variant), 4, POOL), Drive(make(variant), 4, POOL)
    one, other = random.Random(3), random.Random(3)
    for _ in range(100):
        for number in range(12):
            asked.policy.victim(set(POOL[number % 5 : number]))
        events(asked, one, 1, POOL)
        events(left_alone, other, 1, POOL)
        assert asked.resident == left_alone.resident


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_equal_drives_give_equal_answers(variant: Variant) -> None:
    one, other = Drive(make(variant), 4, POOL, seed=5), Drive(make(variant), 4, POOL, seed=5)
    for drive in (one, other):
        events(drive, random.Random(11), 150, POOL)
        drive.use(44)
    assert one.resident == other.resident


def size(value: object) -> int:
    """Entries of a container and of those in it; of policies within policies and the parts they share as well."""
    if isinstance(value, dict | list):
        pass
    elif type(value).__module__.startswith(("moesim.policy.cache", "moesim.policy.maps", "moesim_policies")):
        slots = [getattr(value, name) for name in getattr(type(value), "__slots__", ())]
        return sum(size(v) for v in (*slots, *getattr(value, "__dict__", {}).values()))
    if isinstance(value, dict):
        return len(value) + size(list(value.values()))
    if isinstance(value, list | tuple | set) or type(value).__name__ == "deque":
        return len(value) + sum(size(v) for v in value if isinstance(v, Sized) and not isinstance(v, str))  # type: ignore[arg-type,union-attr]
    return value.size if isinstance(value, np.ndarray) else 0


def memory(made: CachePolicy) -> int:
    return sum(size(v) for v in vars(made).values())


@pytest.mark.parametrize("slots", [5, 12])
@pytest.mark.parametrize("name", names("cache"))
def test_memory_stays_flat(name: str, slots: int) -> None:
    """50,000 events of two keys of 12, in a pool that evicts and in one where everything fits and nothing is asked."""
    made = make((name, {"maps": 8} if "maps:" in _signature(find("cache", name)) else {}))
    drive, rng = Drive(made, slots, POOL), random.Random(1)
    most = 0
    for number in range(50_000):
        drive.use(*rng.sample(POOL, 2))
        if number % 500 == 499:
            most = max(most, memory(made))
    assert 0 < most < 100 * len(POOL)


class Hoarder(CachePolicy):
    """LRU that forgets nothing and, with `careless`, names what it likes."""

    def __init__(self, careless: bool) -> None:
        self.careless = careless
        self.log: list[int] = []
        self.resident: set[int] = set()

    def start(self, pool: Pool, view: Any) -> None:
        pass

    def inserted(self, key: int, prefetched: bool) -> None:
        self.log.append(key)
        self.resident.add(key)

    def evicted(self, key: int) -> None:
        self.resident.remove(key)

    def victim(self, barred: Any) -> int | None:
        return next((key for key in self.log if self.careless or (key in self.resident and key not in barred)), None)


def test_the_suite_catches_a_careless_policy() -> None:
    with pytest.raises(AssertionError, match="which is"):
        events(Drive(Careful(Hoarder(careless=True), random.Random(0)), 3, POOL), random.Random(7), 150, POOL)


def test_the_suite_catches_a_policy_that_grows() -> None:
    made = Hoarder(careless=False)
    events(Drive(made, 5, POOL), random.Random(1), 2000, POOL)
    assert memory(made) > 100 * len(POOL)
