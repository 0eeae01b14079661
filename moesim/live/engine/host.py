"""What the host of a live run takes, so that the simulator's host costs can be held against it (docs/live.md)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from moesim.live.engine.streams import Ran

NAMES = ("launch", "sync", "copy_submit", "step", "ask")


class HostTimes:
    """Samples in ns. Those that begin or end with a kernel are known once the step's kernels have been read.

    launch: from the end of what was waited for, a kernel or a copy, to the begin of the kernel that was launched then;
    sync: from a kernel's end to the host's having its result; copy_submit: from the end of the kernel before a layer's
    experts to the first demand's being handed to the link (others take next to nothing); step: from a step's start to
    its first kernel; ask: one question to the prefetcher, its stated cost apart.
    """

    def __init__(self) -> None:
        self.samples: dict[str, list[int]] = {name: [] for name in NAMES}
        self.pieces = 0
        """of the present step, launched so far"""
        self.landed = 0
        """when the copy ended for which the stream waited last"""
        self._launched: list[tuple[int, int]] = []
        self._read: list[tuple[int, int]] = []
        self._demanded: list[tuple[int, int]] = []

    def add(self, name: str, ns: int) -> None:
        self.samples[name].append(ns)

    def launches(self, pieces: int, waited: bool) -> None:
        """So many pieces are launched; `waited`: the stream had nothing to run, and the host had waited for that."""
        if waited and self.pieces:
            self._launched.append((self.pieces, self.landed))
        self.pieces += pieces

    def has_read(self, at: int) -> None:
        """The host has the result of the last piece that was launched."""
        self._read.append((self.pieces - 1, at))

    def demands(self, at: int) -> None:
        """The first key of a layer event was handed to the link."""
        self._demanded.append((self.pieces - 1, at))

    def read(self, ran: Sequence[Ran], start: int) -> None:
        """The step that started at `start` is over."""
        if len(ran) == self.pieces and ran:
            self.add("step", ran[0].begun - start)
            for at, landed in self._launched:
                self.add("launch", ran[at].begun - max(landed, ran[at - 1].ended))
            for name, times in (("sync", self._read), ("copy_submit", self._demanded)):
                for at, then in times:
                    self.add(name, then - ran[at].ended)
        self.pieces = 0
        self._launched.clear()
        self._read.clear()
        self._demanded.clear()

    def medians(self) -> dict[str, int]:
        """`live_NAME_ns` of each, -1 where there was none."""
        found = {name: round(median(times)) if times else -1 for name, times in self.samples.items()}
        return {f"live_{name}_ns": ns for name, ns in found.items()}
