"""Which steps of which run are shown, and that run once more with somebody looking on."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim import inputs
from moesim.errors import InputError, Problem
from moesim.files import write_aside

if TYPE_CHECKING:
    from moesim.plan import Run
    from moesim.sim import RunResult

STEPS = 20
"""measured steps that are shown where nothing else is said"""
MOST = 500
"""steps at most: some 50 MB"""


DECIDED = ("arrivals_ended", "cut_off")
"""of a window, and decided from all runs together (moesim.settle)"""


@dataclass(frozen=True, slots=True)
class Window:
    """Steps `first` to `last - 1` of a run, numbered as in steps.parquet; -1: from the first that is measured."""

    run: int
    first: int
    last: int

    def placed(self, measured: int) -> Window:
        """The same, `measured` being the first step that is."""
        return Window(self.run, measured, measured + STEPS) if self.first < 0 else self


def window(runs: Sequence[Run], run: int | None = None, steps: str | None = None) -> Window:
    """The steps of `steps` ("A:B", A to B - 1), else the first 20 measured ones, of a run, else of the first.

    Raises InputError where there is no such run or no such step, or where they are too many.
    """
    index = run or 0
    if not 0 <= index < len(runs):
        raise InputError(Problem("--timeline-run", f"{index} is no run; they are numbered 0 to {len(runs) - 1}"))
    config = runs[index].config
    if config.search is not None:
        text = "searches for its largest load; give one load, without the search"
        raise InputError(Problem("--timeline-run", f"run {index} {text}"))
    if steps is None:
        return Window(index, -1, -1)
    match = re.fullmatch(r"(\d+):(\d+)", steps)
    if match is None:
        raise InputError(Problem("--timeline-steps", f"{steps!r} is not of the form A:B, two step numbers from 0 on"))
    first, last = int(match[1]), int(match[2])
    rule = ""
    if first >= last:
        rule = "holds no step: A must be below B"
    elif first >= config.steps:
        rule = f"starts after the run, which has steps 0 to {config.steps - 1}"
    elif last - first > MOST:
        rule = f"are {last - first} steps; a timeline holds {MOST} at most"
    if rule:
        raise InputError(Problem("--timeline-steps", f"{steps} {rule}"))
    return Window(index, first, min(last, config.steps))


def record(run: Run, shown: Window, path: Path, expected: Any = None, check: bool = False) -> None:
    """Simulate `run` again, watched, and write the window as JSON.

    `expected` is its row of the summary: every counter must come out as it is there. Raises InputError where the run
    ended before the window, or the file cannot be written.
    """
    from moesim.sim import simulate
    from moesim.sim.setup import keys_of
    from moesim.sim.watch import Watch
    from moesim.timeline.trace import trace

    shown = shown.placed(_measured_from(run, expected))
    watch, loaded = Watch(shown.first, shown.last), inputs.load(run.sources)
    config = inputs.located(run.config, run.sources.base)
    result = simulate(config, loaded, run.replication, check=check, watch=watch)
    _compare(result, expected)
    if not watch.steps:
        done = len(result.steps["step"])
        raise InputError(Problem("--timeline-steps", f"starts at {shown.first}, but the run ended after {done} steps"))
    about = {"experiment": config.name, "run": run.index, "replication": run.replication} | result.labels
    document = trace(watch, result.requests, keys_of(loaded), about)
    try:
        with write_aside(path) as aside:
            aside.write_text(json.dumps(document, separators=(",", ":"), ensure_ascii=False), encoding="utf-8")
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be written ({error.strerror})")) from error


def _measured_from(run: Run, expected: Any) -> int:
    """The first measured step: of the window that was chosen, where requests are measured by their numbers."""
    chosen = -1 if expected is None or run.config.window is None else int(expected["window_step"])
    return chosen if chosen >= 0 else run.config.warmup_steps


def _compare(result: RunResult, expected: Any) -> None:
    """Nothing is different because somebody looks on."""
    if expected is None:
        return
    counters = dict(result.counters)
    for place, first in enumerate(result.windows.get("window_first", ())):
        if first == expected["window_first"]:
            counters |= {name: int(column[place]) for name, column in result.windows.items()}
    for name, value in counters.items():
        if name in expected and name not in DECIDED and int(expected[name]) != value:
            raise AssertionError(f"{name} is {value} with a timeline and {expected[name]} without")
