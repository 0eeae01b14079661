"""What a step asks for: the experts of each layer and their tokens; and the use of an event's keys."""

from __future__ import annotations

import numpy as np
from numba import njit

from moesim.sim.kernel import layout as at


@njit
def gather(m: np.ndarray, chosen: np.ndarray) -> None:
    """Experts of each row by first use (position, then slot), and their tokens (`moesim.sim.work`)."""
    _, rows, width = chosen.shape
    which, found, place, experts = m[at.WHICH], m[at.FOUND], m[at.PLACE], m[at.EXPERTS]
    for row in range(rows):
        for rank in range(row * experts, row * experts + m[found + row]):
            m[place + row * experts + m[which + rank]] = 0
        m[found + row] = 0
    m[at.PREFILL_TOKENS] = m[at.DECODE_TOKENS] = 0
    for part in range(m[at.REQUESTS]):
        of = m[at.ASKED] + 4 * part
        first, tokens = m[of], m[of + 2]
        m[at.PREFILL_TOKENS if m[of + 3] else at.DECODE_TOKENS] += tokens
        counts = m[at.PREFILL if m[of + 3] else at.DECODE]
        for token in range(first, first + tokens):
            for row in range(rows):
                for slot in range(width):
                    expert = chosen[token, row, slot]
                    if expert < 0:
                        continue
                    spot = place + row * experts + expert
                    if m[spot] == 0:
                        rank = row * experts + m[found + row]
                        m[found + row] += 1
                        m[spot] = m[found + row]
                        m[which + rank] = expert
                        m[m[at.PREFILL] + rank] = m[m[at.DECODE] + rank] = 0
                    m[counts + row * experts + m[spot] - 1] += 1


@njit
def use(m: np.ndarray) -> int:
    """Class, count and use the keys of the present event; returns how many are missing."""
    row, base, size = m[at.LINE] * m[at.EXPERTS], m[at.LAYER] * m[at.EXPERTS], m[at.KEY_BYTES]
    missing = ready = 0
    for rank in range(m[at.NEEDED]):
        key = base + m[m[at.WHICH] + row + rank]
        prefill, decode = m[m[at.PREFILL] + row + rank], m[m[at.DECODE] + row + rank]
        if m[m[at.HERE] + key]:
            spot = at.REUSE
            m[m[at.READIES] + ready] = rank
            ready += 1
        else:
            spot = at.MISS
            m[m[at.MISSING] + missing] = rank
            missing += 1
        phase = 0 if prefill else 1
        m[spot + phase] += 1
        m[spot + 2] += prefill
        m[spot + 3] += decode
        m[spot + 4 + phase] += size
        m[m[at.USES] + key] += 1
        if not m[at.AT_INSERTION]:
            m[at.TICK] += 1
            m[m[at.STAMP] + key] = m[at.TICK]
    m[at.READY] = ready
    return missing
