"""Steps in compiled code, where that is the same: what fits, and the machine that runs it (moesim.sim.kernel)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import accumulate
from pathlib import Path

import numpy as np

from moesim.experiment import Experiment
from moesim.hardware.costs import CostTable
from moesim.hardware.files import ARGUMENTS
from moesim.policy.rule import Rule, rule_of
from moesim.sim.engine import PARTS
from moesim.sim.kernel import layout
from moesim.sim.log import COUNTED
from moesim.sim.setup import Inputs, Setup
from moesim.sim.work import Part, rows_of

LOADING, COMPILING = 120_000, 2_500_000
"""layer events that run on the engine in the time that it takes to load the compiled code, and to make it"""
KEPT = Path(layout.__file__).parent / "__pycache__"
_foregone = 0
"""layer events of this process that could have been compiled"""


def compiled_steps(
    config: Experiment, inputs: Inputs, setup: Setup, check: bool, wanted: bool | None
) -> Compiled | None:
    """The machine for compiled steps; None if they do not fit, are not wanted or, left open, do not pay yet."""
    if wanted is False or not fits(config, inputs, setup):
        return None
    if wanted is None and not _pays(config.steps * inputs.shape.layers):
        return None
    return Compiled(config, inputs, setup, check) if _loaded() else None


def _pays(events: int) -> bool:
    """Whether this process will have had as many layer events as the compiled code costs: at most twice the best."""
    global _foregone
    _foregone += events
    if "moesim.sim.kernel.steps" in sys.modules:
        return True
    return _foregone >= (LOADING if any(KEPT.glob("*.nbi")) else COMPILING)


def _loaded() -> bool:
    try:
        from moesim.sim.kernel import steps  # noqa: F401
    except ImportError:  # numba is there, but not for this Python or this numpy
        return False
    return True


def fits(config: Experiment, inputs: Inputs, setup: Setup) -> bool:
    """Whether compiled steps do what this setup would: only demands move keys, of one size, by a rule."""
    engine, cache = setup.engine, setup.cache
    return (
        engine.prefetcher is None
        and engine.misses is None
        and engine.expert_start != "index"
        and engine.keys.plain
        and engine.keys.equal
        and not cache.staging
        and isinstance(inputs.costs, CostTable)
        and (bool(cache.there_at_first) or all(rule_of(policy) is not None for policy in cache.policies))
        and find_spec("numba") is not None
    )


class Compiled:
    """Runs steps on an array that holds what `Engine`, its cache and its link hold."""

    def __init__(self, config: Experiment, inputs: Inputs, setup: Setup, check: bool) -> None:
        from moesim.sim.kernel import steps

        self.steps = steps
        self.costs = inputs.costs
        rule = rule_of(setup.cache.policies[0]) or Rule()
        if rule.horizon == 0:
            rule = Rule()  # no next use is ever near enough to tell
        self.experts = inputs.trace.experts
        self.chosen = _frozen(self.experts) if isinstance(self.experts, np.ndarray) else None
        constants, areas = _state(config, inputs, setup, rule, check)
        self.m, at = _laid_out(constants, areas)
        self.asked = self.m[at["asked"] : at["expert"]]
        self.later = self.m[at["later"] : at["slots"]]
        self.foresees = rule.by == "next_use"
        """whether `run` needs to be told what comes later"""
        self.here = self.m[at["here"] : at["stamp"]].data
        """whether each key is on the GPU or on its way"""
        self.book = self.m[layout.BOOK : layout.BOOK_END]
        """the step's row of the log"""

    @property
    def sampled_at(self) -> int:
        """When the step's tokens were there."""
        return int(self.m[layout.SAMPLED_AT])

    def ask(self, parts: Sequence[Part], rows: Sequence[int]) -> bool:
        """Take in a step; whether a key that it needs is not here. `rows[r]` is where request r starts in the trace."""
        flat: list[int] = []
        chosen = self.chosen
        if chosen is None:
            # Read through an index: what the step needs of it is put together, and its rows are counted from 0.
            ends = list(accumulate(tokens for _, _, tokens, _ in parts))
            at = [(rows[request] + first, tokens) for request, first, tokens, _ in parts]
            chosen = _frozen(rows_of(self.experts, at))
            for (_, first, tokens, prefill), end in zip(parts, ends, strict=True):
                flat += (end - tokens, first, tokens, prefill)
        else:
            for request, first, tokens, prefill in parts:
                flat += (rows[request] + first, first, tokens, prefill)
        self.asked[: len(flat)] = flat
        return bool(self.steps.ask(self.m, chosen, len(parts)))

    def run(self, step: int, start: int, sampled: int, continuing: int, later: np.ndarray | None) -> int:
        """Run the step that was asked from `start` and return its end; `later` as `Foresight.begin` has it."""
        if later is not None:
            self.later[:] = later.reshape(-1)
        failed = self.steps.run(self.m, step, start, sampled, continuing)
        if failed:
            self._fail(failed)
        return int(self.m[layout.END])

    def _fail(self, failed: int) -> None:
        m = self.m
        if failed == layout.NO_COST:
            self.costs.at(list(ARGUMENTS)[m[layout.COMPONENT]], *map(int, m[layout.ARGUMENT : layout.ARGUMENT + 3]))
        texts = {layout.STUCK: "nothing is ready and nothing is on its way", layout.NO_SUM: "parts are not the step"}
        text = texts.get(failed, "loads, evictions and the keys there do not balance")
        raise AssertionError(f"step {m[layout.STEP]}: {text}: {self.book.tolist()}")


