"""How fast untimed replays are, beside libCacheSim in the same run: `pytest -m bench -s tests/bench`."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from moesim.policy import names
from moesim.replay import Capacity, Settings, compiled, players, replay
from moesim.replay.players import OFFLINE, Player, Pooled
from moesim.trace.synthetic import synthetic
from tests.replay.streams import stream
from tests.replay.test_libcachesim import ORACLES

pytestmark = pytest.mark.bench

KEYS, SIZE, LENGTH, ROUNDS = 1000, 100, 1_000_000, 3


def zipf() -> np.ndarray:
    weights = 1 / np.arange(1, KEYS + 1)
    return np.random.default_rng(1).choice(KEYS, LENGTH, p=weights / weights.sum())


def theirs(folder: Path, keys: np.ndarray) -> dict[str, tuple[int, float]]:
    """libCacheSim's misses and seconds (median), by our name of the policy; nothing where it is not installed."""
    if find_spec("libcachesim") is None:
        return {}
    np.save(folder / "keys.npy", keys)
    program = Path(__file__).parents[1] / "replay" / "oracle.py"
    words = [f"{name}:{SIZE}" for name in ORACLES.values()] * ROUNDS
    done = subprocess.run(
        [sys.executable, str(program), str(folder / "keys.npy"), *words], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    rounds = [found[i :: len(ORACLES)] for i in range(len(ORACLES))]
    return {
        name: (runs[0][0], statistics.median(seconds for _, seconds in runs))
        for name, runs in zip(ORACLES, rounds, strict=True)
    }


def test_accesses_per_second_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1 M Zipf accesses to 1000 keys, room for 100."""
    keys = zipf()
    one_by_one = stream([[key] for key in keys.tolist()])
    pooled = Pooled(range(KEYS), KEYS, 0, False)
    beside = theirs(tmp_path, keys)
    print(f"\n{LENGTH:,} Zipf accesses, {KEYS} keys, room for {SIZE}; million accesses a second (median of {ROUNDS})")
    players = [Player(name, {}) for name in ("lfu", *ORACLES) if name in {*names("cache"), *OFFLINE}]
    ways = [(p, how) for p in players for how in (("loop", "compiled") if p.kernel() else ("object",))]
    for player, how in ways:
        if how == "compiled" and not compiled.there():
            continue
        monkeypatch.setattr(compiled, "LEAST", 0 if how == "compiled" else 10**9)
        name, times = player.name, []
        for _ in range(1 if how == "object" else ROUNDS):
            begin = time.perf_counter()
            outcome = player.play(one_by_one, [1] * KEYS, SIZE, True, pooled)
            times.append(time.perf_counter() - begin)
        misses, median = LENGTH - sum(outcome.hits), statistics.median(times)
        line = f"  {name:13} {how:8} {LENGTH / median / 1e6:6.2f}   {misses:,} misses"
        if name in beside:
            count, seconds = beside[name]
            line += f"; libCacheSim {LENGTH / seconds / 1e6:6.2f}, {count:,} misses"
            assert count == misses
        print(line)


def test_a_grid_of_54_cells() -> None:
    """As large as the published one: 48 layers of 128 experts, 6 of them a token, 128 output tokens, 9 sizes."""
    shape = {"layers": 48, "experts": 128, "k": 6, "key_bytes": 3_000_000}
    trace = synthetic("zipf", router="layerwise", sequences=1, prompt_tokens=28, output_tokens=128, **shape)
    sizes = [Capacity.parse(f"{n}%") for n in (6, 8, 10, 12, 20, 30, 40, 50, 60)]
    who = players(["min,lru,lfu,random,lru@layer,lfu@layer"])
    begin = time.perf_counter()
    rows = replay(trace, who, sizes, Settings(scopes=("global",)))
    seconds = time.perf_counter() - begin
    accesses = sum(row.decode_accesses + row.prompt_accesses for row in rows)
    print(f"\n{len(rows)} cells in {seconds:.2f} s, {accesses / seconds / 1e6:.2f} M accesses a second")
    assert len(rows) == 54
