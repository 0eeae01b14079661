"""How far a command is, on standard error: a bar on a terminal, rare plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

    from moesim.pool import Tally

LINE_S = 15.0


class Quiet:
    """Says nothing."""

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __call__(self, tally: Tally) -> None:
        pass


class Lines(Quiet):
    """A line every `LINE_S` seconds: for logs. Short work stays silent."""

    def __init__(self, name: str, runs: int, steps: int, stream: TextIO) -> None:
        self.name, self.runs, self.steps, self.stream = name, runs, steps, stream
        self.begun = self.said = time.monotonic()

    def __call__(self, tally: Tally) -> None:
        now = time.monotonic()
        if now - self.said >= LINE_S:
            self.said = now
            print(f"{self.name}: {self.text(tally, now - self.begun)}", file=self.stream, flush=True)

    def text(self, tally: Tally, seconds: float) -> str:
        """`12 of 96 runs, 8,120 steps/s, 40 s left`."""
        rate = tally.steps / max(seconds, 1e-9)
        text = f"{tally.runs} of {self.runs} runs, {rate:,.0f} steps/s"
        # A limit that most runs stay far below says nothing until some of them are done.
        if max(1, self.steps // 100) <= tally.done_steps < self.steps:
            text += f", {seconds * (self.steps - tally.done_steps) / tally.done_steps:.0f} s left"
        return text


class Bar(Lines):
    """The same as a bar that moves."""

    def __init__(self, name: str, runs: int, steps: int, stream: TextIO) -> None:
        super().__init__(name, runs, steps, stream)
        self.progress = _bar(stream)
        self.task = self.progress.add_task(name, total=max(steps, 1), text="")

    def __enter__(self) -> Bar:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def __call__(self, tally: Tally) -> None:
        text = self.text(tally, time.monotonic() - self.begun)
        self.progress.update(self.task, completed=tally.done_steps, text=text)


def _bar(stream: TextIO) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[text]}"))
    return Progress(*columns, console=Console(file=stream), transient=True, refresh_per_second=5)


def shown(name: str, runs: int, steps: int, quiet: bool = False) -> Quiet:
    """What fits standard error; `steps` is the most that all runs together may take."""
    if quiet:
        return Quiet()
    return (Bar if sys.stderr.isatty() else Lines)(name, runs, steps, sys.stderr)
