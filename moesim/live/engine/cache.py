"""The expert cache with real memory behind it: every key that has its room has a slot on the device."""

from __future__ import annotations

from typing import Any

from moesim.live.copies import Slots
from moesim.sim.cache import STAGING, ExpertCache


class LiveCache(ExpertCache):
    """Decides as the simulator's does; takes a slot where that makes room, and gives it back where a key leaves."""

    def __init__(self, slots: Slots, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.slots = slots
        """a range for each pool, then one for staging"""
        self.held: dict[int, tuple[int, int]] = {}
        """place (as `place` says) and slot of each key that is there or on its way"""
        self.given_up: dict[int, list[tuple[int, int]]] = {}
        """the same of cancelled copies, by key, in the order in which they end"""

    def make_room(self, key: int, demanded: bool) -> bool:
        found = super().make_room(key, demanded)
        if found:
            place = self.place(key)
            self.held[key] = place, self.slots.take(place)
        return found

    def slot(self, key: int) -> int:
        """Where on the device a key is, or is going to be."""
        return self.held[key][1]

    def _gone(self, key: int) -> None:
        super()._gone(key)
        self.slots.give_back(*self.held.pop(key))

    def cancelled(self, key: int, sent_bytes: int, over: bool) -> int:
        place = super().cancelled(key, sent_bytes, over)
        where = self.held.pop(key)
        if over:
            self.slots.give_back(*where)
        else:
            self.given_up.setdefault(key, []).append(where)
        return place

    def ended(self, key: int) -> None:
        """The last chunk of a cancelled copy of `key` is over: nobody writes into its slot any more."""
        self.slots.give_back(*self.given_up[key].pop(0))

    def verify(self) -> None:
        super().verify()
        there = {key for key, state in enumerate(self.state) if state}
        slots = [*self.held.values(), *(where for held in self.given_up.values() for where in held)]
        if there != self.held.keys() or len(set(slots)) != len(slots):
            raise AssertionError(f"keys {sorted(there)} are there, and these hold slots: {self.held}, {self.given_up}")
        for place, of_range in enumerate(self.slots.ranges):
            name = STAGING if place == len(self.slots.ranges) - 1 else place
            count = sum(where[0] in (name, place) for where in slots)
            if count != self.slots.taken(place) or count > len(of_range):
                raise AssertionError(f"{count} keys are in range {place}, of which {self.slots.taken(place)} are taken")
