"""What a policy object is told in a replay, and what its view shows."""

from __future__ import annotations

from collections.abc import Container, Sequence

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.policy import FAR, CachePolicy, find
from moesim.replay.drive import drive
from moesim.replay.sight import sight_for
from moesim.replay.stream import Stream
from tests.replay.streams import stream


class Recorder(CachePolicy):
    """Writes down what it is told; evicts the smallest key that it may."""

    name = "recorder"

    def __init__(self, level: str = "history", unknown: str = "farthest", admits: Container[int] = range(99)) -> None:
        self.level, self.unknown, self.admits = level, unknown, admits
        self.told: list[object] = []
        self.held: set[int] = set()

    def used(self, keys: Sequence[int]) -> None:
        self.told.append(("used", list(keys)))

    def admit(self, key: int, prefetched: bool) -> bool:
        self.told.append(("admit", key, prefetched))
        return key in self.admits

    def inserted(self, key: int, prefetched: bool) -> None:
        self.held.add(key)
        self.told.append(("inserted", key, prefetched))

    def evicted(self, key: int) -> None:
        self.held.remove(key)
        self.told.append(("evicted", key))

    def victim(self, barred: Container[int]) -> int | None:
        return min((key for key in self.held if key not in barred), default=None)


def run(policy: CachePolicy, whole: Stream, capacity: int, strict: bool = True, **more) -> list[int]:
    keys = 8
    sight = sight_for(policy, whole, keys // whole.layer_count, keys)
    outcome = drive(policy, whole, [1] * keys, capacity, strict, range(keys), sight, 0, **more)
    return list(outcome.hits)


def test_the_order_of_calls() -> None:
    policy = Recorder()
    assert run(policy, stream([[0, 1], [2, 1], [0]]), 2) == [0, 0, 0, 1, 0]
    assert policy.told == [
        ("used", [0, 1]),
        ("inserted", 0, False),
        ("inserted", 1, False),
        ("used", [2, 1]),
        ("evicted", 0),
        ("inserted", 2, False),
        ("used", [0]),
        ("evicted", 1),
        ("inserted", 0, False),
    ]


def test_admission_is_asked_only_where_keys_may_bypass() -> None:
    policy = Recorder(admits={0, 2})
    assert run(policy, stream([[0], [1], [2], [1], [0]]), 2, bypass=True) == [0, 0, 0, 0, 1]
    assert [told for told in policy.told if told[0] == "inserted"] == [("inserted", 0, False), ("inserted", 2, False)]
    assert policy.told.count(("admit", 1, False)) == 2


def test_an_event_too_large() -> None:
    strict, roomy = Recorder(), Recorder()
    events = [[0, 1, 2], [0, 1], [2]]
    assert run(strict, stream(events), 1) == [0, 0, 0, 0, 0, 0]
    assert ("evicted", 0) in strict.told[:6]
    assert run(roomy, stream(events), 1, strict=False) == [0, 0, 0, 1, 1, 0]


@pytest.mark.parametrize(("named", "state"), [(7, "is not resident"), (1, "may not be evicted now")])
def test_a_victim_that_cannot_be(named: int, state: str) -> None:
    class Wrong(Recorder):
        def victim(self, barred: Container[int]) -> int | None:
            return named

    with pytest.raises(InputError, match=f"cache policy 'recorder' names key {named} as victim, which {state}"):
        run(Wrong(), stream([[0, 1], [2, 1]]), 2)


class Watcher(Recorder):
    """Writes down what its view shows at each event."""

    def used(self, keys: Sequence[int]) -> None:
        view = self.view
        shown: dict[str, object] = {"event": (view.step, view.layer, view.event)}
        if hasattr(view, "current"):
            shown["current"] = list(view.current)
        if hasattr(view, "next_uses"):
            shown["uses"] = {key: int(use) for key, use in enumerate(view.next_uses) if use < FAR}
            shown["needed"] = [list(view.needed(layer)) for layer in range(view.layers)]
        self.told.append(shown)

    def admit(self, key: int, prefetched: bool) -> bool:
        return True


def shown(policy: Watcher, what: str) -> list[object]:
    """Two layers of 4 experts: steps {0, 1} {4}, then {1} {5, 4}, then {0} {5}."""
    whole = stream([[0, 1], [4], [1], [5, 4], [0], [5]], [0, 1, 0, 1, 0, 1], 2)
    run(policy, whole, 8)
    return [told[what] for told in policy.told if isinstance(told, dict)]


def test_history_and_layer() -> None:
    assert shown(Watcher(), "event") == [(s, layer, 2 * s + layer) for s in range(3) for layer in range(2)]
    assert shown(Watcher("layer"), "current") == [[0, 1], [4], [1], [5, 4], [0], [5]]


def test_a_step_shows_its_own_later_layers() -> None:
    assert shown(Watcher("step"), "uses") == [{4: 1}, {}, {4: 3, 5: 3}, {}, {5: 5}, {}]
    assert shown(Watcher("queue"), "uses") == shown(Watcher("step"), "uses")
    assert shown(Watcher("step"), "needed")[2:4] == [[[1], [5, 4]]] * 2


def test_persist_expects_a_key_again_one_step_later() -> None:
    found = shown(Watcher("step", "persist"), "uses")
    assert found[0] == {0: 2, 1: 2, 4: 1}
    assert found[1] == {0: 2, 1: 2, 4: 3}


def test_an_oracle_sees_every_next_use() -> None:
    found = shown(Watcher("oracle"), "uses")
    assert found[0] == {0: 4, 1: 2, 4: 1, 5: 3}
    assert found[1] == {0: 4, 1: 2, 4: 3, 5: 3}
    assert found[3] == {0: 4, 5: 5}
    assert found[5] == {}


def test_a_lookahead_of_horizon_zero_is_lru() -> None:
    rng = np.random.default_rng(1)
    whole = stream([rng.choice(8, 3, replace=False).tolist() for _ in range(400)])
    assert run(find("cache", "lookahead")(level="oracle", horizon=0), whole, 4) == run(find("cache", "lru")(), whole, 4)
