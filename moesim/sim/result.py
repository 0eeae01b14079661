"""What one run produced."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, slots=True)
class RunResult:
    """Counters (ints, over the measured window), per-step and per-request columns, and labels (docs/results.md).

    `tokens` has a row per output token (`TokenLog.table`), `transfers`, where they are kept, a row per copy on the link
    (`TransferLog.table`), `found` is what a search found (`moesim.search`).
    `windows`, where requests are measured by their number: a row per warm-up that may be chosen, its first request and
    steps (`moesim.sim.window`) and all counters; those of the longest are the counters here until one is chosen.
    """

    counters: dict[str, int]
    steps: dict[str, np.ndarray]
    requests: dict[str, np.ndarray]
    labels: dict[str, str]
    windows: dict[str, np.ndarray] = field(default_factory=dict)
    tokens: dict[str, np.ndarray] = field(default_factory=dict)
    transfers: dict[str, np.ndarray] = field(default_factory=dict)
    found: dict[str, float | str] = field(default_factory=dict)
