"""One cache policy, called as the engine calls it, beside an account of its own of what is resident."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from itertools import product

import numpy as np

from moesim.policy import FAR, LEVELS, CachePolicy, Pool, StepView, find, names
from moesim.policy.registry import _signature

CHOICES = {
    "level": LEVELS,
    "unknown": ("farthest", "persist"),
    "horizon": (None, 0, 3),
    "filing": ("span", "majority"),
    "patience": (0, 3),
    "layers": (None, 1),
}
"""values of parameters that are tried in every policy that has them"""

Variant = tuple[str, dict[str, object]]


def variants(kind: str) -> list[Variant]:
    """Every policy of a kind that `names` knows, with every combination of `CHOICES` that it accepts."""
    found = []
    for name in names(kind):
        cls = find(kind, name)
        own = [p for p in CHOICES if f"{p}:" in _signature(cls)]
        for values in product(*(CHOICES[p] for p in own)):
            try:
                cls(**dict(zip(own, values, strict=True)))
            except ValueError:
                continue
            found.append((name, dict(zip(own, values, strict=True))))
    return found


def label(variant: Variant) -> str:
    return "-".join([variant[0], *(str(v) for v in variant[1].values())])


class Drive:
    """A pool of `slots` keys of 10 bytes; `uses` is what the policy's view shows as next uses."""

    def __init__(self, made: CachePolicy, slots: int, keys: range = range(8), seed: int = 0) -> None:
        self.policy, self.slots = made, slots
        self.uses = np.full(keys.stop + 8, FAR, dtype=np.int64)
        self.view = StepView(1, keys.stop + 8, self.uses)
        self.resident: set[int] = set()
        made.start(Pool(keys, 10 * slots, [10] * (keys.stop + 8), random.Random(seed)), self.view)

    def use(self, *keys: int) -> list[int]:
        """One layer event under demand loading; the keys that it pushed out, in order."""
        self.view.step += 1
        self.view.layer = 0
        self.policy.used(keys)
        absent = [key for key in keys if key not in self.resident]
        out = []
        for number, key in enumerate(absent):
            out += self._insert(key, False, (set(keys), set(absent[number:])))
        return out

    def prefetch(self, key: int, barred: Container[int] = ()) -> list[int]:
        """The key that a prefetch pushed out, if it needed one; it is dropped where none may go."""
        return self._insert(key, True, (barred,))

    def next_uses(self, **uses: int) -> None:
        """`k3=7`: key 3 is used next in layer event 7, as far as the view shows; what is not named is not shown."""
        self.uses[:] = FAR
        for key, event in uses.items():
            self.uses[int(key[1:])] = event

    def _insert(self, key: int, prefetched: bool, tiers: Sequence[Container[int]]) -> list[int]:
        out: list[int] = []
        if len(self.resident) == self.slots:
            victim = next((v for barred in tiers if (v := self.policy.victim(barred)) is not None), None)
            if victim is None:
                assert prefetched, "a demand finds no victim although nothing is pinned"
                return out
            self.resident.remove(victim)
            self.policy.evicted(victim)
            out.append(victim)
        self.resident.add(key)
        self.policy.inserted(key, prefetched)
        return out


def pushed_out(drive: Drive, *events: Sequence[int] | int) -> list[int]:
    """Keys in the order in which they leave, over single keys or whole events."""
    return [v for e in events for v in drive.use(*([e] if isinstance(e, int) else e))]
