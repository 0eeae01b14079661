from __future__ import annotations

from pathlib import Path

import pytest

from moesim.errors import InputError
from moesim.replay import kernels
from moesim.replay.players import Player, players
from moesim.trace.meta import RoutingMeta


def wrong(*texts: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        players(texts)
    return [str(problem) for problem in caught.value.problems]


def test_names_scopes_and_parameters() -> None:
    found = players(["lru, lfu@layer,lookahead(level=oracle, horizon=3)@global", "belady,min(bypass=true)"])
    assert found == [
        Player("lru", {}),
        Player("lfu", {}, "layer"),
        Player("lookahead", {"level": "oracle", "horizon": 3}, "global"),
        Player("min", {}),
        Player("min-bypass", {}),
    ]
    assert [p.label for p in found[1:3]] == ["lfu", "lookahead(level=oracle, horizon=3)"]
    assert [p.oracle for p in found] == [False, False, True, True, True]


def test_twice_is_once() -> None:
    assert len(players(["lru,lru,min,belady"])) == 2


def test_every_mistake_at_once() -> None:
    found = wrong("lrv, lru@shelf,lookahead(horizon=-1),lookahead(deep),min(x=1), (a)")
    assert [text.split(";")[0] for text in found] == [
        "--policies: unknown cache policy 'lrv'",
        "--policies: 'lru@shelf': unknown scope 'shelf'. There is: global, layer",
        "--policies: cache policy 'lookahead': horizon -1 must be null or a whole number of layer events, 0 or more",
        "--policies: 'lookahead(deep)': 'deep' has no value",
        "--policies: 'min(x=1)': min takes no parameters",
        "--policies: '(a)' is no policy",
    ]
    assert wrong(" ,") == ["--policies: names no policy"]
    assert "a value is not YAML" in wrong("lookahead(level=[)")[0]
    assert "no such policy file" in wrong("mine.py")[0]


def test_a_policy_of_ones_own_is_driven(tmp_path: Path) -> None:
    """Even one that calls itself lru: the loop stands for the shipped one only."""
    source = Path(__file__).parents[2] / "policies" / "cache" / "lru.py"
    (tmp_path / "lru.py").write_text(source.read_text())
    (mine,) = players([str(tmp_path / "lru.py")])
    assert mine.kernel() is None
    assert Player("lru", {}).kernel() is kernels.lru
    assert Player("fifo", {}).kernel() is None


def test_levels_that_a_replay_does_not_show() -> None:
    known = {"model": "m", "layers": 2, "experts": 4, "key_bytes": 100, "label": "synthetic"}
    layerwise = RoutingMeta(router="layerwise", **known)
    decoupled = RoutingMeta(router="decoupled", **known)
    (step,) = players(["lookahead(level=step)"])
    assert "shows later layers to nobody" in step.problem(layerwise)
    assert step.problem(decoupled) == ""
    assert players(["lookahead(level=oracle)"])[0].problem(layerwise) == ""
