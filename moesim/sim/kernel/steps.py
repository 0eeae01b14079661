"""What is called from outside: taking in a step, and running it."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, types

from moesim.sim.kernel import layout as at
from moesim.sim.kernel.costs import attention_cost, cost_of
from moesim.sim.kernel.event import launch, run_layer, synchronise
from moesim.sim.kernel.layout import BY_NEXT_USE, C_GATE, C_REST, C_ROUTER, C_STEP, FINE, NO_BALANCE, NO_SUM
from moesim.sim.kernel.victims import mark
from moesim.sim.kernel.work import gather


@njit
def check(m: np.ndarray) -> int:
    """Conservation: the step's parts, loads and evictions, and under CHECK every pool."""
    if m[at.PARTS:at.COUNTS].sum() != m[at.END] - m[at.START]:
        return NO_SUM
    if m[at.LOADS] - m[at.EVICTIONS] != m[m[at.USED] : m[at.USED] + m[at.POOLS]].sum():
        return NO_BALANCE
    if m[at.CHECK]:
        each = m[at.LAYERS] * m[at.EXPERTS] // m[at.POOLS]
        for pool in range(m[at.POOLS]):
            held = m[m[at.HERE] + pool * each : m[at.HERE] + (pool + 1) * each].sum()
            if held != m[m[at.USED] + pool] or held > m[m[at.SLOTS] + pool]:
                return NO_BALANCE
    return FINE


ASKS = types.int64(types.int64[::1], types.Array(types.int16, 3, "C", readonly=True), types.int64)
RUNS = types.int64(types.int64[::1], *[types.int64] * 4)


def _entries(digest: int) -> tuple[Callable[..., int], Callable[..., int]]:
    """What is called from outside, closed over a digest of all these files.

    Numba files what it compiled under what a function closes over; of the files it looks at this one only.
    """

    def ask(m: np.ndarray, chosen: np.ndarray, parts: int) -> int:
        """Take in a step of the parts in ASKED; `chosen` are the experts of the trace, int16 [tokens, rows, k].

        Returns whether any key that it needs is not here.
        """
        m[at.REQUESTS] = parts
        gather(m, chosen)
        for layer in range(m[at.LAYERS]):
            row = layer * m[at.EXPERTS] if m[at.ROWS] > 1 else 0
            here = m[at.HERE] + layer * m[at.EXPERTS]
            for rank in range(m[m[at.FOUND] + (layer if m[at.ROWS] > 1 else 0)]):
                if not m[here + m[m[at.WHICH] + row + rank]]:
                    return 1
        return 0 if digest else 1

    def run(m: np.ndarray, step: int, start: int, sampled: int, routed: int) -> int:
        """Run what was asked: `sampled` parts yield a token, `routed` go on after it.

        Returns FINE or what is wrong; the row of the log is at BOOK.
        """
        m[at.STEP], m[at.START] = step, start
        m[at.PARTS:at.COUNTS] = 0
        m[at.STREAM] = start
        m[at.HOST] = max(m[at.HOST], start) + m[at.DECISION]
        if m[at.BY] == BY_NEXT_USE:
            for layer in range(m[at.LAYERS]):
                mark(m, layer)
        tokens = m[at.PREFILL_TOKENS] + m[at.DECODE_TOKENS]
        attention, rest = attention_cost(m), cost_of(m, C_REST, tokens, 0, 0)
        gate = cost_of(m, C_GATE, tokens, 0, 0) if m[at.LAYERWISE] else 0
        router = cost_of(m, C_ROUTER, routed, 0, 0) if m[at.ROUTED] else 0
        for layer in range(m[at.LAYERS]):
            run_layer(m, layer, attention, rest, gate)
        launch(m, at.REST, cost_of(m, C_STEP, sampled, 0, 0))
        synchronise(m)
        m[at.SAMPLED_AT] = m[at.STREAM]
        if router:
            launch(m, at.ROUTER, router)
            synchronise(m)
        m[at.END] = m[at.STREAM]
        return m[at.FAILED] if m[at.FAILED] != FINE or not digest else check(m)

    return _compiled(ASKS, ask), _compiled(RUNS, run)


def _compiled(signature: Any, function: Callable[..., int]) -> Callable[..., int]:
    try:
        return njit(signature, cache=True)(function)
    except Exception:  # nowhere to keep what was compiled, or what was kept is damaged
        return njit(signature)(function)


FILES = sorted(Path(__file__).parent.glob("*.py"))
ask, run = _entries(zlib.crc32(b"".join(path.read_bytes() for path in FILES)))
