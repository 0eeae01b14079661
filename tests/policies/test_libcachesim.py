"""Misses of the textbook policies, one key at a time, are libCacheSim's exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from moesim.check.drive import Drive
from moesim.policy import FAR, find

OURS = {
    "lru": "LRU",
    "fifo": "FIFO",
    "lfu-in-cache": "LFU",
    "clock": "Clock",
    "sieve": "Sieve",
    "arc": "ARC",
    "s3-fifo": "S3FIFO",
    "min": "Belady",
}
CAPACITIES = (20, 25, 50, 99)
KEYS = 200
UNIFORM = np.random.default_rng(1).integers(0, KEYS, 20_000)
WEIGHTS = 1 / np.arange(1, KEYS + 1)
ZIPF = np.random.default_rng(2).choice(KEYS, 20_000, p=WEIGHTS / WEIGHTS.sum())
# The popular keys of a Zipf trace drift, so that what a policy forgets matters.
DRIFTING = (ZIPF + np.arange(20_000) // 500) % KEYS
TRACES = {"uniform": UNIFORM, "zipf": ZIPF, "drifting": DRIFTING}


def misses(name: str, keys: np.ndarray, capacity: int) -> int:
    params = {"bypass": False} if name == "min" else {}
    drive = Drive(find("cache", name)(**params), capacity, range(KEYS))  # type: ignore[arg-type]
    following = np.full(KEYS, FAR, dtype=np.int64)
    nexts = np.empty(len(keys), dtype=np.int64)
    for number in range(len(keys) - 1, -1, -1):
        nexts[number] = following[keys[number]]
        following[keys[number]] = number + 1
    drive.uses[:KEYS] = following
    count = 0
    for key, after in zip(keys.tolist(), nexts, strict=True):
        count += key not in drive.resident
        drive.uses[key] = after
        drive.use(key)
    return count


@pytest.mark.skipif(find_spec("libcachesim") is None, reason="libcachesim is not installed (pip install libcachesim)")
@pytest.mark.parametrize("trace", TRACES)
def test_misses_are_those_of_libcachesim(trace: str, tmp_path: Path) -> None:
    keys = TRACES[trace]
    np.save(tmp_path / "keys.npy", keys)
    asked = [(name, capacity) for name in OURS for capacity in CAPACITIES]
    program = Path(__file__).with_name("libcachesim_counts.py")
    command = [sys.executable, str(program), str(tmp_path / "keys.npy"), *(f"{OURS[n]}:{c}" for n, c in asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    ours = [misses(name, keys, capacity) for name, capacity in asked]
    wrong = [(a, o, t) for a, o, t in zip(asked, ours, theirs, strict=True) if o != t]
    assert not wrong, f"(policy, capacity), ours, libCacheSim's: {wrong}"
