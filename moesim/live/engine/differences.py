"""A live run held against the simulated one on the same schedule: what is counted, and why it may differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from moesim.experiment import Experiment
from moesim.sim import RunResult
from moesim.sim.engine import CLASSES

COUNTED = (
    *(f"{name}_keys" for name in CLASSES),
    *("unique_keys", "evictions", "waves", "demand_bytes", "prefetch_bytes", "wasted_bytes"),
)
"""columns of the table of steps that are no times"""


def reorderings(config: Experiment, executed: RunResult) -> list[str]:
    """Why timing may reorder decisions in a run; if nothing may, its counts are the simulator's, step by step.

    Under demand loading, in events that fit their pool, the order of uses is that of the schedule (docs/model.md).
    """
    reasons = []
    if config.schedule != "frozen":
        reasons.append("schedule free: other times form other batches")
    if config.prefetch.name != "none":
        reasons.append(f"prefetch {config.prefetch.name}: what has come when its experts could start depends on time")
    waves, start = int(executed.steps["waves"].sum()), config.machine.expert_start
    if waves and (start != "barrier" or config.memory.staging):
        how = f"expert_start {start}" if start != "barrier" else "staging slots"
        reasons.append(f"{waves} layer events in waves, with {how}: who finds room depends on what has run by then")
    return reasons


@dataclass(frozen=True, slots=True)
class Comparison:
    """`differing`: column -> (simulated, executed, steps that differ); None: there was nothing to compare with."""

    reasons: list[str]
    differing: dict[str, tuple[int, int, int]] | None

    @property
    def broken(self) -> bool:
        """The counts differ, and timing is no reason."""
        return bool(self.differing) and not self.reasons

    def document(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "equal": None if self.differing is None else not self.differing,
            "broken": self.broken,
            "reasons": self.reasons,
            "differing": {
                name: dict(zip(("simulated", "executed", "steps"), numbers, strict=True))
                for name, numbers in (self.differing or {}).items()
            },
        }


def compare(config: Experiment, simulated: RunResult | None, executed: RunResult) -> Comparison:
    """`simulated`: the same run on the same frozen schedule; None in a free one."""
    reasons = reorderings(config, executed)
    if simulated is None:
        return Comparison(reasons, None)
    differing = {}
    for name in COUNTED:
        one, other = np.asarray(simulated.steps[name]), np.asarray(executed.steps[name])
        if one.shape != other.shape or (one != other).any():
            steps = int((one != other).sum()) if one.shape == other.shape else abs(len(one) - len(other))
            differing[name] = int(one.sum()), int(other.sum()), steps
    return Comparison(reasons, differing)


def told(found: list[dict[str, Any]]) -> str:
    """Lines for a person: in how many runs the counts are equal, and what differs in the others."""
    compared = [one for one in found if one["equal"] is not None]
    equal = sum(one["equal"] for one in compared)
    lines = []
    if compared:
        lines.append(f"Counts: those of the simulator, step by step, in {equal} of {len(compared)} runs (frozen)")
    if len(compared) < len(found):
        lines.append("Counts: not compared in a free schedule, where other times form other batches")
    for one in compared:
        if not one["equal"]:
            pairs = {name: (d["simulated"], d["executed"]) for name, d in one["differing"].items()}
            counts = ", ".join(f"{name} {a:,} -> {b:,}" for name, (a, b) in pairs.items())
            why = "; ".join(one["reasons"]) or "NO REASON IN TIMING: this is a mistake of the program"
            lines.append(f"  run {one['run']}: {counts} ({why})")
    return "\n".join(lines)
