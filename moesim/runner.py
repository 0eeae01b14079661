"""Running experiments: from files to results folders."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from moesim import results as results_module
from moesim.document import Node, from_plain, from_settings
from moesim.errors import InputError, Problem, unknown
from moesim.files import unwritable
from moesim.partial import Partial
from moesim.plan import Plan, Run, read_plan
from moesim.pool import Pool, Tally, most_steps
from moesim.progress import shown
from moesim.results import DETAILS, REPORT, RUN, Results
from moesim.settle import settle

if TYPE_CHECKING:
    from moesim.sim import RunResult
    from moesim.timeline import Window

PACKAGES = ("numpy", "simpy", "pandas", "pyarrow", "pydantic", "matplotlib")


@dataclass(frozen=True, slots=True)
class Job:
    """A plan, the folder that its results go to, and the details to save there."""

    plan: Plan
    folder: Path
    save: tuple[str, ...]


class Runs(Protocol):
    """Who makes the results of all runs: a `Pool` simulates them."""

    @property
    def reused(self) -> int:
        """How many were there from an earlier, interrupted command."""

    def execute(self, runs: Sequence[Run]) -> list[RunResult]:
        """The results, in the order of `runs`."""


Executor = Callable[[Partial, Callable[[Tally], None]], Runs]
"""makes `Runs` that keep what is finished in a folder and say how far they are"""


def run(
    source: Path | str | Mapping[str, Any],
    *,
    out: Path | str | None = None,
    jobs: int = 1,
    save: Sequence[str] = (),
    check: bool = False,
    figures: bool = True,
    report: bool = False,
    **set: Any,
) -> Results:
    """Run an experiment, given as a file or as a mapping, and return its results.

    out: results folder (default `results/<name>`, replaced if it holds results); jobs: processes (more than one needs
    an `if __name__ == "__main__":` in the calling script); save: details to keep, of "steps", "tokens" and
    "transfers" (a single run keeps them anyway); check: verify conservation at every event; report: write report.html
    as well; set: changes to the experiment, `memory__slots=4` or `**{"memory.slots": 4}`. Raises InputError with every
    mistake.
    """
    problems: list[Problem] = []
    nested = from_plain(_nested(set, problems)) if set else None
    try:
        job = prepare([source], override=nested, out=out, save=save)[0]
    except InputError as error:  # options of the command are called by their parameters
        problems += [Problem(problem.place.removeprefix("--"), problem.text) for problem in error.problems]
    if problems:
        raise InputError(problems)
    return execute(job, jobs=jobs, check=check, figures=figures, quiet=True, report=report)


def _nested(settings: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """The changes as a tree. A section may be given whole and in parts, but nothing twice."""
    root: dict[str, Any] = {}
    for key, value in settings.items():
        path = key.replace("__", ".")
        _put(root, path.split("."), value, path, problems)
    return root


def _put(at: dict[str, Any], path: Sequence[str], value: Any, name: str, problems: list[Problem]) -> None:
    first, *rest = path
    there = at.get(first, {} if rest else None)
    if rest and isinstance(there, Mapping):
        at[first] = dict(there)  # a caller's own dictionary stays as it is
        _put(at[first], rest, value, name, problems)
    elif isinstance(there, Mapping) and isinstance(value, Mapping):
        at[first] = dict(there)
        for key, part in value.items():
            _put(at[first], [str(key)], part, f"{name}.{key}", problems)
    elif first in at:
        problems.append(Problem(name, f"is given twice: {there!r} and {value!r}"))
    else:
        at[first] = value


def prepare(
    sources: Sequence[Path | str | Mapping[str, Any]],
    *,
    settings: Sequence[str] = (),
    seed: int | None = None,
    override: Node | None = None,
    out: Path | str | None = None,
    save: Sequence[str] = (),
    home: Path | str = "results",
) -> list[Job]:
    """Check everything that is to run, and load its inputs. Writes nothing; raises InputError with every mistake.

    settings: texts of `--set`; override: the same as a tree; home: where folders go without `out`.
    """
    problems = [Problem("--save", unknown("detail", name, DETAILS)) for name in save if name not in DETAILS]
    override = override or from_settings(settings, problems)
    if seed is not None:
        override.value["seed"] = Node(seed, "--seed")
    jobs: list[Job] = []
    for source in sources:
        try:
            plan = read_plan(source, override)
        except InputError as error:
            problems += error.problems
            continue
        folder = Path(home, plan.name) if out is None else _folder(plan, out, len(sources))
        jobs.append(Job(plan, folder, _kept(plan, save)))
        problems += _clashes(jobs)
    if problems:
        raise InputError(dict.fromkeys(problems))
    return jobs


def _kept(plan: Plan, save: Sequence[str]) -> tuple[str, ...]:
    """The details to save; a single run keeps all of them, but one that searches tries many loads for one row."""
    runs = plan.runs()
    anyway: tuple[str, ...] = DETAILS if len(runs) == 1 else ()
    if anyway and runs[0].config.search is not None:
        anyway = tuple(name for name in DETAILS if name != "transfers")
    return tuple(name for name in DETAILS if name in save or name in anyway)


def _clashes(jobs: Sequence[Job]) -> list[Problem]:
    """What stands against the folder of the last job."""
    *others, job = jobs
    if any(job.folder == other.folder for other in others):
        return [Problem(job.plan.source, f"name {job.plan.name!r} is another file's too: both go to {job.folder}")]
    return results_module.check_folder(job.folder)


def _folder(plan: Plan, out: Path | str, files: int) -> Path:
    return Path(out) if files == 1 else Path(out, plan.name)


def execute(
    job: Job,
    *,
    jobs: int,
    check: bool = False,
    figures: bool = True,
    quiet: bool = False,
    report: bool = False,
    by: Executor | None = None,
    about: Mapping[str, Any] | None = None,
) -> Results:
    """Simulate all runs of a job and write its folder. An interrupted job goes on where it was when it is run again.

    `by` executes them in the place of the simulator; `about` goes into run.json.
    """
    begun, clock = datetime.now(UTC), time.perf_counter()
    plan, partial = job.plan, Partial.beside(job.folder)
    runs = plan.runs()
    partial.check()
    with shown(plan.name, len(runs), sum(map(most_steps, runs)), quiet) as progress:
        if by is None:
            pool: Runs = Pool(max(1, jobs), check, partial, progress, "transfers" in job.save)
        else:
            pool = by(partial, progress)
        found = settle(runs, pool.execute(runs))
    simulated = time.perf_counter() - clock
    with results_module.replacing(job.folder) as folder:
        results_module.write(folder, plan, runs, found, job.save)
        if figures:
            _figures(Results(folder), folder)
        steps = sum(int(result.counters["steps"]) for result in found)
        wall = {"simulation_s": simulated, "all_s": time.perf_counter() - clock}
        record = {**_record(begun, jobs), "wall": wall, "runs": len(runs), "reused": pool.reused, "steps": steps}
        record |= about or {}
        (folder / RUN).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if report:
            (folder / REPORT).write_text(Results(folder).report(), encoding="utf-8")
    partial.remove()
    return Results.load(job.folder)


def shown_steps(jobs: Sequence[Job], path: Path | None, run: int | None, steps: str | None) -> Window | None:
    """The steps that a timeline is to show; None where there is to be none. Raises InputError with every mistake."""
    from moesim.timeline import window

    if path is None:
        given = {"--timeline-run": run, "--timeline-steps": steps}
        text = "says what --timeline FILE.json shows, which is not given"
        if without := [Problem(name, text) for name, value in given.items() if value is not None]:
            raise InputError(without)
        return None
    problems = [Problem("--timeline", text) for text in unwritable(path)]
    if len(jobs) > 1:
        problems.append(Problem("--timeline", f"shows one run of one experiment, and {len(jobs)} files are given"))
        raise InputError(problems)
    try:
        found = window(jobs[0].plan.runs(), run, steps)
    except InputError as error:
        raise InputError([*problems, *error.problems]) from None
    if problems:
        raise InputError(problems)
    return found


def write_timeline(job: Job, results: Results, shown: Window, path: Path, *, check: bool = False) -> None:
    """Simulate a run of a finished job again, watched, and write some of its steps as a trace for Perfetto."""
    from moesim.timeline import record

    expected = results.summary.set_index("run").loc[shown.run]
    record(job.plan.runs()[shown.run], shown, path, expected, check)


def _figures(results: Results, folder: Path) -> None:
    from moesim.analysis.plots import save_all

    save_all(results, folder)


def _record(begun: datetime, jobs: int) -> dict[str, Any]:
    """What differs between equal runs: when, where, with what."""
    from importlib.metadata import PackageNotFoundError, version

    from moesim import __version__

    versions = {"moesim": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # a vendored or zipped install has no metadata
            versions[name] = ""
    return {
        "command": sys.argv,
        "begun": begun.isoformat(),
        "ended": datetime.now(UTC).isoformat(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "jobs": jobs,
        "versions": versions,
    }
