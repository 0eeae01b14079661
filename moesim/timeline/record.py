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

    Raises InputError with every mistake: no such run, no such step, too many.
    """
    index, problems = run or 0, []
    if not 0 <= index < len(runs):
        problems.append(Problem("--timeline-run", f"{index} is no run; they are numbered 0 to {len(runs) - 1}"))
    elif runs[index].config.search is not None:
        text = "searches for its largest load; give one load, without the search"
        problems.append(Problem("--timeline-run", f"run {index} {text}"))
    most = runs[index].config.steps if 0 <= index < len(runs) else max(each.config.steps for each in runs)
    first, last = (-1, -1) if steps is None else _asked(steps, most, problems)
    if problems:
        raise InputError(problems)
    return Window(index, first, last)


def _asked(steps: str, most: int, problems: list[Problem]) -> tuple[int, int]:
    """The steps of "A:B" in a run of `most` steps; what is wrong goes to `problems`."""
    match = re.fullmatch(r"(\d+):(\d+)", steps)
    first, last = (int(match[1]), int(match[2])) if match else (-1, -1)
    rule = ""
    if match is None:
        rule = "is not of the form A:B, two step numbers from 0 on"
    elif first >= last:
        rule = "holds no step: A must be below B"
    elif first >= most:
        rule = f"starts after the run, which has steps 0 to {most - 1}"
    elif last - first > MOST:
        rule = f"are {last - first} steps; a timeline holds {MOST} at most"
    if rule:
        problems.append(Problem("--timeline-steps", f"{steps if match else repr(steps)} {rule}"))
    return first, min(last, most)


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
