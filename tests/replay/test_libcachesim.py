"""Key by key, our misses are libCacheSim's, to the last one. A new policy takes a line in ORACLES."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from moesim.policy import names
from moesim.replay.players import KERNELS, OFFLINE, Player, Pooled
from moesim.replay.stream import Stream
from tests.replay import slow
from tests.replay.streams import stream

ORACLES = {
    "lru": "LRU",
    "fifo": "FIFO",
    "lfu-in-cache": "LFU",
    "clock": "Clock",
    "sieve": "Sieve",
    "arc": "ARC",
    "s3-fifo": "S3FIFO",
    "gdsf": "GDSF",
    "min": "Belady",
}
SIZES = (20, 50, 99)  # S3-FIFO of libCacheSim is sound from 20 on
KEYS, LENGTH = 200, 20_000
here = pytest.mark.skipif(
    find_spec("libcachesim") is None, reason="libcachesim is not installed: pip install --no-deps libcachesim"
)


def traces() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    weights = 1 / np.arange(1, KEYS + 1)
    zipf = rng.choice(KEYS, LENGTH, p=weights / weights.sum())
    # In the third the popular keys drift, so that what a policy forgets matters.
    drifting = (zipf + np.arange(LENGTH) // 500) % KEYS
    return {"random": rng.integers(0, KEYS, LENGTH), "zipf": zipf, "drifting": drifting}


def one_by_one(keys: np.ndarray) -> Stream:
    return stream([[int(key)] for key in keys])


def misses(player: Player, keys: Stream, size: int, count: int) -> int:
    outcome = player.play(keys, [1] * count, size, True, Pooled(range(count), count, 0, False))
    return len(outcome.hits) - sum(outcome.hits)


@cache
def asked(folder: Path, trace: str) -> dict[tuple[str, int], int]:
    """libCacheSim's misses on a trace by policy and size."""
    np.save(folder / f"{trace}.npy", traces()[trace])
    pairs = [(name, size) for name in ORACLES.values() for size in SIZES]
    words = [f"{name}:{size}" for name, size in pairs]
    command = [sys.executable, str(Path(__file__).with_name("oracle.py")), str(folder / f"{trace}.npy"), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {pair: count for pair, (count, _) in zip(pairs, found, strict=True)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("oracle")


@here
@pytest.mark.parametrize("trace", traces())
@pytest.mark.parametrize("policy", ORACLES)
def test_misses_are_those_of_libcachesim(policy: str, trace: str, folder: Path) -> None:
    if policy not in {*names("cache"), *OFFLINE}:
        pytest.skip(f"policies/cache has no {policy}")
    keys = one_by_one(traces()[trace])
    ours = {size: misses(Player(policy, {}), keys, size, KEYS) for size in SIZES}
    assert ours == {size: asked(folder, trace)[ORACLES[policy], size] for size in SIZES}


@here
@pytest.mark.parametrize(
    ("player", "theirs"),
    [
        (Player("lru", {}), "LRU"),
        (Player("lfu-in-cache", {}), "LFU"),
        (Player("lookahead", {"level": "oracle"}), "Belady"),
    ],
)
def test_so_are_those_of_objects_that_a_loop_stands_for(
    player: Player, theirs: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Player, "kernel", lambda self: None)
    assert misses(player, one_by_one(traces()["drifting"]), 50, KEYS) == asked(folder, "drifting")[theirs, 50]


def test_some_loop_and_some_object_is_compared() -> None:
    assert KERNELS.keys() & ORACLES.keys() and ORACLES.keys() & OFFLINE.keys()
    assert {"fifo"} <= ORACLES.keys() & set(names("cache")) - KERNELS.keys()


def test_lfu_that_keeps_its_counts_is_compared_with_the_slow_replay() -> None:
    """libCacheSim's LFU forgets a key that leaves; ours does not, and has no counterpart there."""
    keys = traces()["zipf"][:1500]
    expected = slow.misses_of(slow.replay("lfu", [(0, [int(key)]) for key in keys], [1] * KEYS, 20, True))
    assert misses(Player("lfu", {}), one_by_one(keys), 20, KEYS) == expected
