from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.check.drive import Drive, pushed_out
from moesim.policy import FAR, find

Lookahead: Any = find("cache", "lookahead")


def drive(slots: int, **params: Any) -> Drive:
    return Drive(Lookahead(**params), slots)


def test_the_farthest_next_use_leaves() -> None:
    look = drive(3)
    look.use(0, 1, 2)
    look.next_uses(k0=9, k1=30, k2=12, k3=13)
    assert look.use(3) == [1]
    look.next_uses(k0=9, k2=12, k3=13, k4=10)
    assert look.use(4) == [3]


def test_what_is_not_shown_is_farthest_and_equals_go_by_recency() -> None:
    look = drive(3)
    look.use(0, 1, 2)
    look.use(0)
    look.next_uses(k2=5)  # 0 and 1 are not shown; 1 was used longer ago
    assert pushed_out(look, 3, 4, 5) == [1, 0, 3]


def test_a_prefetch_sets_recency_when_it_is_inserted() -> None:
    look = drive(2)
    look.use(0)
    look.prefetch(1)
    assert look.use(2) == [0]


@pytest.mark.parametrize(("horizon", "victim"), [(None, 2), (5, 2), (4, 2), (3, 1), (2, 0), (0, 0)])
def test_the_horizon_counts_layer_events_from_the_present_one(horizon: int | None, victim: int) -> None:
    """Keys 0, 1, 2, least recent first, are used 3, 4 and 5 events ahead: those beyond the horizon tie, as unseen."""
    look = drive(3, horizon=horizon)
    look.view.step = 3
    look.use(0, 1, 2)  # event 4 of a server with one layer; the next is event 5
    look.next_uses(k0=8, k1=9, k2=10)
    assert look.use(3) == [victim]


def test_horizon_zero_is_lru_whatever_the_view_shows() -> None:
    look, lru = drive(3, horizon=0), Drive(find("cache", "lru")(), 3)  # type: ignore[arg-type]
    for event in ([0, 1], [2], [0, 3], [1], [4, 5], [0], [2, 1, 3], [6]):
        look.uses[:] = look.view.event + 2 + np.arange(len(look.uses)) * 7 % 5
        assert look.use(*event) == lru.use(*event)


@pytest.mark.parametrize("level", ["step", "queue", "oracle"])
def test_the_level_is_what_the_view_is_asked_for(level: str) -> None:
    made = Lookahead(level=level, unknown="persist")
    assert (made.level, made.unknown) == (level, "persist")


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"level": "history"}, "level 'history' must be step, queue or oracle"),
        ({"horizon": -1}, "horizon -1 must be null or a whole number"),
        ({"horizon": 1.5}, "horizon 1.5 must be null or a whole number"),
        ({"horizon": True}, "horizon True must be null or a whole number"),
        ({"unknown": "near"}, "unknown 'near' must be farthest or persist"),
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Lookahead(**params)


@st.composite
def situations(draw: st.DrawFn) -> dict[str, Any]:
    first, keys = draw(st.sampled_from([0, 24])), draw(st.integers(1, 24))
    pool = range(first, first + keys)
    subset = st.lists(st.sampled_from(pool), unique=True, min_size=1)
    return {
        "pool": pool,
        "resident": draw(subset),
        "order": draw(st.permutations(pool)),
        "uses": draw(st.lists(st.one_of(st.integers(6, 12), st.integers(FAR, FAR + 9)), min_size=keys, max_size=keys)),
        "barred": set(draw(st.lists(st.sampled_from(pool), unique=True))),
        "horizon": draw(st.one_of(st.none(), st.integers(0, 8))),
    }


@settings(max_examples=300, deadline=None, derandomize=True)
@given(situations())
def test_the_search_by_arrays_finds_what_the_search_one_by_one_finds(case: dict[str, Any]) -> None:
    """And both find what the definition says."""
    pool, resident, barred = case["pool"], case["resident"], case["barred"]
    look = Drive(Lookahead(horizon=case["horizon"]), len(pool), pool)
    look.view.step, look.view.layer = 5, 0
    for key in resident:
        look.policy.inserted(key, False)
    look.policy.used(case["order"])
    look.uses[pool.start : pool.stop] = case["uses"]
    seen = FAR if case["horizon"] is None else 5 + case["horizon"] + 1
    age = {key: -place for place, key in enumerate(case["order"])}
    use = {key: int(look.uses[key]) if look.uses[key] < seen else FAR for key in resident}
    expected = max((k for k in resident if k not in barred), key=lambda k: (use[k], age[k]), default=None)
    assert look.policy._search(barred, seen) == expected  # type: ignore[attr-defined]
    assert look.policy._search_arrays(barred, seen) == expected  # type: ignore[attr-defined]
    assert look.policy.victim(barred) == expected
