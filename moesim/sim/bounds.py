"""What no policy can beat, from a frozen schedule alone."""

from __future__ import annotations

import numpy as np

from moesim.hardware.keys import Keys
from moesim.sim.foresight import Foresight
from moesim.sim.schedule import Schedule


def min_misses(
    schedule: Schedule, keys: Keys, pools: list[tuple[range, int]], warmup: int, *, bypass: bool = False
) -> int:
    """Fewest keys that any demand-loading policy misses in the steps of a schedule from `warmup` on.

    `pools` are (keys, slots). Belady's MIN (Belady 1966) on layer events: of what is there and what is needed, keep the
    keys whose next use is nearest. Where an event's set fits, the event's own keys are kept, as every policy here must;
    where it does not (waves), or where keys may `bypass` the cache, nothing is forced, so that the result stays a lower
    bound. With `warmup` 0 the cache starts empty; else it starts step `warmup` with the keys that are needed soonest,
    free of charge, as no policy can hold better ones by then.
    """
    foresight = Foresight(keys)
    later = schedule.oracle(keys.layers, keys.experts, foresight.unseen)
    resident = np.zeros(keys.count, dtype=bool)
    pool_of = [next(pool for pool in pools if row[0] in pool[0]) for row in keys.table]
    missed = 0
    for step in range(warmup, len(schedule.frames)):
        work = schedule.frames[step].work
        foresight.begin(step, work, later[step])
        if step == warmup > 0:
            for of_pool, slots in pools:
                resident[of_pool.start : of_pool.stop] = True
                _shrink(resident, foresight.next_uses, of_pool, slots, [])
        for layer in range(keys.layers):
            foresight.enter(layer)
            of_pool, slots = pool_of[layer]
            needed = list(keys.of_layer(layer, work.layer(layer).experts))
            misses = len(needed) - int(resident[needed].sum())
            if misses:
                missed += misses
                resident[needed] = True
                _shrink(resident, foresight.next_uses, of_pool, slots, [] if bypass else needed)
    return missed


def _shrink(resident: np.ndarray, uses: np.ndarray, keys: range, slots: int, needed: list[int]) -> None:
    """Drop the farthest next uses until `slots` keys are left, the event's own only if there are more of them."""
    here = np.flatnonzero(resident[keys.start : keys.stop]) + keys.start
    if len(here) <= slots:
        return
    rank = uses[here].copy()
    if len(needed) <= slots:
        rank[np.isin(here, needed)] = -1
    order = np.argsort(rank, kind="stable")
    resident[here[order[slots:]]] = False
