"""The router's own place: in which order errands are done."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.live.engine.shared import Shared  # noqa: E402
from moesim.live.engine.side import Errand, SideRouter  # noqa: E402

HOUR = 3_600 * 10**9


def test_an_errand_does_not_wait_behind_those_that_are_for_later() -> None:
    shared = Shared()
    side = SideRouter(shared, None, torch.device("cpu"))
    later, due, next_due = (Errand([], [], [], when) for when in (HOUR, 0, 0))
    try:
        side.send(later)
        side.send(due)
        side.send(next_due)
        with shared.lock:
            assert shared.wait(lambda: next_due.done >= 0, at_most=60)
    finally:
        side.close()
    assert 0 <= due.done <= next_due.done < HOUR and later.done == -1
