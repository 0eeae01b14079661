"""What the host of a live run takes, so that the simulator's host costs can be held against it (docs/live.md)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from moesim.live.engine.streams import Ran

NAMES = ("launch", "sync", "copy_submit", "step", "ask")


class HostTimes:
    """Samples in ns. Those that end or begin at a kernel are known once the step's kernels have been read.

    launch: from when the host was free to the kernel's begin, the stream being idle; sync: from a kernel's end
    to the host's going on; copy_submit: handing one demand to the link; step: from a step's start to its first kernel;
    ask: one question to the prefetcher, its stated cost apart.
    """

    def __init__(self) -> None:
        self.samples: dict[str, list[int]] = {name: [] for name in NAMES}
        self.pieces = 0
        """of the present step, launched so far"""
        self._launched: list[tuple[int, int]] = []
        self._waited: list[tuple[int, int]] = []

    def add(self, name: str, ns: int) -> None:
        self.samples[name].append(ns)

    def launches(self, pieces: int, free_at: int | None) -> None:
        """So many pieces are launched; `free_at`: when the host was free to do it, if the stream was idle."""
        if free_at is not None:
            self._launched.append((self.pieces, free_at))
        self.pieces += pieces

    def goes_on(self, at: int) -> None:
        """The host has waited for the last piece that was launched."""
        if self.pieces:
            self._waited.append((self.pieces - 1, at))

    def read(self, ran: Sequence[Ran], start: int) -> None:
        """The step that started at `start` is over."""
        if len(ran) == self.pieces and ran:
            self.add("step", ran[0].begun - start)
            for at, free in self._launched:
                if at:  # the first waits for more than a launch
                    self.add("launch", ran[at].begun - free)
            for at, gone_on in self._waited:
                self.add("sync", gone_on - ran[at].ended)
        self.pieces = 0
        self._launched.clear()
        self._waited.clear()

    def medians(self) -> dict[str, int]:
        """`live_NAME_ns` of each, -1 where there was none."""
        found = {name: round(median(times)) if times else -1 for name, times in self.samples.items()}
        return {f"live_{name}_ns": ns for name, ns in found.items()}
