"""Which key leaves: a heap of keys for each layer and, where layers share a pool, a tree of matches between their tops.

A heap holds the keys of its layer that are here and that the present event does not need, the first to go on top. Ranks
are those of `moesim.policy.rule.Rule`; ticks of use or insertion decide between equals.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from moesim.sim.kernel import layout as at
from moesim.sim.kernel.layout import BY_NEXT_USE, BY_USES, FAR, NEVER


@njit
def rank_of(m: np.ndarray, layer: int, expert: int) -> int:
    """What of `moesim.policy.rule.Rule` comes before the stamp: the smallest goes first."""
    layers = m[at.LAYERS]
    if m[at.BY] == BY_USES:
        return m[m[at.USES] + layer * m[at.EXPERTS] + expert]
    if m[at.BY] == BY_NEXT_USE:
        spot = (layer if m[at.ROWS] > 1 else 0) * m[at.EXPERTS] + expert
        if layer > m[at.LAYER] and m[m[at.PLACE] + spot]:
            use = m[at.STEP] * layers + layer
        else:
            use = m[m[at.LATER] + spot] * layers + layer
        limit = FAR if m[at.HORIZON] < 0 else m[at.STEP] * layers + m[at.LAYER] + m[at.HORIZON] + 1
        return -use if use < limit else -FAR
    return 0


@njit
def goes_before(rank: int, stamp: int, other_rank: int, other_stamp: int) -> bool:
    return rank < other_rank or (rank == other_rank and stamp < other_stamp)


@njit
def sift(m: np.ndarray, heap: int, length: int, hole: int, key: int) -> None:
    """Let `key` sink from `hole` to its place in the heap at `heap`; the first to go is on top."""
    ranks, stamps = m[at.RANK_OF], m[at.STAMP]
    rank, stamp = m[ranks + key], m[stamps + key]
    child = 2 * hole + 1
    while child < length:
        below = m[heap + child]
        if child + 1 < length:
            other = m[heap + child + 1]
            if goes_before(m[ranks + other], m[stamps + other], m[ranks + below], m[stamps + below]):
                child, below = child + 1, other
        if not goes_before(m[ranks + below], m[stamps + below], rank, stamp):
            break
        m[heap + hole] = below
        hole, child = child, 2 * child + 1
    m[heap + hole] = key


@njit
def order(m: np.ndarray, layer: int) -> None:
    """Make the heap of a layer's keys that are here and that the present event does not need."""
    experts, ranks = m[at.EXPERTS], m[at.RANK_OF]
    base, present = layer * experts, layer == m[at.LAYER]
    heap, here, place = m[at.HEAP] + base, m[at.HERE] + base, m[at.PLACE] + m[at.LINE] * experts
    length = 0
    for expert in range(experts):
        if m[here + expert] and not (present and m[place + expert]):
            m[heap + length] = base + expert
            m[ranks + base + expert] = rank_of(m, layer, expert)
            length += 1
    for hole in range(length // 2 - 1, -1, -1):
        sift(m, heap, length, hole, m[heap + hole])
    m[m[at.STALE] + layer] = 0
    note_top(m, layer, length)


@njit
def note_top(m: np.ndarray, layer: int, length: int) -> None:
    """Note the top of a layer's heap of `length` keys and, where layers share a pool, play its matches anew."""
    ranks, stamps, tree = m[at.TOP_RANK], m[at.TOP_STAMP], m[at.TREE]
    key = m[m[at.HEAP] + layer * m[at.EXPERTS]]
    m[m[at.LENGTH] + layer] = length
    m[ranks + layer] = m[m[at.RANK_OF] + key] if length else NEVER
    m[stamps + layer] = m[m[at.STAMP] + key] if length else NEVER
    node = (m[at.LEAVES] + layer) >> 1 if m[at.POOLS] == 1 else 0
    while node:
        one, other = m[tree + 2 * node], m[tree + 2 * node + 1]
        wins = goes_before(m[ranks + other], m[stamps + other], m[ranks + one], m[stamps + one])
        m[tree + node] = other if wins else one
        node >>= 1


@njit
def mark(m: np.ndarray, layer: int) -> None:
    """The layer's heap is not up to date."""
    if not m[m[at.STALE] + layer]:
        m[m[at.STALE] + layer] = 1
        m[m[at.MARKED] + m[at.MARKS]] = layer
        m[at.MARKS] += 1


@njit
def find_leader(m: np.ndarray) -> int:
    """The layer whose top is the first to go of the present pool; ranks are brought up to date on the way."""
    while True:
        if m[at.POOLS] > 1:
            layer = m[at.LAYER]
            if m[m[at.STALE] + layer]:
                m[at.MARKS] = 0
                order(m, layer)
        else:
            while m[at.MARKS]:
                m[at.MARKS] -= 1
                order(m, m[m[at.MARKED] + m[at.MARKS]])
            layer = m[m[at.TREE] + 1]
        if m[at.HORIZON] < 0 or m[m[at.TOP_RANK] + layer] != -FAR:
            return layer
        # A key that was beyond the horizon when it was ranked may have come within; it only ever moves back in line.
        heap = m[at.HEAP] + layer * m[at.EXPERTS]
        key = m[heap]
        rank = rank_of(m, layer, key - layer * m[at.EXPERTS])
        if rank == -FAR:
            return layer
        m[m[at.RANK_OF] + key] = rank
        sift(m, heap, m[m[at.LENGTH] + layer], 0, key)
        note_top(m, layer, m[m[at.LENGTH] + layer])


@njit
def choose_victim(m: np.ndarray) -> int:
    """Take a key that the present event does not need, else one that has run in it; -1 if there is none."""
    layer = find_leader(m)
    heap, length = m[at.HEAP] + layer * m[at.EXPERTS], m[m[at.LENGTH] + layer] - 1
    if length < 0:
        return first_released(m)
    key = m[heap]
    if length:
        sift(m, heap, length, 0, m[heap + length])
    note_top(m, layer, length)
    return key


@njit
def first_released(m: np.ndarray) -> int:
    """Of the keys that have run in the present event, the first to go."""
    key, rank, stamp = -1, 0, 0
    for number in range(m[at.RELEASED]):
        expert = m[m[at.WHICH] + m[at.LINE] * m[at.EXPERTS] + m[m[at.READIES] + number]]
        own = m[at.LAYER] * m[at.EXPERTS] + expert
        if m[m[at.HERE] + own]:
            own_rank, own_stamp = rank_of(m, m[at.LAYER], expert), m[m[at.STAMP] + own]
            if key < 0 or goes_before(own_rank, own_stamp, rank, stamp):
                key, rank, stamp = own, own_rank, own_stamp
    return key


@njit
def make_room(m: np.ndarray, key: int) -> bool:
    """`ExpertCache.make_room` of a demand."""
    used = m[at.USED] + m[at.POOL]
    if m[used] == m[m[at.SLOTS] + m[at.POOL]]:
        victim = choose_victim(m)
        if victim < 0:
            return False
        m[m[at.HERE] + victim] = 0
        m[at.EVICTIONS] += 1
        m[used] -= 1
    m[m[at.HERE] + key] = 1
    m[used] += 1
    m[at.LOADS] += 1
    m[at.DEMAND_BYTES] += m[at.KEY_BYTES]
    if m[at.AT_INSERTION]:
        m[at.TICK] += 1
        m[m[at.STAMP] + key] = m[at.TICK]
    return True
