"""Running the experiments of a regression file, and reading their metrics off."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moesim import inputs, summary
from moesim.analysis.regression.numbers import SEPARATOR, Numbers, RunNumbers
from moesim.analysis.regression.rules import SUMS, Number, Rule
from moesim.errors import InputError, Problem, unknown
from moesim.grid import CASE
from moesim.pool import Pool, most_steps
from moesim.progress import shown
from moesim.regression.file import Check
from moesim.settle import settle

if TYPE_CHECKING:
    import pandas as pd

    from moesim.plan import Plan, Run
    from moesim.sim import RunResult

LINES_OF_A_TRACE = 12


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of an experiment: its numbers, the text of its summary and what its runs were of; or an error."""

    numbers: Numbers | None
    summary: str = ""
    labels: tuple[str, ...] = ()
    error: str = ""
    trace: str = ""


def run(check: Check, jobs: int = 1, quiet: bool = False) -> Finished:
    """Simulate all runs of an experiment. InputError for costs outside their range and metrics that are none; what a
    policy raises is told, not raised."""
    runs = check.plan.runs()
    try:
        with shown(check.name, len(runs), sum(map(most_steps, runs)), quiet) as progress:
            pool = Pool(max(1, jobs), report=progress, compiled=False)  # guarded is what the policies' own code does
            found = settle(runs, pool.execute(runs))
    except (InputError, BrokenProcessPool):
        raise
    except Exception as error:
        said = str(error).strip() or "(no message)"
        return Finished(None, error=f"{type(error).__name__}: {said}", trace=_trace(error))
    return _finished(check, runs, found)


def _trace(error: Exception) -> str:
    """The end of the traceback, of the process that the run was in."""
    elsewhere = type(error.__cause__).__name__ == "_RemoteTraceback"
    text = str(error.__cause__).strip().strip('"') if elsewhere else "".join(traceback.format_exception(error))
    return "\n".join(text.strip().splitlines()[-LINES_OF_A_TRACE:])


def _finished(check: Check, runs: Sequence[Run], found: Sequence[RunResult]) -> Finished:
    from moesim.analysis.gap import add_gaps

    rows = summary.rows(runs, found)
    frame = add_gaps(summary.read_csv(summary.to_csv(rows)))
    gaps: list[dict[Any, Any]] = frame[[column for column in frame.columns if column not in rows[0]]].to_dict("records")
    text = summary.to_csv([row | more for row, more in zip(rows, gaps, strict=True)])
    frame = summary.read_csv(text)
    columns = [column for column in frame.columns if column.startswith("label_")]
    labels = dict.fromkeys(value for column in columns for value in frame[column] if value)
    return Finished(numbers_of(check.plan, runs, frame, check.rules, check.name), text, tuple(labels))


def numbers_of(plan: Plan, runs: Sequence[Run], frame: pd.DataFrame, rules: Mapping[str, Rule], name: str) -> Numbers:
    """The metrics of all runs, with what they were of. `frame`: the summary. Raises InputError for unknown metrics."""
    values = {metric: _column(metric, frame) for metric in rules}
    texts = summary.text_columns(list(frame.columns))
    if wrong := [metric for metric, column in values.items() if column is None]:
        ours = {*SUMS, *(column for column in frame.columns if column not in texts)}
        raise InputError([Problem(f"experiments.{name}: metrics", unknown("metric", metric, ours)) for metric in wrong])
    points = _names(plan)
    units = frame["cluster"].tolist() if "cluster" in frame.columns else [-1] * len(runs)
    found = []
    for run, unit in zip(runs, units, strict=True):
        of_run = {metric: column[run.index] for metric, column in values.items() if column}
        found.append(RunNumbers(points[id(run.config)], run.replication, of_run, unit))
    common, own = _settings(plan)
    of_points = {points[id(config)]: settings for config, settings in zip(plan.configs, own, strict=True)}
    return Numbers({run.name: run for run in found}, _inputs(runs), common, of_points)


def _column(metric: str, frame: pd.DataFrame) -> list[Number] | None:
    """A metric of every run; integers stay integers. None where it is none."""
    names = SUMS.get(metric, (metric,))
    if any(name not in frame.columns or name in summary.text_columns(list(frame.columns)) for name in names):
        return None
    columns = [frame[name].tolist() for name in names]
    rows = [[int(v) if isinstance(v, bool) else v for v in row] for row in zip(*columns, strict=True)]
    if any(isinstance(value, str) for row in rows for value in row):
        return None
    return [sum(row) for row in rows]


def _names(plan: Plan) -> dict[int, str]:
    """What the points are called, by their identity: the case, and each axis with its label."""
    found: dict[int, str] = {}
    for config in plan.configs:
        told = {axis: label for axis, label in config.labels.items() if not _said(axis, label, config.labels)}
        parts = [label if axis == CASE else f"{axis}={label}" for axis, label in told.items()]
        base = name = SEPARATOR.join(parts) or "one point"
        count = 1
        while name in found.values():
            count += 1
            name = f"{base} ({count})"
        found[id(config)] = name
    return found


def _said(axis: str, label: str, labels: Mapping[str, str]) -> bool:
    """Whether an axis inside another says what the other's label says: `cache=lookahead level=step`."""
    outer, _, key = axis.rpartition(".")
    return f"{key}={label}" in labels.get(outer, "").split(" ")


def _inputs(runs: Sequence[Run]) -> dict[str, str]:
    found = {}
    for one in runs:
        for kind, digest in inputs.digests(inputs.load(one.sources)).items():
            found[f"{kind} {getattr(one.sources, kind)}"] = digest
    return found


def _settings(plan: Plan) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the points say beyond defaults: in common, and each by itself. A key that is new to moesim changes none."""
    left_out = {"labels", "name", "question", "preset"}
    trees = [
        config.model_dump(mode="json", exclude=left_out, exclude_none=True, exclude_defaults=True)
        for config in plan.configs
    ]
    common = _common(trees)
    return common, [_beyond(tree, common) for tree in trees]


def _common(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = trees
    found: dict[str, Any] = {}
    for key, value in first.items():
        if any(key not in other for other in others):
            continue
        values = [other[key] for other in others]
        if all(other == value for other in values):
            found[key] = value
        elif all(isinstance(other, Mapping) for other in (value, *values)) and (inner := _common([value, *values])):
            found[key] = inner
    return found


def _beyond(tree: Mapping[str, Any], common: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if key not in common:
            found[key] = value
        elif value != common[key]:
            found[key] = _beyond(value, common[key])
    return found
