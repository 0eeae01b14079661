"""Drives a cache policy, the same object as in the simulator, through the layer events of one pool."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from itertools import pairwise

import numpy as np

from moesim.errors import InputError, Problem
from moesim.policy import CachePolicy, Pool
from moesim.policy.cache import wants_users
from moesim.replay.kernels import Outcome
from moesim.replay.sight import Sight
from moesim.replay.stream import Stream


def drive(
    policy: CachePolicy,
    stream: Stream,
    sizes: Sequence[int],
    capacity: int,
    strict: bool,
    pool: range,
    sight: Sight,
    seed: int,
    bypass: bool = False,
) -> Outcome:
    """Replay the events of `pool`'s keys. Raises InputError where the policy names a victim that is not resident.

    Per event: `used_by` (each sequence is a request, which has `ended` where the next one begins) and `used` with all
    keys, then for each missing one `admit` (with `bypass`), `victim` and `evicted` until there is room (or no victim
    beside the event's own keys), `inserted`. Nothing else is said of a key that is not admitted; it is barred in its
    event. What is held beyond the capacity after that, because an earlier event's keys were too many, leaves too; and
    with `strict` also keys of the event, where they alone exceed the capacity.
    """
    policy.start(Pool(pool, capacity, sizes, random.Random(seed)), sight.view)
    keys, hits = stream.keys.tolist(), bytearray(stream.accesses)
    resident: set[int] = set()
    used = peak = 0
    tells, owners, request = wants_users(policy), stream.sequences, -1

    def evict(barred: Container[int]) -> bool:
        nonlocal used
        victim = policy.victim(barred)
        if victim is None:
            return False
        if victim not in resident or victim in barred:
            state = "may not be evicted now" if victim in resident else "is not resident"
            raise InputError(Problem("", f"cache policy {policy.name!r} names key {victim} as victim, which {state}"))
        resident.remove(victim)
        used -= sizes[victim]
        policy.evicted(victim)
        return True

    for event, (start, stop) in enumerate(pairwise(stream.bounds.tolist())):
        own = keys[start:stop]
        sight.enter(event, own)
        if tells:
            before, request = request, int(owners[event])
            if before not in (request, -1):
                policy.ended([before])
            policy.used_by(dict.fromkeys(own, (request,)))
        policy.used(own)
        missing = []
        for i, key in enumerate(own, start):
            if key in resident:
                hits[i] = 1
            else:
                missing.append(key)
        spared = set(own) if missing or used > capacity else ()
        passing: set[int] = set()
        for key in missing:
            if bypass and (sizes[key] > capacity or not policy.admit(key, False)):
                passing.add(key)
                continue
            while used + sizes[key] > capacity and evict(spared):
                pass
            resident.add(key)
            used += sizes[key]
            policy.inserted(key, False)
        while used > capacity and evict(spared):
            pass
        while strict and used > capacity and evict(passing):
            pass
        peak = max(peak, used)
    return Outcome(hits, peak)


def hits_of(outcome: Outcome) -> np.ndarray:
    """bool [accesses]"""
    return np.frombuffer(outcome.hits, dtype=np.uint8).astype(bool)
