from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from moesim.policy import CachePolicy, Pool, View, register
from moesim.policy.cache import Ranking, layer_of


@register("hobbit")
class Hobbit(CachePolicy):
    """Evict the key of least weighted recency, frequency and nearness of its layer (HOBBIT's cache score).

    lru * R/T + lfu * F/T + fld * (1 - (layers from the present one to the key's)/layers): R is the step of the last
    use, F the number of steps that used the key, T the number of the step, all counted from 1. The weights add up to 1.
    `reset`: when they start to count anew. `sequence`, as in the paper (3.4), which serves one sequence at a time: with
    the next step once all requests of the step that they began with have got their last token, so that in a batch some
    counts outlive their request. Or every so many steps, or never (null). The paper's fourth term, uses in high
    precision, is left out: all keys have one precision. Its two layer indices are read so that layers about to run are
    kept.

    Source: HOBBIT (2411.01433), section 3.4.
    """

    cost = "O(layers + log n)"

    def __init__(
        self, lru: float = 0.4, lfu: float = 0.4, fld: float = 0.2, reset: int | str | None = "sequence"
    ) -> None:
        weights = {"lru": lru, "lfu": lfu, "fld": fld}
        for name, weight in weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
                raise ValueError(f"{name} {weight!r} must be a number, 0 or more")
        if abs(sum(weights.values()) - 1) > 1e-6:
            raise ValueError(f"lru, lfu and fld add up to {sum(weights.values()):g}, and must add up to 1")
        often = isinstance(reset, int) and not isinstance(reset, bool) and reset >= 1
        if reset not in (None, "sequence") and not often:
            raise ValueError(f"reset {reset!r} must be sequence, null or a whole number of steps, 1 or more")
        self.lru, self.lfu, self.fld = lru, lfu, fld
        self.reset = reset

    def start(self, pool: Pool, view: View) -> None:
        super().start(pool, view)
        self.since = 0
        """the step from which R, F and T count"""
        self.counted: set[int] = set()
        """requests of that step that are in service"""
        self.last: dict[int, int] = {}
        self.uses: dict[int, int] = {}
        self.resident: set[int] = set()
        self.rows: dict[int, Ranking] = {}
        """by layer: resident keys, by the part of their score that only changes when they are used, times T"""

    def used_by(self, requests: Mapping[int, Sequence[int]]) -> None:
        if self.reset == "sequence" and not self.counted:
            self._start_anew()
            self.counted.update(*requests.values())

    def ended(self, requests: Sequence[int]) -> None:
        self.counted.difference_update(requests)

    def used(self, keys: Sequence[int]) -> None:
        if isinstance(self.reset, int) and self.view.step - self.since >= self.reset:
            self._start_anew()
        step = self._steps()
        for key in keys:
            if self.last.get(key) != step:  # again in one step, as when it was pushed out, is no further use
                self.uses[key] = self.uses.get(key, 0) + 1
            self._touch(key, step)

    def inserted(self, key: int, prefetched: bool) -> None:
        self.resident.add(key)
        if prefetched:
            self.uses.setdefault(key, 0)
        self._touch(key, self._steps() if prefetched else self.last[key])

    def evicted(self, key: int) -> None:
        self.resident.remove(key)
        self.rows[layer_of(self.view, key)].drop(key)

    def victim(self, barred: Container[int]) -> int | None:
        layers, steps = self.view.layers, self._steps()
        tops: list[tuple[float, int, Ranking, float]] = []
        for place, (layer, row) in enumerate(self.rows.items()):
            key = row.first()
            if key is not None:
                nearness = self.fld * (1 - (layer - self.view.layer) % layers / layers)
                tops.append((row.rank[key] / steps + nearness, place, row, nearness))
        least, victim = (float("inf"), 0), None
        for score, place, row, nearness in sorted(tops):
            if (score, place) > least:  # the first key of a layer may be barred, but those behind it score no less
                break
            key = row.first(barred)
            if key is not None:
                found = row.rank[key] / steps + nearness, place
                if found < least:
                    least, victim = found, key
        return victim

    def _steps(self) -> int:
        return self.view.step - self.since + 1

    def _touch(self, key: int, step: int) -> None:
        self.last[key] = step
        if key in self.resident:
            row = self.rows.setdefault(layer_of(self.view, key), Ranking())
            row.set(key, self.lru * step + self.lfu * self.uses[key])

    def _start_anew(self) -> None:
        self.since = self.view.step
        self.last.clear()
        self.uses.clear()
        for key in self.resident:
            self.uses[key] = 0
            self._touch(key, 0)
