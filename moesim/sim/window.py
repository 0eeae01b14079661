"""Which steps belong to a window of requests: known only when the run is over (docs/statistics.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from moesim import experiment

NONE = -1


@dataclass(frozen=True, slots=True)
class Window:
    """The first request that is measured, and the steps: the first, and one past the last."""

    request: int
    first: int
    end: int
    complete: bool = True
    """whether all of its requests have left"""

    @property
    def steps(self) -> tuple[int, int]:
        return self.first, self.end

    def measures(self, numbers: np.ndarray, requests: int) -> np.ndarray:
        """Whether each request, by its number, is one of the `requests` that are measured."""
        return (numbers >= self.request) & (numbers < self.request + requests)

    def columns(self, asked: experiment.Window | None) -> dict[str, int]:
        """What the counters say of it; NONE where no window of requests was asked for."""
        names = ("window_first", "window_requests", "window_step", "window_end")
        values = (NONE,) * 4 if asked is None else (self.request, asked.requests, self.first, self.end)
        return dict(zip(names, values, strict=True)) | {"cut_off": int(not self.complete)}


def left_within(finished_ns: np.ndarray, steps: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether each request left during the measured steps, whoever it is; bool [requests].

    `steps` is the table of steps. Who leaves does so at the end of a step at the latest, so that a request that left
    when the first measured step started is of the step before.
    """
    measured = steps["measured"]
    if not measured.any():
        return np.zeros(len(finished_ns), dtype=bool)
    start, end = steps["start_ns"][measured][0], steps["end_ns"][measured][-1]
    return (finished_ns > start) & (finished_ns <= end)


def windows_of(
    asked: experiment.Window | None, requests: Mapping[str, np.ndarray], steps: np.ndarray
) -> list[Window]:
    """A window for each warm-up that may be chosen; `steps` are rows of StepLog.

    Its steps go from the first that starts at or after the arrival of its first request to the one that ends when the
    last of its requests has left; to the end of the run, where that was cut off.
    """
    return [] if asked is None else [_window(asked.requests, first, requests, steps) for first in asked.candidates]


def _window(count: int, first: int, requests: Mapping[str, np.ndarray], steps: np.ndarray) -> Window:
    numbers, starts, ends = requests["request"], steps[:, 1], steps[:, 2]
    order = np.argsort(numbers, kind="stable")
    place = order[np.searchsorted(numbers[order], first) :][:count]
    finished = requests["finished_ns"][place]
    complete = len(place) == count and bool((finished >= 0).all())
    begin = int(np.searchsorted(starts, requests["arrival_ns"][place[0]])) if len(place) else len(steps)
    end = int(np.searchsorted(ends, finished.max())) + 1 if complete else len(steps)
    return Window(first, begin, end, complete)
