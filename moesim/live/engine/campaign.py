"""All runs of an experiment, live: one after another, kept as they finish, labelled with device and date."""

from __future__ import annotations

import gc
import hashlib
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch

from moesim import inputs, runner
from moesim.live.engine.differences import compare
from moesim.live.engine.fit import check as check_fit
from moesim.live.engine.machine import Options, weights_for
from moesim.live.engine.model import Weights
from moesim.live.engine.run import labelled, run_live
from moesim.live.machine import describe
from moesim.partial import Partial, run_key
from moesim.plan import Plan, Run
from moesim.pool import Tally
from moesim.results import Results
from moesim.sim import Inputs, RunResult, simulate
from moesim.sim.setup import keys_of

REPEAT, AGREEMENT, SAVED = "repeat", "agreement", ("steps", "tokens")


def prepare(
    files: Sequence[Path], options: Options, *, repeats: int = 1, role: str | None = None, **given: Any
) -> list[runner.Job]:
    """What is to run, checked whole: as `moesim.runner.prepare`, and what a live machine cannot do.

    role: only the points that have it (`validation.role`).
    """
    jobs = runner.prepare(files, home=Path("results", "live"), **given)
    if role is not None:
        jobs = [replace(job, plan=job.plan.of_role(role)) for job in jobs]
    check_fit([job.plan for job in jobs], options)
    return [replace(job, plan=repeated(job.plan, repeats), save=SAVED) for job in jobs]


def repeated(plan: Plan, repeats: int) -> Plan:
    """Every point so many times, with an axis `repeat`."""
    if repeats == 1:
        return plan
    configs = [
        config.model_copy(update={"labels": {**config.labels, REPEAT: str(number)}})
        for config in plan.configs
        for number in range(repeats)
    ]
    return replace(plan, configs=tuple(configs))


def execute(job: runner.Job, options: Options, *, check: bool = False, **given: Any) -> Results:
    """Execute all runs of a job and write its folder. An interrupted one goes on with the runs that are missing."""
    device = described(options)
    agreement: list[dict[str, Any]] = []
    by = partial(LivePool, options, check, device, agreement)
    about = {**asdict(options), "device_name": device, "torch": torch.__version__, AGREEMENT: agreement}
    return runner.execute(job, jobs=1, by=by, about={"live": about}, **given)


def agreement_of(results: Results) -> list[dict[str, Any]]:
    """How the counts of each run compare with the simulator's on the same schedule (`Comparison.document`)."""
    found: list[dict[str, Any]] = results.record.get("live", {}).get(AGREEMENT, [])
    return found


class LivePool:
    """Makes results by running (see `moesim.runner.Runs`)."""

    def __init__(
        self,
        options: Options,
        check: bool,
        device: str,
        agreement: list[dict[str, Any]],
        kept: Partial,
        report: Callable[[Tally], None],
    ) -> None:
        """`agreement` gets an entry a run."""
        self.options, self.check, self.device, self.kept, self.report = options, check, device, kept, report
        self.agreement = agreement
        self.reused = 0
        self._weights: tuple[object, Weights] | None = None

    def execute(self, runs: Sequence[Run]) -> list[RunResult]:
        """All points once, then all of them again, so that what drifts does so for all."""
        found: dict[int, RunResult] = {}
        tally = Tally()
        for run in sorted(runs, key=lambda run: (int(run.config.labels.get(REPEAT, 0)), run.index)):
            earlier = self.kept.get(self._key(run))
            if earlier is not None:
                self.reused += 1
                found[run.index] = earlier
            else:
                found[run.index] = self._run(run, tally)
                self.kept.put(self._key(run), found[run.index])
            tally.runs += 1
            self.report(tally)
        self.agreement += [self._compared(run, found[run.index]) for run in runs]
        return [found[run.index] for run in runs]

    def _compared(self, run: Run, executed: RunResult) -> dict[str, Any]:
        config = inputs.located(run.config, run.sources.base)
        simulated = None
        if config.schedule == "frozen":
            simulated = simulate(config, inputs.load(run.sources), run.replication)
        return {"run": run.index, **compare(config, simulated, executed).document()}

    def _run(self, run: Run, tally: Tally) -> RunResult:
        before = tally.steps, tally.done_steps

        def progress(steps: int) -> None:
            tally.steps, tally.done_steps = (count + steps for count in before)
            self.report(tally)

        loaded = inputs.load(run.sources)
        config = inputs.located(run.config, run.sources.base)
        weights = self._weights_of(loaded)
        result = run_live(config, loaded, run.replication, weights, self.options, check=self.check, progress=progress)
        tally.done_steps = before[1] + config.steps
        gc.collect()  # threads and policies refer to each other, and with them caches and slots would stay
        return labelled(result, labels(self.options, self.device))

    def _weights_of(self, loaded: Inputs) -> Weights:
        """Those of the run before, if the model is the same."""
        key = loaded.shape, keys_of(loaded).table, loaded.trace.meta.router
        if self._weights is None or self._weights[0] != key:
            self._weights = None
            self._weights = key, weights_for(loaded, self.options)
        return self._weights[1]

    def _key(self, run: Run) -> str:
        parts = [run_key(run), run.config.labels.get(REPEAT, "0"), asdict(self.options), self.device, torch.__version__]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def described(options: Options) -> str:
    """The device in words, as the tables have it that are measured on it."""
    return describe(torch.device(options.device), threads=1)


def labels(options: Options, device: str) -> dict[str, str]:
    """What is measured, on what, when, and by which command: paths of this machine without their folders."""
    date, throttle = datetime.now(UTC).date().isoformat(), options.throttle
    link = f"MEASURED (real copies, {device}, {date})"
    if throttle is not None:
        speed = f"{throttle.bytes_per_second / 1e9:g} GB/s and {throttle.fixed_ns / 1e3:g} us a copy"
        link = f"ESTIMATED (real copies, each held back to a stated {speed}; {device}, {date})"
    command = shlex.join(["moesim", *map(_without_folders, sys.argv[1:])])
    return {
        "costs": f"MEASURED (live run, {device}, {date})",
        "link": link,
        "live": f"MEASURED ({device}, {date}, {command})",
    }


def _without_folders(word: str) -> str:
    """A word of a command, `--set costs=/a/b.json` among them, with its absolute path cut to the name."""
    before, equals, path = word.rpartition("=")
    return f"{before}{equals}{Path(path).name}" if Path(path).is_absolute() else word
