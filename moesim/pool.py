"""Simulating many runs, in this process or in several. The results do not depend on how many."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeGuard

from moesim import inputs, search
from moesim.errors import InputError, Problem
from moesim.partial import Partial, run_key

if TYPE_CHECKING:
    from moesim.experiment import RunConfig
    from moesim.plan import Run
    from moesim.sim import RunResult

POLL_S = 0.2
CHUNKS_PER_JOB = 4  # enough that no process idles long at the end, few enough that frozen schedules are reused


class Interrupted(Exception):
    """Raised inside a worker when the command is being stopped."""


@dataclass(slots=True)
class Tally:
    """How far all the work is. `steps` were simulated, `done_steps` count a finished run as all that it might have."""

    runs: int = 0
    steps: int = 0
    done_steps: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run: its result, or what is wrong with its input."""

    index: int
    result: RunResult | None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Manner:
    """How each run is simulated, beside what its experiment says: the words of `moesim.sim.simulate`."""

    check: bool = False
    transfers: bool = False
    compiled: bool | None = None


@dataclass(slots=True)
class Pool:
    """How to run: `jobs` processes, `check` for conservation at every event, `partial` to keep finished runs in.

    `transfers`: keep a row per copy on the link. `compiled`: False keeps to the policies' own code;
    compiled steps take a policy by the rule that it states.
    """

    jobs: int = 1
    check: bool = False
    partial: Partial | None = None
    report: Callable[[Tally], None] = lambda tally: None
    transfers: bool = False
    compiled: bool | None = None
    reused: int = field(default=0, init=False)

    def execute(self, runs: Sequence[Run]) -> list[RunResult]:
        """Simulate all runs; the results are in the order of `runs`.

        Raises InputError when a run meets costs outside their range or the like. After KeyboardInterrupt no process is
        left, and finished runs are in `partial`.
        """
        found = self._recall(runs)
        self.reused = len(found)
        todo = [run for run in runs if run.index not in found]
        tally = Tally(runs=len(found))
        chunks = split(todo, self.jobs)
        if self.jobs == 1 or len(chunks) <= 1:
            outcomes = self._here(chunks, tally)
        else:
            outcomes = self._spread(chunks, tally)
        problems = [problem for outcome in outcomes for problem in outcome.problems]
        if problems:
            raise InputError(dict.fromkeys(problems))
        found |= {outcome.index: outcome.result for outcome in outcomes if outcome.result is not None}
        return [found[run.index] for run in runs]

    def _manner(self) -> Manner:
        return Manner(self.check, self.transfers, self.compiled)

    def _recall(self, runs: Sequence[Run]) -> dict[int, RunResult]:
        if self.partial is None or not self.partial.folder.is_dir():
            return {}
        earlier = ((run.index, self.partial.get(run_key(run))) for run in runs)
        return {index: result for index, result in earlier if _will_do(result, self.transfers)}

    def _here(self, chunks: list[list[Run]], tally: Tally) -> list[Outcome]:
        outcomes = []

        def count(steps: int, done_steps: int) -> None:
            tally.steps += steps
            tally.done_steps += done_steps
            self.report(tally)

        for run in (run for chunk in chunks for run in chunk):
            outcomes.append(simulate(run, self._manner(), self.partial, count))
            tally.runs += 1
            self.report(tally)
            if outcomes[-1].problems:
                break
        return outcomes

    def _spread(self, chunks: list[list[Run]], tally: Tally) -> list[Outcome]:
        context = multiprocessing.get_context("spawn")  # the same on every system, and safe beside threads
        shared = Shared(context)
        start = (shared, self._manner(), self.partial, os.getpid())
        outcomes: list[Outcome] = []
        with ProcessPoolExecutor(min(self.jobs, len(chunks)), context, _begin, start) as executor:
            try:
                waiting = {executor.submit(_work, chunk) for chunk in chunks}
                while waiting:
                    done, waiting = wait(waiting, POLL_S, FIRST_COMPLETED)
                    outcomes += _collect(done)
                    shared.read(tally, self.reused)
                    self.report(tally)
                    if any(outcome.problems for outcome in outcomes):
                        break
            finally:
                shared.stop.value = 1
                executor.shutdown(wait=True, cancel_futures=True)
        return outcomes


