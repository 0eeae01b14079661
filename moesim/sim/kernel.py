"""A whole step as compiled code (numba): what `moesim.sim.engine` does where nothing but demands moves keys.

The rules are those of docs/model.md; `Engine` with `direct=True` is their definition here, and the two agree to the
nanosecond. All state is in one int64 array `m`: the names in SCALARS and the row of the log are at fixed places, and
`m[HERE]` is where the area HERE starts, so that `m[m[HERE] + key]` says whether a key is here. (One array, because
numba counts references to each array at each call.) Everything is in one file because numba's cache looks at no other;
only `ask` and `run` are cached, the rest is compiled into them. Imported only when it is used (moesim.sim.compiled).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, types

NEVER = 1 << 62
FAR = 1 << 60
FINE, NO_COST, STUCK, NO_SUM, NO_BALANCE = range(5)
"""what `run` returns"""
BY_STAMP, BY_USES, BY_NEXT_USE = range(3)

CONSTANTS = (
    "launch", "sync", "submit", "decision", "layers", "experts", "rows", "pools", "layerwise", "routed", "barrier",
    "key_bytes", "by", "at_insertion", "horizon", "check", "chunk_count", "in_flight", "leaves",
)  # fmt: skip
(LAUNCH, SYNC, SUBMIT, DECISION, LAYERS, EXPERTS, ROWS, POOLS, LAYERWISE, ROUTED, BARRIER, KEY_BYTES, BY, AT_INSERTION,
 HORIZON, CHECK, CHUNK_COUNT, IN_FLIGHT, LEAVES) = range(19)  # fmt: skip
"""what does not change in a run: costs in ns and bytes; sizes; what the machine and the policy are like"""

STREAM, HOST, SAMPLED_AT, TICK, LOADS, MARKS = range(19, 25)
"""clocks in ns; ticks of recency; keys loaded; layers in MARKED"""
(LAYER, LINE, POOL, NEEDED, READY, RAN, RELEASED, RUNNING_UNTIL, DEMANDED, SUBMITTED, LANDED, BLOCKED_UNTIL) = range(25, 37)  # fmt: skip # noqa: E501
"""of the present layer event: its layer, row and pool, and how far it is, in numbers of its keys"""
FAILED, COMPONENT, ARGUMENT = 37, 38, 39
"""what went wrong: a cost that the table does not have, and its three arguments"""

BOOK = 42
"""the row of moesim.sim.log.StepLog"""
STEP, START, END, PREFILL_TOKENS, DECODE_TOKENS, REQUESTS = range(BOOK, BOOK + 6)
PARTS = BOOK + 6
ATTENTION, REST, GATE, ROUTER, EXPERT, IDLE_HOST, MISS_STALL = range(PARTS, PARTS + 7)
COUNTS = PARTS + 9
REUSE, MISS = COUNTS, COUNTS + 18
DEMAND_BYTES, LINK_BUSY, EVICTIONS, WAVES, UNIQUE = COUNTS + 24, COUNTS + 27, COUNTS + 28, COUNTS + 29, COUNTS + 33
BOOK_END = COUNTS + 41

AREAS = (
    "asked", "expert", "prefill", "decode", "found", "place", "here", "stamp", "uses", "later", "slots", "used",
    "rank_of", "heap", "length", "top_rank", "top_stamp", "tree", "stale", "marked", "ready", "missing", "at",
    "lands", "chunks", "ends", "grids", "points", "times", "known",
)  # fmt: skip
"""The areas, by what they hold.

asked: parts of the step [parts, 4]: row of the trace, position, tokens, whether it is prefill. expert, prefill, decode:
experts of each row by first use, and their tokens [rows, experts]; found: how many [rows]; place: 1 + an expert's place
among them, 0 if it is not needed [rows, experts]. here: whether a key occupies its bytes; stamp, uses [keys]. later:
the step that uses an expert next after this one [rows, experts] (`Foresight.begin`). slots, used: of each pool.

Of the keys that are here and that the present event does not need - rank_of: a key's rank when it was last asked for
[keys]; heap: those of each layer, the first to go on top [layers, experts]; length, top_rank, top_stamp: of each heap;
tree: matches between the tops, won by the first to go [2 * leaves]; stale, marked: heaps that have to be made anew.

