"""A check that cannot fail is a defect: each broken rule is noticed by the agreement check, in its default cases."""

from __future__ import annotations

from functools import lru_cache

import pytest

from tests.reference import kv_mutations, miss_mutations
from tests.reference.cases import Case
from tests.reference.collected import collected
from tests.reference.compare import Flat, differences, referred, simulated
from tests.reference.mutations import MUTATIONS
from tests.reference.replay import serve

CASES = 800


@lru_cache
def references() -> list[tuple[Case, Flat]]:
    """What the reference says of each case."""
    return [(case, referred(serve(*case.build(), case.replication))) for case in collected(CASES)]


def noticed(case: Case, slow: Flat, way: str) -> bool:
    """By the comparison; where the broken simulator fails by itself nothing is said."""
    try:
        fast = simulated(*case.build(), way, case.replication)
    except (AssertionError, LookupError, ValueError):
        return False
    return bool(differences(fast, slow))


@pytest.mark.parametrize("name", kv_mutations.MUTATIONS)
def test_a_broken_rule_of_kv_memory_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [one for one in references() if "kv" in dict(one[0].changes)["memory"]]
    kv_mutations.MUTATIONS[name](monkeypatch)
    assert any(noticed(*one, "direct") for one in known), f"{len(known)} cases do not tell"


@pytest.mark.parametrize("name", miss_mutations.MUTATIONS)
def test_a_broken_rule_of_misses_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = [one for one in references() if "miss" in dict(one[0].changes)]
    miss_mutations.MUTATIONS[name](monkeypatch)
    assert any(noticed(*one, "direct") for one in known), f"{len(known)} cases do not tell"


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_rule_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = references()
    MUTATIONS[name](monkeypatch)
    way = "patterns" if name.startswith("patterns") else "direct"
    assert any(noticed(*one, way) for one in known), f"{len(known)} cases do not tell"


def test_nothing_is_noticed_where_nothing_is_broken() -> None:
    assert not any(noticed(*one, "direct") for one in references()[:200])
