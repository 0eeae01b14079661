"""LRU, LFU and Belady's MIN as plain loops over lists: equal to the policy objects, several times as fast.

Each takes the keys of a pool's layer events, the bytes of every key and the pool's capacity, and gives a byte per
access (1: the key was there when its event began) and the most bytes held after an event. Evictions come after the
lookups and spare the event's own keys; `strict` then trims those too where they alone exceed the capacity.

Entries of the heaps are single integers: comparing tuples would take most of the time. Long streams run the same loops
compiled, over arrays, where numba is installed (the extra `fast`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from itertools import pairwise
from typing import Any

import numpy as np

from moesim.replay import compiled
from moesim.replay.stream import Stream


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one pool's replay saw: a byte per access (1: a hit) and the most bytes held after an event."""

    hits: bytearray
    peak: int


Kernel = Callable[[Stream, Sequence[int], int, bool], Outcome]
LOW = (1 << 40) - 1
FRESH = 1000
"""entries of a heap beyond twice those that count, after which it is cleared of stale ones"""


def lru(stream: Stream, sizes: Sequence[int], capacity: int, strict: bool) -> Outcome:
    """Evict the key used longest ago (policies/cache/lru.py)."""
    if compiled.worth(stream.accesses):
        return _run(compiled.lru_loop, stream, sizes, capacity, strict)
    keys, hits = stream.keys.tolist(), bytearray(stream.accesses)
    order: OrderedDict[int, None] = OrderedDict()
    renew, leave = order.move_to_end, order.popitem
    used = peak = 0
    for start, stop in pairwise(stream.bounds.tolist()):
        for i in range(start, stop):
            key = keys[i]
            if key in order:
                renew(key)
                hits[i] = 1
            else:
                order[key] = None
                used += sizes[key]
        if used > capacity:
            # The event's own keys are the most recent ones: whoever is left when only so many are there.
            own = 0 if strict else stop - start
            while used > capacity and len(order) > own:
                used -= sizes[leave(False)[0]]
        if used > peak:
            peak = used
    return Outcome(hits, peak)


def lfu(stream: Stream, sizes: Sequence[int], capacity: int, strict: bool) -> Outcome:
    """Evict the key with the fewest uses so far, the least recently used of equals (policies/cache/lfu.py)."""
    return _run(lfu_loop, stream, sizes, capacity, strict, False)


def lfu_in_cache(stream: Stream, sizes: Sequence[int], capacity: int, strict: bool) -> Outcome:
    """`lfu` that forgets the uses of a key that leaves (policies/cache/lfu_in_cache.py, libCacheSim's LFU)."""
    return _run(lfu_loop, stream, sizes, capacity, strict, True)


def belady(stream: Stream, sizes: Sequence[int], capacity: int, strict: bool, bypass: bool = False) -> Outcome:
    """Evict the key whose next use is farthest; with `bypass` the event's own keys may go as well.

    With keys of one size this is MIN: no policy that keeps (or, with bypass, need not keep) an event's own keys after
    it has fewer misses (Belady 1966, stated for sets: docs/cache.md). With unequal sizes it is a strong rule only.
    """
    return _run(belady_loop, stream, sizes, capacity, strict, bypass, -stream.next_access)


def belady_bypass(stream: Stream, sizes: Sequence[int], capacity: int, strict: bool) -> Outcome:
    """`belady` whose cache need not keep what an event has just used."""
    return belady(stream, sizes, capacity, strict, bypass=True)


def _run(
    loop: Callable[..., int], stream: Stream, sizes: Sequence[int], capacity: int, strict: bool, *more: Any
) -> Outcome:
    """A loop over lists, or compiled and over arrays where that is worth its start."""
    hits = bytearray(stream.accesses)
    if compiled.worth(stream.accesses):
        arrays = (stream.keys.astype(np.int64), stream.bounds, np.array(sizes, dtype=np.int64))
        found = np.frombuffer(hits, dtype=np.uint8)
        return Outcome(hits, int(compiled.fast(loop)(*arrays, capacity, strict, found, *more)))
    lists = [one.tolist() if isinstance(one, np.ndarray) else one for one in more]
    return Outcome(hits, loop(stream.keys.tolist(), stream.bounds.tolist(), sizes, capacity, strict, hits, *lists))


def lfu_loop(keys: Any, bounds: Any, sizes: Any, capacity: int, strict: bool, hits: Any, forgets: bool) -> int:
    """Fills `hits` and gives the peak; over lists or, compiled, over arrays."""
    uses, last, there = [0] * len(sizes), [0] * len(sizes), [0] * len(sizes)
    # One entry (uses, access) of each resident key. Both only grow, so an entry that has aged is brought up to date
    # when it comes to the top.
    heap = [0]
    heap.clear()
    used = peak = 0
    for event in range(len(bounds) - 1):
        start, stop = bounds[event], bounds[event + 1]
        fresh = used
        for i in range(start, stop):
            key = keys[i]
            uses[key] += 1
            last[key] = i
            if there[key]:
                hits[i] = 1
            else:
                used += sizes[key]
        if fresh == used and used <= capacity:
            continue
        own = [0]
        own.clear()
        while used > capacity and heap:
            i = heap[0] & LOW
            key = keys[i]
            now = last[key]
            if now >= start:
                own.append(now)
                heappop(heap)
            elif now > i:
                heapreplace(heap, uses[key] << 40 | now)
            else:
                heappop(heap)
                there[key] = 0
                used -= sizes[key]
                if forgets:
                    uses[key] = 0
        for i in own:
            heappush(heap, uses[keys[i]] << 40 | i)
        for i in range(start, stop):
            if not there[keys[i]]:
                there[keys[i]] = 1
                heappush(heap, uses[keys[i]] << 40 | i)
        while strict and used > capacity:
            key = keys[heappop(heap) & LOW]
            there[key] = 0
            used -= sizes[key]
            if forgets:
                uses[key] = 0
        peak = max(peak, used)
    return peak


def belady_loop(
    keys: Any, bounds: Any, sizes: Any, capacity: int, strict: bool, hits: Any, bypass: bool, after: Any
) -> int:
    """Fills `hits` and gives the peak; `after` has minus the index of each access's next one (Stream.next_access)."""
    count = len(keys)
    coming = [0] * len(sizes)  # minus the next access of a resident key, 0 if it is absent
    heap = [0]
    heap.clear()
    most = FRESH
    used = peak = 0
    for event in range(len(bounds) - 1):
        start, stop = bounds[event], bounds[event + 1]
        for i in range(start, stop):
            key = keys[i]
            if coming[key]:
                hits[i] = 1
            else:
                used += sizes[key]
            coming[key] = after[i]
        # Entries of the event's own keys have just grown stale: without new ones they cannot be chosen.
        waiting = not bypass
        if bypass:
            for i in range(start, stop):
                heappush(heap, after[i])
        while used > capacity:
            if not heap:
                if not waiting or not strict:
                    break
                waiting = False
                for i in range(start, stop):
                    heappush(heap, after[i])
                continue
            entry = heappop(heap)
            key = keys[-entry] if -entry < count else -entry - count
            if coming[key] == entry:
                coming[key] = 0
                used -= sizes[key]
        if waiting:
            for i in range(start, stop):
                heappush(heap, after[i])
        if used > peak:
            peak = used
        if len(heap) > most:  # hits leave stale entries at the bottom, where nothing drops them
            heap = [entry for entry in heap if coming[keys[-entry] if -entry < count else -entry - count] == entry]
            heapify(heap)
            most = 2 * len(heap) + FRESH
    return peak