Of the present event, by number - ready, missing: ranks of keys that are there, and that are not; at, lands: when those
were demanded and when they land. chunks: cost of each of a key; ends: of the last chunks, oldest first. grids, points,
times: the cost table (`CostTable.flat`); known: times of experts that were asked for [REMEMBERED, 2]."""
(ASKED, WHICH, PREFILL, DECODE, FOUND, PLACE, HERE, STAMP, USES, LATER, SLOTS, USED, RANK_OF, HEAP, LENGTH, TOP_RANK,
 TOP_STAMP, TREE, STALE, MARKED, READIES, MISSING, AT, LANDS, CHUNKS, ENDS, GRIDS, POINTS, TIMES,
 KNOWN) = range(BOOK_END, BOOK_END + 30)  # fmt: skip
START_OF_AREAS = BOOK_END + 30

REMEMBERED = 1024
"""times of experts that are kept, one for each remainder of a hash"""
C_PREFILL, C_DECODE, C_REST, C_GATE, C_ROUTER, C_EXPERTS, C_STEP = range(7)
"""components of the cost table"""


# ---- costs


@njit
def _cost(m: np.ndarray, component: int, a: int, b: int, c: int) -> int:
    """`CostTable._cost` and `Grid.at`, operation by operation; what the table does not have is noted."""
    if a == 0:
        return 0
    grid = m[GRIDS] + 15 * component
    base, fractions = m[TIMES] + m[grid + 1], 0
    share_0 = share_1 = share_2 = 0.0
    stride_0 = stride_1 = stride_2 = 0
    for axis in range(m[grid]):
        of = grid + 3 + 4 * axis
        value = a if m[of] == 0 else b if m[of] == 1 else c
        first, length, stride = m[POINTS] + m[of + 1], m[of + 2], m[of + 3]
        if not m[first] <= value <= m[first + length - 1] and not m[grid + 2]:
            if m[FAILED] == FINE:
                m[FAILED], m[COMPONENT] = NO_COST, component
                m[ARGUMENT], m[ARGUMENT + 1], m[ARGUMENT + 2] = a, b, c
            return 0
        if length == 1:
            continue
        low = first
        while low < first + length - 2 and m[low + 1] <= value:
            low += 1
        share = (value - m[low]) / (m[low + 1] - m[low])
        base += (low - first) * stride
        if share == 1.0:
            base += stride
        elif share != 0.0:
            if fractions == 0:
                share_0, stride_0 = share, stride
            elif fractions == 1:
                share_1, stride_1 = share, stride
            else:
                share_2, stride_2 = share, stride
            fractions += 1
    if fractions == 0:
        return m[base]
    total = 0.0
    for corner in range(1 << fractions):
        at, weight = base, 1.0
        for axis in range(fractions):
            share = share_0 if axis == 0 else share_1 if axis == 1 else share_2
            if corner >> (fractions - 1 - axis) & 1:
                at += stride_0 if axis == 0 else stride_1 if axis == 1 else stride_2
                weight *= share
            else:
                weight *= 1.0 - share
        total += weight * m[at]
    return max(0, int(np.rint(total)))


@njit
def _attention(m: np.ndarray) -> int:
    """One layer's attention of all parts of the step."""
    total = decoding = context = 0
    for part in range(m[REQUESTS]):
        of = m[ASKED] + 4 * part
        if m[of + 3]:
            total += _cost(m, C_PREFILL, m[of + 2], m[of + 1], 0)
        else:
            decoding += 1
            context += m[of + 1] + 1
    return total + _cost(m, C_DECODE, decoding, context, 0)


@njit
def _experts(m: np.ndarray, ranks: int, first: int, last: int) -> int:
    """The present event's keys number `first` to `last - 1` together; `ranks` is where their ranks are, -1: by rank."""
    row, total, largest = m[LINE] * m[EXPERTS], 0, 0
    for number in range(first, last):
        rank = row + (number if ranks < 0 else m[ranks + number])
        tokens = m[m[PREFILL] + rank] + m[m[DECODE] + rank]
        total += tokens
        largest = max(largest, tokens)
    if total >> 20:
        return _cost(m, C_EXPERTS, total, last - first, largest)
    asked = (total << 40) + ((last - first) << 20) + largest
    known = m[KNOWN] + 2 * ((asked * 0x9E3779B97F4A7C1 >> 40) & (REMEMBERED - 1))
    if m[known] != asked:
        m[known], m[known + 1] = asked, _cost(m, C_EXPERTS, total, last - first, largest)
    return m[known + 1]


