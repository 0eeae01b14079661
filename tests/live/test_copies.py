"""The copier: order, contents, its stated times, and what it does when something in it fails."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.live.copies import Copier, Copy, HostPool, Slots, Throttle, piece  # noqa: E402

CPU = torch.device("cpu")


def test_copies_arrive_in_order_and_whole() -> None:
    source, target = torch.arange(6000, dtype=torch.uint8).view(3, -1), torch.zeros(3, 2000, dtype=torch.uint8)
    over: list[int] = []

    def done(copy: Copy) -> None:
        over.append(int(copy.source[0]))

    with Copier(CPU) as copier:
        for at in (2, 0, 1):
            copier.submit(source[at], target[at], done)
        last = copier.submit(source[0], target[0])
        assert copier.wait(last) == last.ended >= last.begun >= last.submitted > 0
    assert over == [int(source[at, 0]) for at in (2, 0, 1)]
    assert torch.equal(source, target)


def test_a_throttled_link_takes_its_stated_time_from_the_end_of_the_copy_before() -> None:
    throttle = Throttle(bytes_per_second=10**8, fixed_ns=3_000_000)
    assert throttle.of(100_001) == 3_000_000 + 1_000_010
    data = torch.zeros(100_000, dtype=torch.uint8)
    with Copier(CPU, throttle) as copier:
        copies = [copier.submit(data, data.clone()) for _ in range(3)]
        copier.wait(copies[-1])
    assert all(copy.ended - copy.begun >= 4_000_000 for copy in copies)
    assert [copy.begun for copy in copies[1:]] == [copy.ended for copy in copies[:-1]]


def test_what_fails_in_a_copy_is_raised_by_who_waits_or_looks() -> None:
    def broken(copy: Copy) -> None:
        raise ValueError("broken")

    data = torch.zeros(8, dtype=torch.uint8)
    with Copier(CPU) as copier:
        copier.submit(data, data.clone(), broken)
        with pytest.raises(RuntimeError, match="have stopped") as found:
            copier.wait(copier.submit(data, data.clone()))
        assert isinstance(found.value.__cause__, ValueError)
        with pytest.raises(RuntimeError, match="have stopped"):
            copier.check()


def test_pieces_of_a_key() -> None:
    key = torch.arange(10, dtype=torch.uint8)
    target = torch.zeros_like(key)
    assert [tuple(map(len, piece(key, target, 4, number))) for number in range(3)] == [(4, 4), (4, 4), (2, 2)]
    for number in range(3):
        source, place = piece(key, target, 4, number)
        place.copy_(source)
    assert torch.equal(key, target)


def test_slots_are_those_of_their_range_and_no_more() -> None:
    pool = HostPool(torch.ones(5, 3), CPU)
    slots = Slots([2, 1], pool.rows, CPU)
    assert slots.rows.shape == (3, 3) and pool.bytes_of(4).shape == slots.bytes_of(2).shape == (12,)
    taken = [slots.take(0), slots.take(0)]
    assert sorted(taken) == [0, 1] and slots.take(1) == 2 and slots.taken(0) == 2
    with pytest.raises(RuntimeError, match="all 2 slots of range 0"):
        slots.take(0)
    slots.give_back(0, 1)
    assert slots.take(0) == 1
    for place, slot in ((1, 0), (0, 2)):
        with pytest.raises(RuntimeError, match="is not one that was taken"):
            slots.give_back(place, slot)
    slots.give_back(1, 2)
    with pytest.raises(RuntimeError, match="is not one that was taken"):
        slots.give_back(1, 2)
