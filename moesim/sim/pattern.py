"""Situations that repeat: the keys of a step's layers, and what a layer event does with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter

Keys = tuple[tuple[int, ...], Callable[[bytearray], tuple[int, ...]], frozenset[int]]
"""keys of a layer event, what reads their states, and the keys as a set"""


@dataclass(frozen=True, slots=True)
class Pattern:
    """What `_load_and_run` did in a situation, to be done again where the situation is the same.

    Without a prefetcher the link is quiet when a layer event begins, so that everything in it follows from the tokens
    of each key, which keys are there, and how late the host is. Times are relative to the instant of the gate. `loads`
    are the keys that came, in order and by rank; in waves, each with the keys of the event that could leave for it.
    """

    loads: tuple[tuple[int, tuple[int, ...]], ...]
    stream: int
    host: int
    parts: tuple[int, ...]
    link_busy_ns: int
    waves: int


@lru_cache(maxsize=1024)
def keys_of(layers: int, width: int, experts: tuple[int, ...]) -> list[Keys]:
    """Keys of `experts` in every layer. Compared runs replay the same steps, so that most are asked for again."""
    found = []
    for base in range(0, layers * width, width):
        keys = tuple(base + e for e in experts)
        found.append((keys, _states_of(keys), frozenset(keys)))
    return found


def loads_of(
    script: Sequence[tuple[str, tuple[int, ...]]], keys: tuple[int, ...]
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """From what the cache noted: each load with the keys of the event that had run, if it had to take one of those."""
    rank = {key: place for place, key in enumerate(keys)}
    loads: list[tuple[int, tuple[int, ...]]] = []
    released: tuple[int, ...] = ()
    for what, named in script:
        if what == "release":
            released += tuple(rank[key] for key in named)
        else:
            loads.append((rank[named[0]], released if what == "again" else ()))
    return tuple(loads)


def _states_of(keys: tuple[int, ...]) -> Callable[[bytearray], tuple[int, ...]]:
    """`itemgetter` is the fastest reader of several states, but gives no tuple for one key."""
    if len(keys) == 1:
        only = keys[0]
        return lambda state: (state[only],)
    return itemgetter(*keys) if keys else lambda state: ()
