"""A replay written for nothing but being plainly right: sets, and a scan of everything for each victim."""

from __future__ import annotations

from collections.abc import Sequence

FAR = 1 << 60
Event = tuple[int, Sequence[int]]


def replay(rule: str, events: Sequence[Event], sizes: Sequence[int], capacity: int, strict: bool) -> list[list[bool]]:
    """Of each event, which of its keys were there when it began. An event is (anything, keys); one pool."""
    held: set[int] = set()
    uses: dict[int, int] = {}
    last: dict[int, tuple[int, int]] = {}
    found = []
    for number, (_, keys) in enumerate(events):
        found.append([key in held for key in keys])
        for rank, key in enumerate(keys):
            held.add(key)
            uses[key] = uses.get(key, 0) + 1
            last[key] = (number, rank)
        while sum(sizes[key] for key in held) > capacity:
            free = held - set(keys) if rule != "min-bypass" else held
            if not free and strict:
                free = held
            if not free:
                break
            victim = _victim(rule, free, uses, last, events[number + 1 :])
            held.remove(victim)
            if rule == "lfu-in-cache":
                del uses[victim]
    return found


def _victim(rule: str, free: set[int], uses: dict, last: dict, future: Sequence[Event]) -> int:
    if rule == "lru":
        return min(free, key=lambda key: last[key])
    if rule.startswith("lfu"):
        return min(free, key=lambda key: (uses[key], last[key]))
    assert rule.startswith("min")
    return max(free, key=lambda key: (_next(key, future), key))


def _next(key: int, future: Sequence[Event]) -> int:
    return next((ahead for ahead, (_, keys) in enumerate(future) if key in keys), FAR)


def misses_of(found: list[list[bool]]) -> int:
    return sum(not hit for event in found for hit in event)


def fewest_misses(events: Sequence[Event], capacity: int, bypass: bool) -> int:
    """By trying everything: what may be held after an event is any part of what was held and of its own keys,
    with all its own keys unless `bypass` (or unless they alone are too many)."""
    from itertools import combinations

    best = {frozenset(): 0}
    for _, keys in events:
        own, after = frozenset(keys), {}
        for held, misses in best.items():
            misses += len(own - held)
            there = held | own
            for size in range(min(capacity, len(there)) + 1):
                for kept in map(frozenset, combinations(sorted(there), size)):
                    fits = bypass or own <= kept or (len(own) > capacity and kept <= own)
                    if fits and misses < after.get(kept, FAR):
                        after[kept] = misses
        best = after
    return min(best.values())
