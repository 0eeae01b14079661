"""A layer event: what of it is missing comes over the link, and its experts run (`moesim.sim.engine.Engine`)."""

from __future__ import annotations

import numpy as np
from numba import njit

from moesim.sim.kernel import layout as at
from moesim.sim.kernel.costs import group_cost
from moesim.sim.kernel.layout import NEVER, STUCK
from moesim.sim.kernel.link import advance, land, next_landing, next_opening, submit
from moesim.sim.kernel.victims import make_room, mark
from moesim.sim.kernel.work import use


@njit
def launch(m: np.ndarray, part: int, cost: int) -> None:
    """`Engine._kernel`."""
    m[at.HOST] += m[at.LAUNCH]
    if m[at.HOST] > m[at.STREAM]:
        m[at.IDLE_HOST] += m[at.HOST] - m[at.STREAM]
        m[at.STREAM] = m[at.HOST]
    m[part] += cost
    m[at.STREAM] += cost


@njit
def synchronise(m: np.ndarray) -> None:
    m[at.HOST] = max(m[at.HOST], m[at.STREAM]) + m[at.SYNC]
    m[at.IDLE_HOST] += m[at.HOST] - m[at.STREAM]
    m[at.STREAM] = m[at.HOST]


@njit
def run_group(m: np.ndarray) -> None:
    """Run all that is ready and has not run."""
    m[at.HOST] = max(m[at.HOST], m[at.STREAM])
    launch(m, at.EXPERT, group_cost(m, m[at.READIES], m[at.RAN], m[at.READY]))
    m[at.RAN], m[at.RUNNING_UNTIL] = m[at.READY], m[at.STREAM]


@njit
def stall(m: np.ndarray) -> None:
    """`Engine._stall`: to the next landing, or to where none can come: what is there runs then, and makes room."""
    free = now = max(m[at.STREAM], m[at.HOST])
    landed, stuck = m[at.LANDED], False
    while m[at.LANDED] == landed and not stuck:
        submit(m, now)
        stuck = m[at.BLOCKED_UNTIL] == NEVER and m[at.LANDED] == m[at.SUBMITTED]
        if not stuck:
            end, opening = next_landing(m), next_opening(m)
            now = min(end, opening)
            if end <= opening:
                land(m, end)
            else:
                submit(m, opening)
    m[at.IDLE_HOST] += free - m[at.STREAM]
    m[at.MISS_STALL] += max(0, now - free)
    m[at.STREAM] = max(free, now)
    m[at.HOST] = max(m[at.HOST], now)
    if stuck:
        if m[at.READY] == m[at.RAN]:
            m[at.FAILED], m[at.RAN] = STUCK, m[at.NEEDED]
        else:
            run_group(m)


@njit
def load_what_fits(m: np.ndarray, missing: int) -> None:
    """`load_in_waves` where the event fits its pool: there is always room, so that copies follow one another."""
    needed, base, ranks, lands = m[at.NEEDED], m[at.LAYER] * m[at.EXPERTS], m[at.MISSING], m[at.LANDS]
    which, copying, end = m[at.WHICH] + m[at.LINE] * m[at.EXPERTS], 0, 0
    for chunk in range(m[at.CHUNKS], m[at.CHUNKS] + m[at.CHUNK_COUNT]):
        copying += m[chunk]
    for number in range(missing):
        m[at.HOST] += m[at.SUBMIT]
        make_room(m, base + m[which + m[ranks + number]])
        end = max(end, m[at.HOST]) + copying
        m[lands + number] = end
    m[at.LINK_BUSY] += missing * copying
    ran = landed = 0
    while ran < needed:
        free = max(m[at.STREAM], m[at.HOST])
        while landed < missing and m[lands + landed] <= free:
            m[m[at.READIES] + m[at.READY]] = m[ranks + landed]
            m[at.READY] += 1
            landed += 1
        if m[at.READY] == needed or (m[at.READY] > ran and not m[at.BARRIER]):
            m[at.HOST] = max(m[at.HOST], m[at.STREAM])
            launch(m, at.EXPERT, group_cost(m, m[at.READIES], ran, m[at.READY]))
            ran = m[at.READY]
        else:
            now = m[lands + landed]
            m[at.IDLE_HOST] += free - m[at.STREAM]
            m[at.MISS_STALL] += now - free
            m[at.STREAM] = now
            m[at.HOST] = max(m[at.HOST], now)


@njit
def load_in_waves(m: np.ndarray, missing: int) -> None:
    """`Engine._load_and_run`; `missing` of the event's keys are not there."""
    needed = m[at.NEEDED]
    m[at.WAVES] += 1
    m[at.RAN] = m[at.RELEASED] = m[at.DEMANDED] = m[at.SUBMITTED] = m[at.LANDED] = m[at.BLOCKED_UNTIL] = 0
    m[at.RUNNING_UNTIL] = NEVER
    for end in range(m[at.ENDS], m[at.ENDS] + m[at.IN_FLIGHT]):
        m[end] = 0
    for number in range(missing):
        m[at.HOST] += m[at.SUBMIT]
        advance(m, m[at.HOST])
        m[m[at.WHEN] + number] = m[at.HOST]
        m[at.DEMANDED] = number + 1
        submit(m, m[at.HOST])
    while m[at.RAN] < needed:
        now = max(m[at.STREAM], m[at.HOST])
        advance(m, now)
        submit(m, now)
        if m[at.READY] > m[at.RAN] and (m[at.READY] == needed or not m[at.BARRIER]):
            run_group(m)
        else:
            stall(m)


@njit
def run_layer(m: np.ndarray, layer: int, attention: int, rest: int, gate: int) -> None:
    launch(m, at.ATTENTION, attention)
    m[at.REST] += rest
    m[at.STREAM] += rest
    if m[at.LAYERWISE]:
        launch(m, at.GATE, gate)
        synchronise(m)
    now = max(m[at.STREAM], m[at.HOST])
    m[at.LAYER] = layer
    m[at.LINE] = layer if m[at.ROWS] > 1 else 0
    m[at.POOL] = layer if m[at.POOLS] > 1 else 0
    m[at.NEEDED] = m[m[at.FOUND] + m[at.LINE]]
    m[at.UNIQUE] += m[at.NEEDED]
    if m[at.NEEDED]:
        missing = use(m)
        mark(m, layer)
        if missing:
            m[at.HOST] = max(m[at.HOST], now)
            if m[at.NEEDED] <= m[m[at.SLOTS] + m[at.POOL]]:
                load_what_fits(m, missing)
            else:
                load_in_waves(m, missing)
            mark(m, layer)
        else:
            launch(m, at.EXPERT, group_cost(m, -1, 0, m[at.NEEDED]))
