"""What no policy can beat, from a frozen schedule alone."""

from __future__ import annotations

import numpy as np

from moesim.sim.foresight import Foresight
from moesim.sim.schedule import Schedule


def min_misses(
    schedule: Schedule, steps: int, layers: int, experts: int, pools: list[tuple[range, int]], warmup: int
) -> int:
    """Fewest keys that any demand-loading policy misses in steps `warmup` .. `steps - 1` of a schedule.

    `pools` are (keys, slots). Belady's MIN (Belady 1966) on layer events: of what is there and what is needed, keep the
    keys whose next use is nearest. Where an event's set fits, the event's own keys are kept, as every policy here must;
    where it does not (waves), nothing is forced, so that the result stays a lower bound. With `warmup` 0 the cache
    starts empty; else it starts step `warmup` with the keys that are needed soonest, free of charge, as no policy can
    hold better ones by then.
    """
    foresight = Foresight(layers, experts)
    later = schedule.oracle(layers, experts, foresight.unseen)
    resident = np.zeros(layers * experts, dtype=bool)
    pool_of = {layer: pool for pool in pools for layer in range(pool[0].start // experts, -(-pool[0].stop // experts))}
    missed = 0
    for step in range(warmup, steps):
        work = schedule.frames[step].work
        foresight.begin(step, work, later[step])
        if step == warmup > 0:
            for keys, slots in pools:
                resident[keys.start : keys.stop] = True
                _shrink(resident, foresight.next_uses, keys, slots, [])
        for layer in range(layers):
            foresight.enter(layer)
            keys, slots = pool_of[layer]
            needed = [layer * experts + e for e in work.layer(layer).experts]
            misses = len(needed) - int(resident[needed].sum())
            if misses:
                missed += misses
                resident[needed] = True
                _shrink(resident, foresight.next_uses, keys, slots, needed)
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
