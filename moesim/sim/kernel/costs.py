"""What kernels take, from the cost table."""

from __future__ import annotations

import numpy as np
from numba import njit

from moesim.sim.kernel import layout as at
from moesim.sim.kernel.layout import C_DECODE, C_EXPERTS, C_PREFILL, FINE, NO_COST, REMEMBERED


@njit
def cost_of(m: np.ndarray, component: int, a: int, b: int, c: int) -> int:
    """`CostTable._cost` and `Grid.at`, operation by operation; what the table does not have is noted."""
    if a == 0:
        return 0
    grid = m[at.GRIDS] + 15 * component
    base, fractions = m[at.TIMES] + m[grid + 1], 0
    share_0 = share_1 = share_2 = 0.0
    stride_0 = stride_1 = stride_2 = 0
    for axis in range(m[grid]):
        of = grid + 3 + 4 * axis
        value = a if m[of] == 0 else b if m[of] == 1 else c
        first, length, stride = m[at.POINTS] + m[of + 1], m[of + 2], m[of + 3]
        if not m[first] <= value <= m[first + length - 1] and not m[grid + 2]:
            if m[at.FAILED] == FINE:
                m[at.FAILED], m[at.COMPONENT] = NO_COST, component
                m[at.ARGUMENT], m[at.ARGUMENT + 1], m[at.ARGUMENT + 2] = a, b, c
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
        spot, weight = base, 1.0
        for axis in range(fractions):
            share = share_0 if axis == 0 else share_1 if axis == 1 else share_2
            if corner >> (fractions - 1 - axis) & 1:
                spot += stride_0 if axis == 0 else stride_1 if axis == 1 else stride_2
                weight *= share
            else:
                weight *= 1.0 - share
        total += weight * m[spot]
    return max(0, int(np.rint(total)))


@njit
def attention_cost(m: np.ndarray) -> int:
    """One layer's attention of all parts of the step."""
    total = decoding = context = 0
    for part in range(m[at.REQUESTS]):
        of = m[at.ASKED] + 4 * part
        if m[of + 3]:
            total += cost_of(m, C_PREFILL, m[of + 2], m[of + 1], 0)
        else:
            decoding += 1
            context += m[of + 1] + 1
    return total + cost_of(m, C_DECODE, decoding, context, 0)


@njit
def group_cost(m: np.ndarray, ranks: int, first: int, last: int) -> int:
    """The present event's keys number `first` to `last - 1` together; `ranks` is where their ranks are, -1: by rank."""
    row, total, largest = m[at.LINE] * m[at.EXPERTS], 0, 0
    for number in range(first, last):
        rank = row + (number if ranks < 0 else m[ranks + number])
        tokens = m[m[at.PREFILL] + rank] + m[m[at.DECODE] + rank]
        total += tokens
        largest = max(largest, tokens)
    if total >> 20:
        return cost_of(m, C_EXPERTS, total, last - first, largest)
    asked = (total << 40) + ((last - first) << 20) + largest
    known = m[at.KNOWN] + 2 * ((asked * 0x9E3779B97F4A7C1 >> 40) & (REMEMBERED - 1))
    if m[known] != asked:
        m[known], m[known + 1] = asked, cost_of(m, C_EXPERTS, total, last - first, largest)
    return m[known + 1]