def _frozen(experts: np.ndarray) -> np.ndarray:
    """In one piece and not to be written to, as if read from a file: one type is one thing to compile."""
    found = np.ascontiguousarray(experts, dtype=np.int16)[:]
    found.flags.writeable = False
    return found


def _state(
    config: Experiment, inputs: Inputs, setup: Setup, rule: Rule, check: bool
) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """The constants and the areas of the kernel's array."""
    shape, cache, costs, rows = inputs.shape, setup.cache, inputs.costs, inputs.trace.experts.shape[1]
    chunks, layers, experts = setup.link.chunks(cache.sizes[0]), shape.layers, shape.experts
    leaves = 1 << (layers - 1).bit_length()
    decoupled = inputs.trace.meta.router == "decoupled"
    by = {"": layout.BY_STAMP, "uses": layout.BY_USES, "next_use": layout.BY_NEXT_USE}
    constants = {
        "launch": costs.launch,
        "sync": costs.sync,
        "submit": costs.copy_submit,
        "decision": costs.forming,
        "layers": layers,
        "experts": experts,
        "rows": rows,
        "pools": len(cache.capacity),
        "layerwise": not decoupled,
        "routed": decoupled and config.machine.router == "critical",
        "barrier": config.machine.expert_start == "barrier",
        "key_bytes": cache.sizes[0],
        "by": by[rule.by],
        "at_insertion": rule.stamp == "insertion",
        "horizon": -1 if rule.horizon is None else rule.horizon,
        "check": check,
        "chunk_count": len(chunks),
        "in_flight": config.machine.copies_in_flight,
        "leaves": leaves,
    }
    here = np.frombuffer(cache.state, dtype=np.uint8) > 0
    sizes = dict.fromkeys(("expert", "prefill", "decode", "place", "later"), rows * experts)
    sizes |= dict.fromkeys(("stamp", "uses", "rank_of", "heap"), layers * experts)
    sizes |= {"length": layers, "marked": layers, "stale": layers, "known": 2 * layout.REMEMBERED}
    sizes |= dict.fromkeys(("ready", "missing", "when", "lands"), experts)
    sizes |= {"asked": 4 * config.scheduler.max_requests, "found": rows, "ends": constants["in_flight"]}
    areas = {name: np.zeros(size, dtype=np.int64) for name, size in sizes.items()}
    areas |= zip(("grids", "points", "times"), costs.flat(), strict=True)
    areas["top_rank"] = areas["top_stamp"] = np.full(leaves, layout.NEVER)
    tree = [0] * leaves + list(range(leaves))
    for node in range(leaves - 1, 0, -1):
        tree[node] = tree[2 * node]
    areas["tree"] = np.array(tree)
    areas["here"], areas["chunks"] = here.astype(np.int64), np.array(chunks)
    areas["slots"] = np.array([capacity // cache.sizes[0] for capacity in cache.capacity])
    areas["used"] = here.reshape(len(cache.capacity), -1).sum(axis=1)
    return constants, areas


def _laid_out(constants: dict[str, int], areas: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, int]]:
    """The kernel's array, and where its areas start in it."""
    assert (len(PARTS), len(COUNTED)) == (layout.COUNTS - layout.PARTS, layout.BOOK_END - layout.COUNTS)
    lengths = [areas[name].size for name in layout.AREAS]
    starts = [layout.START_OF_AREAS + sum(lengths[:before]) for before in range(len(lengths))]
    m = np.zeros(starts[-1] + lengths[-1], dtype=np.int64)
    m[: len(layout.CONSTANTS)] = [constants[name] for name in layout.CONSTANTS]
    m[layout.BOOK_END : layout.START_OF_AREAS] = starts
    for name, start, length in zip(layout.AREAS, starts, lengths, strict=True):
        m[start : start + length] = areas[name].reshape(-1)
    m[layout.LOADS] = areas["used"].sum()
    return m, dict(zip(layout.AREAS, starts, strict=True))
