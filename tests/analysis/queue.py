"""A single server as a toy: exact times of a first-come-first-served queue, many requests at once."""

from __future__ import annotations

import numpy as np

from moesim.analysis.overload import Pressure, pressure

GAP = 1_000_000
"""mean ns between arrivals"""


def served(arrival: np.ndarray, service: np.ndarray) -> np.ndarray:
    """When each request leaves: max(arrival, the one before has left) + service (Lindley)."""
    total = np.cumsum(service, axis=-1)
    return total + np.maximum.accumulate(arrival - (total - service), axis=-1)


def poisson(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return np.cumsum(rng.exponential(GAP, shape), axis=-1).astype(np.int64)


def seen(arrival: np.ndarray, service: np.ndarray, gap: float | None = GAP) -> Pressure:
    """What overload is judged by, as for a run: from a third of the requests to the last."""
    gone = served(arrival, service)
    return pressure((arrival, gone - service, gone), 1, int(arrival[len(arrival) // 3]), int(arrival[-1]), gap)


def run(load: float, requests: int, seed: int, service: str = "exponential") -> Pressure:
    """One run at a load, with exponential or equal service times."""
    rng = np.random.default_rng([seed, round(load * 1000)])
    arrival = poisson(rng, requests)
    times = rng.exponential(1, requests) if service == "exponential" else np.ones(requests)
    return seen(arrival, (load * GAP * times).astype(np.int64))
