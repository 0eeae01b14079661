"""The link while an event runs in waves: `moesim.sim.link.Link`, demands only."""

from __future__ import annotations

import numpy as np
from numba import njit

from moesim.sim.kernel import layout as at
from moesim.sim.kernel.layout import NEVER
from moesim.sim.kernel.victims import make_room


@njit
def next_opening(m: np.ndarray) -> int:
    if m[at.SUBMITTED] == m[at.DEMANDED] or m[at.BLOCKED_UNTIL] == NEVER:
        return NEVER
    return max(m[m[at.WHEN] + m[at.SUBMITTED]], m[at.BLOCKED_UNTIL], m[m[at.ENDS]])


@njit
def next_landing(m: np.ndarray) -> int:
    return m[m[at.LANDS] + m[at.LANDED]] if m[at.LANDED] < m[at.SUBMITTED] else NEVER


@njit
def submit(m: np.ndarray, now: int) -> None:
    while next_opening(m) <= now:
        rank = m[at.LINE] * m[at.EXPERTS] + m[m[at.MISSING] + m[at.SUBMITTED]]
        if not make_room(m, m[at.LAYER] * m[at.EXPERTS] + m[m[at.WHICH] + rank]):
            m[at.BLOCKED_UNTIL] = NEVER
            return
        oldest, newest = m[at.ENDS], m[at.ENDS] + m[at.IN_FLIGHT] - 1
        end = max(m[newest], now)
        for chunk in range(m[at.CHUNKS], m[at.CHUNKS] + m[at.CHUNK_COUNT]):
            end += m[chunk]
            m[at.LINK_BUSY] += m[chunk]
            for spot in range(oldest, newest):
                m[spot] = m[spot + 1]
            m[newest] = end
        m[m[at.LANDS] + m[at.SUBMITTED]] = end
        m[at.SUBMITTED] += 1


@njit
def land(m: np.ndarray, now: int) -> None:
    m[m[at.READIES] + m[at.READY]] = m[m[at.MISSING] + m[at.LANDED]]
    m[at.READY] += 1
    m[at.LANDED] += 1
    if m[at.BLOCKED_UNTIL] == NEVER:
        m[at.BLOCKED_UNTIL] = now


@njit
def follow(m: np.ndarray, until: int, latest: int) -> None:
    """`Link.advance`: submissions before `until` and landings up to `latest`."""
    while True:
        end, opening = next_landing(m), next_opening(m)
        if end <= opening:
            if end > latest:
                return
            land(m, end)
        elif opening < until:
            submit(m, opening)
        else:
            return


@njit
def advance(m: np.ndarray, now: int) -> None:
    """`Engine._advance`."""
    end = m[at.RUNNING_UNTIL]
    if end <= now:
        follow(m, end, end - 1)
        m[at.RELEASED], m[at.RUNNING_UNTIL] = m[at.RAN], NEVER
        if m[at.BLOCKED_UNTIL] == NEVER:
            m[at.BLOCKED_UNTIL] = end
    follow(m, now, now)
