"""What one run produced."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class RunResult:
    """Counters (ints, over the measured window), per-step and per-request columns, and labels (docs/results.md)."""

    counters: dict[str, int]
    steps: dict[str, np.ndarray]
    requests: dict[str, np.ndarray]
    labels: dict[str, str]
