"""Medians, percentiles and the number of calls, with a clock of our own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.hardware.interpolation import percentile  # noqa: E402
from moesim.live.timing import Effort, Spread, Timer  # noqa: E402

CPU = torch.device("cpu")


class Clock:
    """Stands still but for what calls take."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def take(self, times: Iterator[int]):
        def call(number: int) -> None:
            self.now += next(times)

        return call


def test_percentiles_are_between_the_closest_ranks() -> None:
    assert [percentile([10, 20, 30], share) for share in (0, 0.1, 0.5, 0.9, 1)] == [10, 12, 20, 28, 30]
    assert percentile([7], 0.9) == 7
    assert Spread.of([30, 10, 20]) == Spread(20, 12, 28, 3)


def test_the_warm_up_is_not_counted() -> None:
    clock = Clock()
    times = iter([10**9, 10**9, 5, 7, 6])
    timer = Timer(CPU, Effort(repeats=3, least=3, seconds=9, warmup=2), clock)
    assert timer(clock.take(times)) == Spread(6, 5, 7, 3)


def test_calls_are_told_their_number_through_the_warm_up() -> None:
    clock, told = Clock(), []
    Timer(CPU, Effort(repeats=3, least=1, seconds=9, warmup=2), clock)(told.append)
    assert told == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("each", "calls"), [(10**8, 5), (3 * 10**7, 14), (10**6, 40)])
def test_long_calls_are_repeated_less(each: int, calls: int) -> None:
    clock = Clock()
    timer = Timer(CPU, Effort(repeats=40, least=5, seconds=0.4, warmup=0), clock)
    assert timer(clock.take(iter([each] * 50))).repeats == calls