class Shared:
    """Counters that the workers add to, and the flag that stops them."""

    def __init__(self, context: Any) -> None:
        self.lock = context.Lock()
        self.runs, self.steps, self.done_steps = (context.Value("q", 0, lock=False) for _ in range(3))
        self.stop = context.Value("b", 0, lock=False)

    def add(self, runs: int, steps: int, done_steps: int) -> None:
        with self.lock:
            self.runs.value += runs
            self.steps.value += steps
            self.done_steps.value += done_steps

    def read(self, tally: Tally, reused: int) -> None:
        tally.runs, tally.steps, tally.done_steps = reused + self.runs.value, self.steps.value, self.done_steps.value


def split(runs: Sequence[Run], jobs: int) -> list[list[Run]]:
    """Chunks of runs for one process each; runs that replay the same frozen schedule stay together where they can."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(_group(run), []).append(run)
    most = max(1, math.ceil(len(runs) / (jobs * CHUNKS_PER_JOB)))
    return [group[i : i + most] for group in groups.values() for i in range(0, len(group), most)]


def _group(run: Run) -> str:
    """What runs share that are better done by one process: a frozen schedule, which is recorded once."""
    from moesim.sim import schedule_key

    frozen = run.config.schedule == "frozen"
    return schedule_key(run.config, inputs.load(run.sources), run.replication) if frozen else str(run.index)


def _will_do(result: RunResult | None, transfers: bool) -> TypeGuard[RunResult]:
    """Whether an earlier result has what this command keeps."""
    return result is not None and (bool(result.transfers) or not transfers)


def simulate(
    run: Run, manner: Manner, partial: Partial | None, count: Callable[[int, int], None]
) -> Outcome:
    """One run. `count` is told steps as they are done, and at the end those that the run did not need."""
    if run.config.search is not None:
        return _search(run, manner, partial, count)
    from moesim.sim import simulate

    told = 0

    def progress(steps: int) -> None:
        nonlocal told
        new, told = steps - told, steps
        count(new, new)

    config = inputs.located(run.config, run.sources.base)
    try:
        loaded = inputs.load(run.sources)
        result = simulate(config, loaded, run.replication, progress=progress, **asdict(manner))
    except InputError as error:
        return Outcome(run.index, None, error.problems)
    done = len(next(iter(result.steps.values()), ()))
    count(max(0, done - told), max(0, run.config.steps - told))
    if partial is not None:
        partial.put(run_key(run), result)
    return Outcome(run.index, result)


def most_steps(run: Run) -> int:
    """Steps that a run may take, over all the loads that its search may try."""
    config = run.config
    return config.steps * (search.most_probes(config.search) if config.search is not None else 1)


def _search(
    run: Run, manner: Manner, partial: Partial | None, count: Callable[[int, int], None]
) -> Outcome:
    """A run with a search: a run for each load that it tries, each kept like any other."""
    tried = 0

    def attempt(config: RunConfig) -> RunResult:
        nonlocal tried
        probe = replace(run, config=config)
        tried += config.steps
        earlier = partial.get(run_key(probe)) if partial is not None else None
        if _will_do(earlier, manner.transfers):
            count(0, config.steps)
            return earlier
        outcome = simulate(probe, manner, partial, count)
        if outcome.result is None:
            raise InputError(outcome.problems)
        return outcome.result

    try:
        result = search.largest(run.config, attempt)
    except InputError as error:
        return Outcome(run.index, None, error.problems)
    count(0, max(0, most_steps(run) - tried))
    if partial is not None:
        partial.put(run_key(run), result)
    return Outcome(run.index, result)


_worker: tuple[Shared, Manner, Partial | None, int]


def _begin(*start: Any) -> None:
    """Set up a worker process. Ctrl-C is for the parent, which tells the workers to stop."""
    global _worker
    _worker = start
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(chunk: list[Run]) -> list[Outcome]:
    shared, manner, partial, parent = _worker

    def count(steps: int, done_steps: int) -> None:
        shared.add(0, steps, done_steps)
        if shared.stop.value or os.getppid() != parent:
            raise Interrupted

    outcomes = []
    for run in chunk:
        outcomes.append(simulate(run, manner, partial, count))
        shared.add(1, 0, 0)
        if outcomes[-1].problems:
            break
    return outcomes


def _collect(done: set[Future[list[Outcome]]]) -> list[Outcome]:
    return [outcome for future in done for outcome in future.result()]
