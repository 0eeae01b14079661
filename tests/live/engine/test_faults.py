"""Mistakes that are planted are noticed: by the check of slots and layers, or by the books."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.live.copies import Copier, Copy, Slots, Throttle  # noqa: E402
from moesim.live.engine import link as link_module  # noqa: E402
from moesim.live.engine.cache import LiveCache  # noqa: E402
from moesim.live.engine.machine import Options  # noqa: E402
from moesim.live.engine.model import LiveModel  # noqa: E402
from tests.live.engine.small import both, inputs_of  # noqa: E402

SEQUENCES = [([0, 1, 2], [1, 2, 3, 0, 1]), ([3, 1], [2, 0, 1, 1, 2])]
SLOW = Options(throttle=Throttle(10**9, fixed_ns=2_000_000))


def execute(**changes: Any) -> None:
    plain: dict[str, Any] = {"schedule": "frozen", "traffic": {"kind": "all", "requests": 2}}
    both(inputs_of(SEQUENCES, layers=3), **(plain | changes))


def causes(error: BaseException) -> str:
    """The messages of an error and of what led to it."""
    return f"{error}; {causes(error.__cause__)}" if error.__cause__ else str(error)


def test_nothing_is_wrong_without_a_mistake() -> None:
    execute(options=SLOW)


def test_a_copy_that_is_not_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Copier._perform

    def perform(self: Copier, copy: Copy) -> None:
        done, copy.done = copy.done, None
        assert done is not None
        done(copy)
        right(self, copy)

    monkeypatch.setattr(Copier, "_perform", perform)
    # The copier says that it is over before it has begun: the kernel comes first, the copy being held back.
    monkeypatch.setattr(torch.Tensor, "copy_", _late(torch.Tensor.copy_))
    with pytest.raises(RuntimeError) as found:
        execute()
    assert "from which its kernel reads" in causes(found.value)


def _late(right: Any) -> Any:
    import threading
    import time

    def copy(self: Any, *args: Any, **kwargs: Any) -> Any:
        if threading.current_thread().name == "copies":
            time.sleep(0.02)
        return right(self, *args, **kwargs)

    return copy


def test_a_chunk_that_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    right = link_module.piece

    def piece(source: Any, target: Any, chunk_bytes: int, number: int) -> Any:
        found = right(source, target, chunk_bytes, number)
        return (found[0][:0], found[1][:0]) if number else found

    monkeypatch.setattr(link_module, "piece", piece)
    with pytest.raises(RuntimeError) as found:
        execute()
    assert "from which its kernel reads" in causes(found.value)


def test_a_kernel_that_reads_another_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    right = LiveModel.experts

    def experts(self: LiveModel, layer: int, group: Any, slot_of: Any) -> Any:
        first = slot_of(group[0])
        return right(self, layer, group, lambda key: first if len(group) > 1 else slot_of(key))

    monkeypatch.setattr(LiveModel, "experts", experts)
    with pytest.raises(RuntimeError) as found:
        execute(scheduler={"max_requests": 2, "max_tokens": 8})
    assert "from what the full weights give" in causes(found.value)


def test_a_slot_that_is_written_while_its_kernel_may_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    right = LiveCache.make_room

    def make_room(self: LiveCache, key: int, demanded: bool) -> bool:
        there = dict(self.held)
        found = right(self, key, demanded)
        if found and there:  # shares the slot of a key that stays
            other = next((k for k in there if k in self.held), None)
            if other is not None:
                self.held[key] = self.held[key][0], self.held[other][1]
        return found

    monkeypatch.setattr(LiveCache, "make_room", make_room)
    with pytest.raises((RuntimeError, AssertionError)):
        execute()


def test_bytes_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    right = link_module.LiveLink._send_chunk

    def send(self: link_module.LiveLink, *args: Any) -> None:
        right(self, *args)
        self.bytes_sent += 1

    monkeypatch.setattr(link_module.LiveLink, "_send_chunk", send)
    with pytest.raises(AssertionError, match="bytes were sent"):
        execute()


def test_more_chunks_in_flight_than_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = link_module.LiveLink.__init__

    def init(self: link_module.LiveLink, *args: Any) -> None:
        right(self, *args)
        self.ends = deque([0] * (self.in_flight + 1), maxlen=self.in_flight + 1)

    monkeypatch.setattr(link_module.LiveLink, "__init__", init)
    with pytest.raises((AssertionError, RuntimeError)) as found:
        execute(prefetch="stream-everything", options=SLOW)
    assert "in flight, more than 2" in causes(found.value)


def test_more_slots_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Slots.__init__

    def init(self: Slots, counts: list[int], *args: Any) -> None:
        right(self, [max(0, counts[0] - 1), *counts[1:]], *args)

    monkeypatch.setattr(Slots, "__init__", init)
    with pytest.raises(RuntimeError) as found:
        execute()
    assert "slots of range 0 are taken" in causes(found.value)