# ---- what the step asks for


@njit
def _gather(m: np.ndarray, chosen: np.ndarray) -> None:
    """Experts of each row by first use (position, then slot), and their tokens (`moesim.sim.work`)."""
    _, rows, width = chosen.shape
    which, found, place, experts = m[WHICH], m[FOUND], m[PLACE], m[EXPERTS]
    for row in range(rows):
        for rank in range(row * experts, row * experts + m[found + row]):
            m[place + row * experts + m[which + rank]] = 0
        m[found + row] = 0
    m[PREFILL_TOKENS] = m[DECODE_TOKENS] = 0
    for part in range(m[REQUESTS]):
        of = m[ASKED] + 4 * part
        first, tokens = m[of], m[of + 2]
        m[PREFILL_TOKENS if m[of + 3] else DECODE_TOKENS] += tokens
        counts = m[PREFILL if m[of + 3] else DECODE]
        for token in range(first, first + tokens):
            for row in range(rows):
                for slot in range(width):
                    expert = chosen[token, row, slot]
                    if expert < 0:
                        continue
                    at = place + row * experts + expert
                    if m[at] == 0:
                        rank = row * experts + m[found + row]
                        m[found + row] += 1
                        m[at] = m[found + row]
                        m[which + rank] = expert
                        m[m[PREFILL] + rank] = m[m[DECODE] + rank] = 0
                    m[counts + row * experts + m[at] - 1] += 1


# ---- clocks


@njit
def _launch(m: np.ndarray, part: int, cost: int) -> None:
    """`Engine._kernel`."""
    m[HOST] += m[LAUNCH]
    if m[HOST] > m[STREAM]:
        m[IDLE_HOST] += m[HOST] - m[STREAM]
        m[STREAM] = m[HOST]
    m[part] += cost
    m[STREAM] += cost


@njit
def _synchronise(m: np.ndarray) -> None:
    m[HOST] = max(m[HOST], m[STREAM]) + m[SYNC]
    m[IDLE_HOST] += m[HOST] - m[STREAM]
    m[STREAM] = m[HOST]


# ---- the cache


@njit
def _rank(m: np.ndarray, layer: int, expert: int) -> int:
    """What of `moesim.policy.rule.Rule` comes before the stamp: the smallest goes first."""
    layers = m[LAYERS]
    if m[BY] == BY_USES:
        return m[m[USES] + layer * m[EXPERTS] + expert]
    if m[BY] == BY_NEXT_USE:
        at = (layer if m[ROWS] > 1 else 0) * m[EXPERTS] + expert
        if layer > m[LAYER] and m[m[PLACE] + at]:
            use = m[STEP] * layers + layer
        else:
            use = m[m[LATER] + at] * layers + layer
        limit = FAR if m[HORIZON] < 0 else m[STEP] * layers + m[LAYER] + m[HORIZON] + 1
        return -use if use < limit else -FAR
    return 0


@njit
def _before(rank: int, stamp: int, other_rank: int, other_stamp: int) -> bool:
    return rank < other_rank or (rank == other_rank and stamp < other_stamp)


@njit
def _sift(m: np.ndarray, heap: int, length: int, hole: int, key: int) -> None:
    """Let `key` sink from `hole` to its place in the heap at `heap`; the first to go is on top."""
    ranks, stamps = m[RANK_OF], m[STAMP]
    rank, stamp = m[ranks + key], m[stamps + key]
    child = 2 * hole + 1
    while child < length:
        below = m[heap + child]
        if child + 1 < length:
            other = m[heap + child + 1]
            if _before(m[ranks + other], m[stamps + other], m[ranks + below], m[stamps + below]):
                child, below = child + 1, other
        if not _before(m[ranks + below], m[stamps + below], rank, stamp):
            break
        m[heap + hole] = below
        hole, child = child, 2 * child + 1
    m[heap + hole] = key


