"""What copies between host and device take: each direction alone, both at once, and while the device computes.

On a GPU by the events of a copy stream; on a CPU by the copier that the live engine uses (`moesim.live.copies`): "the
device" is other memory there, and another thread does the copying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor

from moesim.hardware.interpolation import left_out
from moesim.live.bench import Bench, Room
from moesim.live.copies import Copier, Throttle
from moesim.live.timing import Effort, Spread, Timer

BOTH = 16 * 2**20
"""bytes of each copy while the other direction, or the device, is busy"""
BURST = 8
"""copies of the smallest sizes that follow one another"""


@dataclass(frozen=True, slots=True)
class Buffers:
    """Host and device memory that copies go through, so that each finds its source out of all caches."""

    host: Tensor
    pageable: Tensor
    device: Tensor

    @classmethod
    def of(cls, device: torch.device, largest: int, room: Room) -> Buffers:
        """Twice `largest` bytes on each side, and what makes a cache forget them, as far as memory allows."""
        size = max(2 * largest, min(room.flush, room.most // 8))
        pageable = torch.ones(size, dtype=torch.uint8)
        host = pageable.pin_memory() if device.type == "cuda" else pageable
        return cls(host, pageable, torch.ones(size, dtype=torch.uint8, device=device))


def piece(buffer: Tensor, nbytes: int, number: int) -> Tensor:
    """The piece of a buffer that copy `number` takes."""
    first = number % max(1, len(buffer) // nbytes) * nbytes
    return buffer[first : first + nbytes]


class Copies:
    """Times copies in a row of one direction, on a device."""

    def __init__(self, device: torch.device, throttle: Throttle | None = None) -> None:
        self.device, self.throttle = device, throttle

    def in_a_row(self, source: Tensor, target: Tensor, nbytes: int, count: int) -> list[int]:
        """ns of each of `count` copies that follow one another; on a CPU one more goes first, which wakes a thread."""
        if self.device.type == "cuda":
            return self._on_stream(source, target, nbytes, count)
        with Copier(self.device, self.throttle) as copier:
            pairs = [(piece(source, nbytes, at), piece(target, nbytes, at)) for at in range(count + 1)]
            copies = [copier.submit(*pair) for pair in pairs]
            ends = [copier.wait(copy) for copy in copies]
        return [end - before for before, end in pairwise(ends)]

    def _on_stream(self, source: Tensor, target: Tensor, nbytes: int, count: int) -> list[int]:
        stream = torch.cuda.Stream(self.device)
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        with torch.cuda.stream(stream):
            marks[0].record(stream)
            for number, mark in enumerate(marks[1:]):
                piece(target, nbytes, number).copy_(piece(source, nbytes, number), non_blocking=True)
                mark.record(stream)
        stream.synchronize()
        return [round(a.elapsed_time(b) * 1e6) for a, b in pairwise(marks)]


def speed(times: dict[int, Spread], source: str, middles: dict[int, Spread]) -> dict[str, Any]:
    """A `Speed` of a link table: points with their spread, and interpolation at `middles`.

    Where noise has a larger copy take no longer, it takes 1 ns more than the one before.
    """
    points: list[list[int]] = []
    for nbytes, spread in sorted(times.items()):
        points.append([nbytes, max(spread.ns, points[-1][1] + 1 if points else 1)])
    around = [[times[nbytes].p10, times[nbytes].p90] for nbytes, _ in points]
    found: dict[str, Any] = {"points": points, "spread": around, "source": source}
    sizes, ns = [nbytes for nbytes, _ in points], [value for _, value in points]
    inside: dict[tuple[int, ...], int] = {(nbytes,): found.ns for nbytes, found in middles.items()}
    if error := left_out({"bytes": sizes}, ns, inside):
        found["left_out"] = error
    return found


class LinkBench:
    """All that a link table holds, of one device."""

    def __init__(
        self, device: torch.device, sizes: Sequence[int], room: Room, effort: Effort, throttle: Throttle | None = None
    ) -> None:
        self.device, self.effort, self.room = device, effort, room
        self.sizes = [size for size in sizes if size <= room.most // 8]
        self.left = [size for size in sizes if size > room.most // 8]
        """bytes that memory does not allow"""
        self.copies, self.throttle = Copies(device, throttle), throttle
        self.buffers = Buffers.of(device, max(self.sizes), room)

    def to_device(self, *, pinned: bool = True) -> dict[str, Any]:
        source = self.buffers.host if pinned else self.buffers.pageable
        return self._direction(source, self.buffers.device, "host to device")

    def to_host(self) -> dict[str, Any]:
        return self._direction(self.buffers.device, self.buffers.host, "device to host")

    def _direction(self, source: Tensor, target: Tensor, name: str) -> dict[str, Any]:
        times = {size: self._spread(source, target, size) for size in self.sizes}
        middles = [round((a * b) ** 0.5) for a, b in pairwise(self.sizes)]
        left = {size: self._spread(source, target, size) for size in middles}
        return speed(times, f"measured, {name}: copies in a row, ns of each", left)

    def _spread(self, source: Tensor, target: Tensor, nbytes: int) -> Spread:
        self.copies.in_a_row(source, target, nbytes, self.effort.warmup)
        times: list[int] = []
        effort = self.effort
        while len(times) < effort.repeats and (len(times) < effort.least or sum(times) < effort.seconds * 1e9):
            count = min(BURST, effort.repeats - len(times)) if nbytes <= BOTH else 2
            times += self.copies.in_a_row(source, target, nbytes, count)
        return Spread.of(times)

    def both_ways(self) -> dict[str, Any] | None:
        """How many times as long copies take while the other direction is busy."""
        nbytes = min(BOTH, max(self.sizes))
        there, back = self.buffers.host, self.buffers.device
        # Each side has buffers of its own: what is copied in one direction is not what the other one writes.
        half = len(there) // 2
        if half < nbytes:
            return None
        alone = [
            self._spread(there[:half], back[:half], nbytes).ns,
            self._spread(back[half:], there[half:], nbytes).ns,
        ]
        together = self._together(
            lambda count: self.copies.in_a_row(there[:half], back[:half], nbytes, count),
            lambda count: Copies(self.device, self.throttle).in_a_row(back[half:], there[half:], nbytes, count),
        )
        factors = [round(max(1.0, busy.ns / ns), 3) for busy, ns in zip(together, alone, strict=True)]
        text = f"measured: copies of {nbytes} bytes in a row, with the same in the other direction and alone"
        return {"to_device": factors[0], "to_host": factors[1], "source": text}

    def while_computing(self, bench: Bench) -> dict[str, Any]:
        """How copies to the device and kernels (the FFN of an expert, 8 tokens) slow each other down."""
        nbytes = min(BOTH, max(self.sizes))
        source, target = self.buffers.host, self.buffers.device
        call = bench.call("experts", (8, 1, 8))
        timer = Timer(self.device, self.effort)
        alone = self._spread(source, target, nbytes).ns, timer(call).ns
        copies, kernels = self._together(
            lambda count: self.copies.in_a_row(source, target, nbytes, count), lambda count: [timer(call).ns]
        )
        text = f"measured: copies of {nbytes} bytes in a row beside the FFN of one expert, 8 tokens, and each alone"
        factors = copies.ns / alone[0], kernels.ns / alone[1]
        return {"copy_to_device": round(factors[0], 3), "kernel": round(factors[1], 3), "source": text}

    def _together(self, first: Callable[[int], list[int]], second: Callable[[int], list[int]]) -> tuple[Spread, Spread]:
        """Both again and again, each in a thread, until each has as many times as it should; a first round warms up."""
        times: tuple[list[int], list[int]] = [], []
        enough = [Event(), Event()]
        failures: list[BaseException] = []

        def work(number: int, run: Callable[[int], list[int]]) -> None:
            try:
                run(BURST)
                while not all(event.is_set() for event in enough):
                    times[number].extend(run(BURST))
                    if len(times[number]) >= self.effort.least:
                        enough[number].set()
            except BaseException as error:
                failures.append(error)
                enough[0].set()
                enough[1].set()

        threads = [Thread(target=work, args=pair) for pair in enumerate((first, second))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return Spread.of(times[0]), Spread.of(times[1])
