"""One cache policy, called as the engine calls it, beside an account of its own of what is resident."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from itertools import product

import numpy as np

from moesim.check.broken import Broken
from moesim.policy import FAR, LEVELS, CachePolicy, Pool, StepView, find, names
from moesim.policy.cache import wants_users
from moesim.policy.registry import parameters
from moesim.sim.cache import Either

CHOICES = {
    "level": LEVELS,
    "unknown": ("farthest", "persist"),
    "horizon": (None, 3),
    "filing": ("span", "majority"),
    "patience": (0, 3, None),
    "load": (4.0,),
    "layers": (None, 0, 1),
    "bypass": (True, False),
    "order": ("first", "farthest"),
    "cost": ("one", "link"),
    "distance": (0.0, 0.5, 1, 2),
    "reset": (None, 2, "sequence"),
    "clear": (None, 2),
    "learn": (0, 20),
    "window": (1, 32),  # steps: in a few of them nothing is learned of 32
    "steps": (None, 1),
    "width": (0, 1),
    "cancel": (True, False),
    "rule": ("sum", "max"),
    "fill": (True, False),
    "t1": (None, 0.6),
    "unpack_ns": (0.0, 0.1),
}
"""values of parameters that are tried in every policy that has them"""

Variant = tuple[str, dict[str, object]]


def variants(kind: str) -> list[Variant]:
    """Every policy of a kind that `names` knows, with every combination of `CHOICES` that it accepts."""
    found: list[Variant] = []
    for name in names(kind):
        cls = find(kind, name)
        own = [p for p in CHOICES if p in parameters(cls)]
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
    """A pool of `slots` keys of 10 bytes; `uses` is what the policy's view shows as next uses.

    With `layers` the keys from 0 on belong to so many layers, and a step lasts as long as events are of later layers.
    With `sizes` keys have these bytes. Two or three requests use the keys in turn, each for nine steps; or all of
    `requests` use every key, where these are given.
    """

    requests: Sequence[int] = ()

    def __init__(
        self,
        made: CachePolicy,
        slots: int,
        keys: range = range(8),
        seed: int = 0,
        layers: int | None = None,
        sizes: Sequence[int] = (),
    ) -> None:
        self.policy, self.room = made, 10 * slots
        self.tells = wants_users(made)
        self.sizes = sizes or [10] * (keys.stop + 8)
        self.uses = np.full(keys.stop + 8, FAR, dtype=np.int64)
        experts = keys.stop // layers if layers else keys.stop + 8
        self.view = StepView(layers or 1, experts, self.uses)
        self.view.layer = self.view.layers - 1
        self.resident: set[int] = set()
        made.start(Pool(keys, self.room, self.sizes, random.Random(seed)), self.view)

    def use(self, *keys: int) -> list[int]:
        """One layer event under demand loading; the keys that it pushed out, in order."""
        self.enter(keys[0] // self.view.experts)
        if self.tells:
            self.policy.used_by(self._users(keys))
        self.policy.used(keys)
        absent = [key for key in keys if key not in self.resident]
        out = []
        for number, key in enumerate(absent):
            out += self._insert(key, False, (set(keys), set(absent[number:])))
        return out

    def enter(self, layer: int) -> None:
        """The view moves on to the next event of `layer`."""
        if layer <= self.view.layer:
            self.view.step += 1
            number, begins = divmod(self.view.step, 3)
            if self.tells and not self.requests and not begins and number >= 3:
                self.policy.ended([number - 3])
        self.view.layer = layer

    def prefetch(self, key: int, barred: Container[int] = ()) -> list[int]:
        """The key that a prefetch pushed out, if it needed one; it is dropped where none may go."""
        return self._insert(key, True, (barred,))

    def next_uses(self, **uses: int) -> None:
        """`k3=7`: key 3 is used next in layer event 7, as far as the view shows; what is not named is not shown."""
        self.uses[:] = FAR
        for key, event in uses.items():
            self.uses[int(key[1:])] = event

    def _users(self, keys: Sequence[int]) -> dict[int, Sequence[int]]:
        last = self.view.step // 3
        first = max(last - 2, 0), max(last - 1, 0)
        return {key: self.requests or range(first[place % 2], last + 1) for place, key in enumerate(keys)}

    def _insert(self, key: int, prefetched: bool, tiers: Sequence[Container[int]]) -> list[int]:
        out: list[int] = []
        short = self.sizes[key] - self.room
        for barred in tiers:
            while short > 0 and (victim := self.policy.victim(Either(barred, out) if out else barred)) is not None:
                if victim in out or victim not in self.resident:
                    raise Broken(f"it named {victim!r} as a victim for key {key}, which is not there")
                out.append(victim)
                short -= self.sizes[victim]
        if short > 0:
            if not prefetched:
                raise Broken(f"it named no victim for key {key} although nothing is pinned")
            return []
        for victim in out:
            self.resident.remove(victim)
            self.room += self.sizes[victim]
            self.policy.evicted(victim)
        self.room -= self.sizes[key]
        self.resident.add(key)
        self.policy.inserted(key, prefetched)
        return out


def pushed_out(drive: Drive, *events: Sequence[int] | int) -> list[int]:
    """Keys in the order in which they leave, over single keys or whole events."""
    return [v for e in events for v in drive.use(*([e] if isinstance(e, int) else e))]
