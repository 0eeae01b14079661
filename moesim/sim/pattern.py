"""Situations that repeat: the keys of a layer event, and what the event does with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

from moesim.hardware.keys import Keys

KEPT = 50_000
"""entries after which a memory of what repeats is emptied"""


Reader = Callable[[Sequence[int]], tuple[int, ...]]
"""takes what a sequence has at some places"""


class Event(NamedTuple):
    """Keys of a layer event, ranked, and what reads their states."""

    keys: tuple[int, ...]
    states_of: Reader


@dataclass(frozen=True, slots=True)
class Pattern:
    """What `_load_and_run` did in a situation, to be done again where the situation is the same.

    Without a prefetcher the link is quiet when a layer event begins, so that everything in it follows from the tokens
    of each key, which keys are there, and how late the host is. Times are relative to the instant of the gate. `loads`
    are the keys that came, in order and by rank, each with those of the event that could not leave for it (None: all).
    `parts` are those that got time, and how much.
    """

    loads: tuple[tuple[int, Reader | None], ...]
    stream: int
    host: int
    parts: tuple[tuple[int, int], ...]
    link_busy_ns: int
    waves: int


class Events:
    """Layer events by the experts they use. Most are asked for again: steps repeat, and so do compared runs."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._of_layer: dict[tuple[int, tuple[int, ...]], Event] = {}
        self._of_step: dict[tuple[int, ...], list[Event]] = {}

    def of_layer(self, layer: int, experts: tuple[int, ...]) -> Event:
        """The event of one layer."""
        found = self._of_layer.get((layer, experts))
        if found is None:
            if len(self._of_layer) >= KEPT:
                self._of_layer.clear()
            keys = _reader(experts)(self._keys.table[layer])
            found = self._of_layer[layer, experts] = Event(keys, _reader(keys))
        return found

    def of_step(self, experts: tuple[int, ...]) -> list[Event]:
        """The events of a step that uses the same experts in all layers."""
        found = self._of_step.get(experts)
        if found is None:
            if len(self._of_step) * self._keys.layers >= KEPT:
                self._of_step.clear()
            of_layer = map(_reader(experts), self._keys.table)
            found = self._of_step[experts] = [Event(keys, _reader(keys)) for keys in of_layer]
        return found


def loads_of(
    script: Sequence[tuple[str, tuple[int, ...]]], keys: tuple[int, ...]
) -> tuple[tuple[int, Reader | None], ...]:
    """From what the cache noted: each load with the keys of the event that could not leave for it.

    Those are all of them (None) or, where one had to be taken that had run, those that had not.
    """
    rank = {key: place for place, key in enumerate(keys)}
    loads: list[tuple[int, Reader | None]] = []
    released: set[int] = set()
    for what, named in script:
        if what == "release":
            released.update(rank[key] for key in named)
        else:
            unrun = tuple(place for place in rank.values() if place not in released)
            loads.append((rank[named[0]], _reader(unrun) if what == "again" else None))
    return tuple(loads)


def _reader(places: tuple[int, ...]) -> Reader:
    """Reads what a sequence has at `places`: `itemgetter` is the fastest, but gives no tuple for one."""
    if len(places) == 1:
        only = places[0]
        return lambda sequence: (sequence[only],)
    return itemgetter(*places) if places else lambda sequence: ()
