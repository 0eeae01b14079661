"""The compute stream of a GPU, with events that a test makes."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

import numpy as np  # noqa: E402

from moesim.live.engine import shared, streams  # noqa: E402
from moesim.sim.engine import EXPERTS  # noqa: E402

SECOND = 10**9


class Event:
    """As torch.cuda.Event, whose times apart are floats of 32 bits, in ms."""

    now = 0

    def __init__(self, **_: bool) -> None:
        self.at = -1

    def record(self, stream: object) -> None:
        self.at = Event.now

    def synchronize(self) -> None:
        assert self.at >= 0

    def elapsed_time(self, other: Event) -> float:
        return float(np.float32((other.at - self.at) / 1e6))


def test_times_stay_exact_in_a_long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, fake in (("Event", Event), ("Stream", lambda device: object()), ("stream", lambda _: nullcontext())):
        monkeypatch.setattr(torch.cuda, name, fake)
    for module in (shared, streams):
        monkeypatch.setattr(module, "clock", lambda: Event.now)
    compute = streams.CudaStream(shared.Shared(), torch.device("cuda", 0))

    def kernel() -> Any:
        Event.now += 3_000

    try:
        for _ in range(100):
            Event.now += SECOND
            begun = Event.now
            compute.launch([(EXPERTS, kernel), (EXPERTS, kernel)])
            (_, first, middle), (_, again, end) = compute.ran()
            assert first == pytest.approx(begun, rel=1e-7) and again == middle
            assert (middle - first, end - again) == pytest.approx((3_000, 3_000), abs=150)
    finally:
        compute.close()
