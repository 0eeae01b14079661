"""How long a call takes: repeated after a warm-up, as median, 10th and 90th percentile."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from moesim.hardware.interpolation import percentile

Call = Callable[[int], object]
"""what is timed; it is told which repetition it is, so that it can take other weights each time"""
Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Spread:
    """Times of equal calls in ns: `ns` is the median, `p10` and `p90` are percentiles, of `repeats` calls."""

    ns: int
    p10: int
    p90: int
    repeats: int

    @classmethod
    def of(cls, times: Sequence[int]) -> Spread:
        """Percentiles by linear interpolation between the closest ranks."""
        ranked = sorted(times)
        median, low, high = (round(percentile(ranked, share)) for share in (0.5, 0.1, 0.9))
        return cls(median, low, high, len(ranked))


@dataclass(frozen=True, slots=True)
class Effort:
    """How often a call is repeated: `repeats` times, fewer (at least `least`) once it has taken `seconds` in all."""

    repeats: int = 40
    least: int = 5
    seconds: float = 0.4
    warmup: int = 3


class Timer:
    """Times calls on a device.

    On a CPU by the wall clock. On a GPU by events around each call: what the stream was busy with it, or the time in
    which the host issued it where that is longer; an eager engine issues its kernels at no other speed.
    """

    def __init__(self, device: torch.device, effort: Effort, clock: Clock = time.perf_counter_ns) -> None:
        self.device, self.effort, self.clock = device, effort, clock

    def __call__(self, call: Call) -> Spread:
        """Time `call`, which is told 0, 1, 2, ... (the warm-up counts as well)."""
        for number in range(self.effort.warmup):
            call(number)
        self._wait()
        return Spread.of(self._events(call) if self.device.type == "cuda" else self._walls(call))

    def host(self, call: Call) -> Spread:
        """The time in which the host is through with `call`, whether the device is or not."""
        for number in range(self.effort.warmup):
            call(number)
        times = []
        for number in range(self.effort.repeats):
            self._wait()
            begun = self.clock()
            call(number)
            times.append(self.clock() - begun)
        return Spread.of(times)

    def _walls(self, call: Call) -> list[int]:
        times: list[int] = []
        effort, clock = self.effort, self.clock
        limit = clock() + round(effort.seconds * 1e9)
        while len(times) < effort.repeats and (len(times) < effort.least or clock() < limit):
            begun = clock()
            call(effort.warmup + len(times))
            times.append(clock() - begun)
        return times

    def _events(self, call: Call) -> list[int]:
        times: list[int] = []
        effort = self.effort
        limit = self.clock() + round(effort.seconds * 1e9)
        while len(times) < effort.repeats and (len(times) < effort.least or self.clock() < limit):
            pairs = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(effort.least)]
            for number, (begin, end) in enumerate(pairs):
                begin.record()
                call(effort.warmup + len(times) + number)
                end.record()
            self._wait()
            times += [round(begin.elapsed_time(end) * 1e6) for begin, end in pairs]
        return times

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
