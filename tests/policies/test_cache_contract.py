"""What every cache policy must do, whatever it decides. A new file in `policies/cache` is picked up by itself."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from moesim.check import cache
from moesim.check.broken import Broken
from moesim.check.cache import POOL, Careful, Make, events, memory
from moesim.check.drive import Drive, Variant, label, variants
from moesim.files import shipped
from moesim.policy import CachePolicy, Pool, find, names, parameters
from moesim.policy.rule import Rule, rule_of

VARIANTS = variants("cache")


def maker(variant: Variant) -> Make:
    name, params = variant

    def make() -> CachePolicy:
        made = find("cache", name)(**params)
        assert isinstance(made, CachePolicy)
        return made

    return make


def test_every_file_is_under_test() -> None:
    files = list(Path(shipped("policies", "cache")).rglob("*.py"))
    assert files
    assert {path.stem.replace("_", "-") for path in files} == {name for name, _ in VARIANTS}


@pytest.mark.parametrize("slots", [1, 3, 6, 11])
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_victims_are_resident_and_free_and_named_whenever_there_is_one(variant: Variant, slots: int) -> None:
    careful = cache.victims(maker(variant), slots)
    assert careful.answers > careful.none > 0, "this drive asks nothing hard"


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_keys_of_unequal_sizes(variant: Variant) -> None:
    assert cache.unequal_sizes(maker(variant)).answers > 100


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_large_pools(variant: Variant) -> None:
    assert cache.large_pool(maker(variant)).answers > 100


@pytest.mark.parametrize("slots", [2, 6, 9])
@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_a_pool_of_several_layers(variant: Variant, slots: int) -> None:
    assert cache.layers(maker(variant), slots).answers > 100


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_nothing_there_or_all_barred_is_none(variant: Variant) -> None:
    cache.nothing_may_go(maker(variant))


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_asking_changes_nothing_that_is_seen(variant: Variant) -> None:
    cache.asking_changes_nothing(maker(variant))


@pytest.mark.parametrize("variant", VARIANTS, ids=label)
def test_equal_drives_give_equal_answers(variant: Variant) -> None:
    cache.equal_drives(maker(variant))


@pytest.mark.parametrize("slots", [5, 12])
@pytest.mark.parametrize("name", names("cache"))
def test_memory_stays_flat(name: str, slots: int) -> None:
    """20,000 events of two keys of 12, in a pool that evicts and in one where everything fits and nothing is asked."""
    few_maps = {"maps": 8} if "maps" in parameters(find("cache", name)) else {}
    assert 0 < memory(maker((name, few_maps)), slots) < 100 * len(POOL)


# ---- the suite itself: whoever breaks a rule is found


class Wrong(CachePolicy):
    """FIFO that breaks the rule that `how` names."""

    def __init__(self, how: str) -> None:
        self.how, self.asked = how, 0
        self.log: list[int] = []
        self.resident: list[int] = []

    def start(self, pool: Pool, view: Any) -> None:
        self.pool = pool

    def admit(self, key: int, prefetched: bool) -> bool:
        return None if self.how == "vague" else True  # type: ignore[return-value]

    def inserted(self, key: int, prefetched: bool) -> None:
        if self.how == "hoards":
            self.log.append(key)
        if self.how == "raises" and len(self.resident) == 2:
            raise KeyError(key)
        self.resident.append(key)

    def evicted(self, key: int) -> None:
        self.resident.remove(key)

    def victim(self, barred: Any) -> int | None:
        self.asked += self.how == "counts"
        free = [key for key in self.resident if key not in barred]
        if self.how == "bold" and self.resident:
            return self.resident[0]
        if self.how == "gone":
            return next((key for key in self.pool.keys if key not in self.resident), None)
        if self.how == "shy" or not free:
            return None
        if self.how == "draws":
            return random.choice(free)  # and not pool.rng
        return free[self.asked % len(free)]


@pytest.mark.parametrize(
    ("how", "check", "says"),
    [
        ("bold", lambda make: cache.victims(make, 3), r"^call \d+, victim\(.*\): named \d+, which is barred, after "),
        ("gone", lambda make: cache.victims(make, 3), r"named \d+, which is not there"),
        ("shy", lambda make: cache.victims(make, 3), r"named no victim although [\d, …]+ may go"),
        ("vague", lambda make: cache.victims(make, 3), r"answered None, which is not True or False"),
        ("raises", lambda make: cache.victims(make, 3), r"raised KeyError\(\d+\) \(test_cache_contract.py:\d+\)"),
        ("counts", cache.asking_changes_nothing, r"must not change any state"),
        ("draws", cache.equal_drives, r"draw from pool.rng only"),
        ("hoards", lambda make: memory(make, 5, 4000), r"its state grows with time: at most [\d,]+ entries"),
    ],
)
def test_who_breaks_a_rule_is_found(how: str, check: Any, says: str) -> None:
    with pytest.raises(Broken, match=says):
        check(lambda: Wrong(how))


class Obedient(Wrong):
    """Says that it is LRU, and is FIFO."""

    rule = Rule()


def test_who_declares_another_rule_is_found() -> None:
    """The simulator would run it compiled, as LRU."""
    with pytest.raises(Broken, match=r"named \d+, and by Rule\(by='', stamp='use', horizon=None\) it is \d+"):
        cache.keeps_its_rule(lambda: Obedient("not at all"))


@pytest.mark.parametrize("variant", [v for v in VARIANTS if rule_of(maker(v)()) is not None], ids=label)
def test_policies_with_a_rule_answer_by_it(variant: Variant) -> None:
    cache.keeps_its_rule(maker(variant))


RULES = [cache.asking_changes_nothing, cache.equal_drives, lambda make: memory(make, 5, 4000)]


@pytest.mark.parametrize("check", RULES)
def test_who_breaks_none_is_not(check: Any) -> None:
    check(lambda: Wrong("not at all"))
    events(Drive(Careful(Wrong("not at all"), random.Random(0)), 3, POOL), random.Random(7), 150, POOL)