@njit
def _order(m: np.ndarray, layer: int) -> None:
    """Make the heap of a layer's keys that are here and that the present event does not need."""
    experts, ranks = m[EXPERTS], m[RANK_OF]
    base, present = layer * experts, layer == m[LAYER]
    heap, here, place = m[HEAP] + base, m[HERE] + base, m[PLACE] + m[LINE] * experts
    length = 0
    for expert in range(experts):
        if m[here + expert] and not (present and m[place + expert]):
            m[heap + length] = base + expert
            m[ranks + base + expert] = _rank(m, layer, expert)
            length += 1
    for hole in range(length // 2 - 1, -1, -1):
        _sift(m, heap, length, hole, m[heap + hole])
    m[m[STALE] + layer] = 0
    _top(m, layer, length)


@njit
def _top(m: np.ndarray, layer: int, length: int) -> None:
    """Note the top of a layer's heap of `length` keys and, where layers share a pool, play its matches anew."""
    ranks, stamps, tree = m[TOP_RANK], m[TOP_STAMP], m[TREE]
    key = m[m[HEAP] + layer * m[EXPERTS]]
    m[m[LENGTH] + layer] = length
    m[ranks + layer] = m[m[RANK_OF] + key] if length else NEVER
    m[stamps + layer] = m[m[STAMP] + key] if length else NEVER
    node = (m[LEAVES] + layer) >> 1 if m[POOLS] == 1 else 0
    while node:
        one, other = m[tree + 2 * node], m[tree + 2 * node + 1]
        wins = _before(m[ranks + other], m[stamps + other], m[ranks + one], m[stamps + one])
        m[tree + node] = other if wins else one
        node >>= 1


@njit
def _mark(m: np.ndarray, layer: int) -> None:
    """The layer's heap is not up to date."""
    if not m[m[STALE] + layer]:
        m[m[STALE] + layer] = 1
        m[m[MARKED] + m[MARKS]] = layer
        m[MARKS] += 1


@njit
def _leader(m: np.ndarray) -> int:
    """The layer whose top is the first to go of the present pool; ranks are brought up to date on the way."""
    while True:
        if m[POOLS] > 1:
            layer = m[LAYER]
            if m[m[STALE] + layer]:
                m[MARKS] = 0
                _order(m, layer)
        else:
            while m[MARKS]:
                m[MARKS] -= 1
                _order(m, m[m[MARKED] + m[MARKS]])
            layer = m[m[TREE] + 1]
        if m[HORIZON] < 0 or m[m[TOP_RANK] + layer] != -FAR:
            return layer
        # A key that was beyond the horizon when it was ranked may have come within; it only ever moves back in line.
        heap = m[HEAP] + layer * m[EXPERTS]
        key = m[heap]
        rank = _rank(m, layer, key - layer * m[EXPERTS])
        if rank == -FAR:
            return layer
        m[m[RANK_OF] + key] = rank
        _sift(m, heap, m[m[LENGTH] + layer], 0, key)
        _top(m, layer, m[m[LENGTH] + layer])


@njit
def _victim(m: np.ndarray) -> int:
    """Take a key that the present event does not need, else one that has run in it; -1 if there is none."""
    layer = _leader(m)
    heap, length = m[HEAP] + layer * m[EXPERTS], m[m[LENGTH] + layer] - 1
    if length < 0:
        return _released(m)
    key = m[heap]
    if length:
        _sift(m, heap, length, 0, m[heap + length])
    _top(m, layer, length)
    return key


@njit
def _released(m: np.ndarray) -> int:
    """Of the keys that have run in the present event, the first to go."""
    key, rank, stamp = -1, 0, 0
    for number in range(m[RELEASED]):
        expert = m[m[WHICH] + m[LINE] * m[EXPERTS] + m[m[READIES] + number]]
        own = m[LAYER] * m[EXPERTS] + expert
        if m[m[HERE] + own]:
            own_rank, own_stamp = _rank(m, m[LAYER], expert), m[m[STAMP] + own]
            if key < 0 or _before(own_rank, own_stamp, rank, stamp):
                key, rank, stamp = own, own_rank, own_stamp
    return key


@njit
def _make_room(m: np.ndarray, key: int) -> bool:
    """`ExpertCache.make_room` of a demand."""
    used = m[USED] + m[POOL]
    if m[used] == m[m[SLOTS] + m[POOL]]:
        victim = _victim(m)
        if victim < 0:
            return False
        m[m[HERE] + victim] = 0
        m[EVICTIONS] += 1
        m[used] -= 1
    m[m[HERE] + key] = 1
    m[used] += 1
    m[LOADS] += 1
    m[DEMAND_BYTES] += m[KEY_BYTES]
    if m[AT_INSERTION]:
        m[TICK] += 1
        m[m[STAMP] + key] = m[TICK]
    return True


# ---- the link (`moesim.sim.link.Link`, demands only)


@njit
def _opening(m: np.ndarray) -> int:
    if m[SUBMITTED] == m[DEMANDED] or m[BLOCKED_UNTIL] == NEVER:
        return NEVER
    return max(m[m[AT] + m[SUBMITTED]], m[BLOCKED_UNTIL], m[m[ENDS]])


@njit
def _next_landing(m: np.ndarray) -> int:
    return m[m[LANDS] + m[LANDED]] if m[LANDED] < m[SUBMITTED] else NEVER


@njit
def _pump(m: np.ndarray, now: int) -> None:
    while _opening(m) <= now:
        rank = m[LINE] * m[EXPERTS] + m[m[MISSING] + m[SUBMITTED]]
        if not _make_room(m, m[LAYER] * m[EXPERTS] + m[m[WHICH] + rank]):
            m[BLOCKED_UNTIL] = NEVER
            return
        oldest, newest = m[ENDS], m[ENDS] + m[IN_FLIGHT] - 1
        end = max(m[newest], now)
        for chunk in range(m[CHUNKS], m[CHUNKS] + m[CHUNK_COUNT]):
            end += m[chunk]
            m[LINK_BUSY] += m[chunk]
            for at in range(oldest, newest):
                m[at] = m[at + 1]
            m[newest] = end
        m[m[LANDS] + m[SUBMITTED]] = end
        m[SUBMITTED] += 1


@njit
def _land(m: np.ndarray, now: int) -> None:
    m[m[READIES] + m[READY]] = m[m[MISSING] + m[LANDED]]
    m[READY] += 1
    m[LANDED] += 1
    if m[BLOCKED_UNTIL] == NEVER:
        m[BLOCKED_UNTIL] = now


@njit
def _follow(m: np.ndarray, until: int, latest: int) -> None:
    """`Link.advance`: submissions before `until` and landings up to `latest`."""
    while True:
        end, opening = _next_landing(m), _opening(m)
        if end <= opening:
            if end > latest:
                return
            _land(m, end)
        elif opening < until:
            _pump(m, opening)
        else:
            return


@njit
def _advance(m: np.ndarray, now: int) -> None:
    """`Engine._advance`."""
    end = m[RUNNING_UNTIL]
    if end <= now:
        _follow(m, end, end - 1)
        m[RELEASED], m[RUNNING_UNTIL] = m[RAN], NEVER
        if m[BLOCKED_UNTIL] == NEVER:
            m[BLOCKED_UNTIL] = end
    _follow(m, now, now)


# ---- a layer event


@njit
def _run_group(m: np.ndarray) -> None:
    """Run all that is ready and has not run."""
    m[HOST] = max(m[HOST], m[STREAM])
    _launch(m, EXPERT, _experts(m, m[READIES], m[RAN], m[READY]))
    m[RAN], m[RUNNING_UNTIL] = m[READY], m[STREAM]


@njit
def _stall(m: np.ndarray) -> None:
    """`Engine._stall`: to the next landing, or to where none can come: what is there runs then, and makes room."""
    free = now = max(m[STREAM], m[HOST])
    landed, stuck = m[LANDED], False
    while m[LANDED] == landed and not stuck:
        _pump(m, now)
        stuck = m[BLOCKED_UNTIL] == NEVER and m[LANDED] == m[SUBMITTED]
        if not stuck:
            end, opening = _next_landing(m), _opening(m)
            now = min(end, opening)
            if end <= opening:
                _land(m, end)
            else:
                _pump(m, opening)
    m[IDLE_HOST] += free - m[STREAM]
    m[MISS_STALL] += max(0, now - free)
    m[STREAM] = max(free, now)
    m[HOST] = max(m[HOST], now)
    if stuck:
        if m[READY] == m[RAN]:
            m[FAILED], m[RAN] = STUCK, m[NEEDED]
        else:
            _run_group(m)


@njit
def _load_what_fits(m: np.ndarray, missing: int) -> None:
    """`_load_in_waves` where the event fits its pool: there is always room, so that copies follow one another."""
    needed, base, ranks, lands = m[NEEDED], m[LAYER] * m[EXPERTS], m[MISSING], m[LANDS]
    which, copying, end = m[WHICH] + m[LINE] * m[EXPERTS], 0, 0
    for chunk in range(m[CHUNKS], m[CHUNKS] + m[CHUNK_COUNT]):
        copying += m[chunk]
    for number in range(missing):
        m[HOST] += m[SUBMIT]
        _make_room(m, base + m[which + m[ranks + number]])
        end = max(end, m[HOST]) + copying
        m[lands + number] = end
    m[LINK_BUSY] += missing * copying
    ran = landed = 0
    while ran < needed:
        free = max(m[STREAM], m[HOST])
        while landed < missing and m[lands + landed] <= free:
            m[m[READIES] + m[READY]] = m[ranks + landed]
            m[READY] += 1
            landed += 1
        if m[READY] == needed or (m[READY] > ran and not m[BARRIER]):
            m[HOST] = max(m[HOST], m[STREAM])
            _launch(m, EXPERT, _experts(m, m[READIES], ran, m[READY]))
            ran = m[READY]
        else:
            now = m[lands + landed]
            m[IDLE_HOST] += free - m[STREAM]
            m[MISS_STALL] += now - free
            m[STREAM] = now
            m[HOST] = max(m[HOST], now)


@njit
def _load_in_waves(m: np.ndarray, missing: int) -> None:
    """`Engine._load_and_run`; `missing` of the event's keys are not there."""
    needed = m[NEEDED]
    m[WAVES] += 1
    m[RAN] = m[RELEASED] = m[DEMANDED] = m[SUBMITTED] = m[LANDED] = m[BLOCKED_UNTIL] = 0
    m[RUNNING_UNTIL] = NEVER
    for end in range(m[ENDS], m[ENDS] + m[IN_FLIGHT]):
        m[end] = 0
    for number in range(missing):
        m[HOST] += m[SUBMIT]
        _advance(m, m[HOST])
        m[m[AT] + number] = m[HOST]
        m[DEMANDED] = number + 1
        _pump(m, m[HOST])
    while m[RAN] < needed:
        at = max(m[STREAM], m[HOST])
        _advance(m, at)
        _pump(m, at)
        if m[READY] > m[RAN] and (m[READY] == needed or not m[BARRIER]):
            _run_group(m)
        else:
            _stall(m)


@njit
def _use(m: np.ndarray) -> int:
    """Class, count and use the keys of the present event; returns how many are missing."""
    row, base, size = m[LINE] * m[EXPERTS], m[LAYER] * m[EXPERTS], m[KEY_BYTES]
    missing = ready = 0
    for rank in range(m[NEEDED]):
        key = base + m[m[WHICH] + row + rank]
        prefill, decode = m[m[PREFILL] + row + rank], m[m[DECODE] + row + rank]
        if m[m[HERE] + key]:
            at = REUSE
            m[m[READIES] + ready] = rank
            ready += 1
        else:
            at = MISS
            m[m[MISSING] + missing] = rank
            missing += 1
        phase = 0 if prefill else 1
        m[at + phase] += 1
        m[at + 2] += prefill
        m[at + 3] += decode
        m[at + 4 + phase] += size
        m[m[USES] + key] += 1
        if not m[AT_INSERTION]:
            m[TICK] += 1
            m[m[STAMP] + key] = m[TICK]
    m[READY] = ready
    return missing


@njit
def _layer(m: np.ndarray, layer: int, attention: int, rest: int, gate: int) -> None:
    _launch(m, ATTENTION, attention)
    m[REST] += rest
    m[STREAM] += rest
    if m[LAYERWISE]:
        _launch(m, GATE, gate)
        _synchronise(m)
    now = max(m[STREAM], m[HOST])
    m[LAYER] = layer
    m[LINE] = layer if m[ROWS] > 1 else 0
    m[POOL] = layer if m[POOLS] > 1 else 0
    m[NEEDED] = m[m[FOUND] + m[LINE]]
    m[UNIQUE] += m[NEEDED]
    if m[NEEDED]:
        missing = _use(m)
        _mark(m, layer)
        if missing:
            m[HOST] = max(m[HOST], now)
            if m[NEEDED] <= m[m[SLOTS] + m[POOL]]:
                _load_what_fits(m, missing)
            else:
                _load_in_waves(m, missing)
            _mark(m, layer)
        else:
            _launch(m, EXPERT, _experts(m, -1, 0, m[NEEDED]))


# ---- a step


@njit
def _check(m: np.ndarray) -> int:
    """Conservation: the step's parts, loads and evictions, and under CHECK every pool."""
    if m[PARTS:COUNTS].sum() != m[END] - m[START]:
        return NO_SUM
    if m[LOADS] - m[EVICTIONS] != m[m[USED] : m[USED] + m[POOLS]].sum():
        return NO_BALANCE
    if m[CHECK]:
        each = m[LAYERS] * m[EXPERTS] // m[POOLS]
        for pool in range(m[POOLS]):
            held = m[m[HERE] + pool * each : m[HERE] + (pool + 1) * each].sum()
            if held != m[m[USED] + pool] or held > m[m[SLOTS] + pool]:
                return NO_BALANCE
    return FINE


ASKS = types.int64(types.int64[::1], types.Array(types.int16, 3, "C", readonly=True), types.int64)
RUNS = types.int64(types.int64[::1], *[types.int64] * 4)


def _entries(digest: int) -> tuple[Callable[..., int], Callable[..., int]]:
    """What is called from outside, closed over a digest of this file: numba files what it compiled under that, too."""

    def ask(m: np.ndarray, chosen: np.ndarray, parts: int) -> int:
        """Take in a step of the parts in ASKED; `chosen` are the experts of the trace, int16 [tokens, rows, k].

        Returns whether any key that it needs is not here.
        """
        m[REQUESTS] = parts
        _gather(m, chosen)
        for layer in range(m[LAYERS]):
            row = layer * m[EXPERTS] if m[ROWS] > 1 else 0
            here = m[HERE] + layer * m[EXPERTS]
            for rank in range(m[m[FOUND] + (layer if m[ROWS] > 1 else 0)]):
                if not m[here + m[m[WHICH] + row + rank]]:
                    return 1
        return 0 if digest else 1

    def run(m: np.ndarray, step: int, start: int, sampled: int, routed: int) -> int:
        """Run what was asked: `sampled` parts yield a token, `routed` go on after it.

        Returns FINE or what is wrong; the row of the log is at BOOK.
        """
        m[STEP], m[START] = step, start
        m[PARTS:COUNTS] = 0
        m[STREAM] = start
        m[HOST] = max(m[HOST], start) + m[DECISION]
        if m[BY] == BY_NEXT_USE:
            for layer in range(m[LAYERS]):
                _mark(m, layer)
        tokens = m[PREFILL_TOKENS] + m[DECODE_TOKENS]
        attention, rest = _attention(m), _cost(m, C_REST, tokens, 0, 0)
        gate = _cost(m, C_GATE, tokens, 0, 0) if m[LAYERWISE] else 0
        router = _cost(m, C_ROUTER, routed, 0, 0) if m[ROUTED] else 0
        for layer in range(m[LAYERS]):
            _layer(m, layer, attention, rest, gate)
        _launch(m, REST, _cost(m, C_STEP, sampled, 0, 0))
        _synchronise(m)
        m[SAMPLED_AT] = m[STREAM]
        if router:
            _launch(m, ROUTER, router)
            _synchronise(m)
        m[END] = m[STREAM]
        return m[FAILED] if m[FAILED] != FINE or not digest else _check(m)

    return _compiled(ASKS, ask), _compiled(RUNS, run)


def _compiled(signature: Any, function: Callable[..., int]) -> Callable[..., int]:
    try:
        return njit(signature, cache=True)(function)
    except Exception:  # nowhere to keep what was compiled, or what was kept is damaged
        return njit(signature)(function)


ask, run = _entries(zlib.crc32(Path(__file__).read_bytes()))
