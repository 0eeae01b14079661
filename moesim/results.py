"""The results folder of an experiment: written whole or not at all, and read back (docs/results.md).

summary.csv (a row per run), table.txt (for a person), requests.parquet; steps.parquet, tokens.parquet and
transfers.parquet where saved; resolved.yaml (every point as it ran, digests of all inputs), and run.json, the only file
that differs between equal runs but for the report, which quotes its command.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moesim import inputs, stored, summary
from moesim.errors import InputError, Problem
from moesim.files import why_not_in

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from moesim.analysis.axes import Plots
    from moesim.analysis.configurations import Configuration
    from moesim.experiment import RunConfig
    from moesim.plan import Plan, Run
    from moesim.sim import RunResult

SUMMARY, TABLE, REQUESTS = "summary.csv", "table.txt", "requests.parquet"
RESOLVED, RUN, REPORT = "resolved.yaml", "run.json", "report.html"
DETAILS = ("steps", "tokens", "transfers")
MARK = "# moesim results: every point of the experiment as it ran, and the sha256 of what it read\n"


class Results:
    """A results folder. Tables are read when first asked for; each is a pandas DataFrame.

    `runs`, `means()` and `latencies` are tidy, in ms and MB, with labels as columns; `summary`, `requests`, `steps` and
    `tokens` are the files as they were written, in ns and bytes. `plot` draws, `where` chooses (docs/python.md). A file
    that is damaged raises InputError when it is read.
    """

    _only: frozenset[int] | None = None  # numbers of the runs that `where` has left

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @classmethod
    def load(cls, folder: Path | str) -> Results:
        """The results in a folder. Raises InputError where it is none."""
        if not is_results(folder := Path(folder)):
            what = (
                "is no results folder: it has no" if folder.is_dir() else "there is no such folder; expected one with"
            )
            raise InputError(Problem(str(folder), f"{what} {SUMMARY} and {RESOLVED}"))
        return cls(folder)

    def __repr__(self) -> str:
        if self._only is None:
            return f"Results({str(self.folder)!r})"
        return f"Results({str(self.folder)!r}).where(...) with {len(self._only)} runs"

    def _repr_html_(self) -> str:
        from moesim.analysis.report.card import of_results

        return of_results(self)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """A row per run; times in ns, sizes in bytes (docs/results.md: the columns)."""
        found = self._all_runs
        return found if self._only is None else found[found["run"].isin(self._only)]

    @cached_property
    def _all_runs(self) -> pd.DataFrame:
        return stored.runs(self.folder / SUMMARY)

    @cached_property
    def requests(self) -> pd.DataFrame:
        """A row per request of every run, with its latencies; times in ns, -1 where it did not happen."""
        return self._table("requests")

    # -- tidy: labels as columns, units in the names

    @cached_property
    def runs(self) -> pd.DataFrame:
        """A row per run: its labels (policy, scope, sizes, axes ...), then counters and metrics.

        Times are in ms, sizes in MB (10^6 bytes) or GB, shares between 0 and 1: what is `ttft_p50_ns` and
        `moved_bytes_per_output_token` in `summary` is `ttft_p50_ms` and `moved_mb_per_output_token` here.
        """
        from moesim.analysis import frames

        return frames.runs(self.summary, self.shown_configurations())

    @cached_property
    def latencies(self) -> pd.DataFrame:
        """A row per measured request that was answered: labels, lengths in tokens, latencies in ms."""
        from moesim.analysis import frames

        return frames.requests(self.requests, self.shown_configurations())

    def means(self, *metrics: str) -> pd.DataFrame:
        """A row per configuration and metric: the labels that differ, mean, low and high of the 95 % interval, unit.

        metrics: by default "time" and "misses"; names are those of `moesim.compare`. Raises InputError for others.
        """
        from moesim.analysis import frames

        return frames.means(self.shown_configurations(), self.configurations, metrics or ("time", "misses"))

    def where(self, **labels: Any) -> Results:
        """The configurations whose labels have these values, or one of these: `where(case="x", scope="global")`.

        `__` stands for a dot: `where(traffic__rate=[2, 4])`. Baselines and oracles stay those of all the results, so
        that a difference does not change with what is shown. Raises InputError with every mistake.
        """
        from moesim.analysis import frames

        kept = frames.chosen(self.shown_configurations(), labels)
        found = type(self)(self.folder)
        found.__dict__ |= {name: vars(self)[name] for name in ("_all_runs", "configurations") if name in vars(self)}
        found._only = frozenset(int(run) for c in kept for run in c.runs["run"])
        return found

    @property
    def plot(self) -> Plots:
        """Plots on matplotlib axes: `plot()`, `plot.policies()`, `plot.against(x)`, `plot.difference(x)`, `plot.gap()`,
        `plot.parts()`, `plot.requests()`; each takes `ax` and returns it."""
        from moesim.analysis.axes import Plots

        return Plots(self)

    def figures(self) -> dict[str, Figure]:
        """The figures that a run writes, by the names of their files: several panels each, with notes."""
        from moesim.analysis.plots import all_figures

        return all_figures(self.summary)

    @cached_property
    def configurations(self) -> list[Configuration]:
        """The runs by point of the grid, those of its replications together; also those that `where` has left out."""
        from moesim.analysis.configurations import read

        return read(self._all_runs)

    def shown_configurations(self) -> list[Configuration]:
        """The configurations that `where` has left; all of them where it was not called."""
        if self._only is None:
            return self.configurations
        return [c for c in self.configurations if int(c.runs["run"].iloc[0]) in self._only]

    @property
    def partial(self) -> bool:
        """Whether `where` has left some of the runs out."""
        return self._only is not None

    # -- the files as they were written

    @cached_property
    def steps(self) -> pd.DataFrame:
        """A row per step of every run; there only when it was saved (`--save steps`, or a single run)."""
        return self._table("steps")

    @cached_property
    def tokens(self) -> pd.DataFrame:
        """A row per output token of every run; there only when it was saved (`--save tokens`, or a single run)."""
        return self._table("tokens")

    @cached_property
    def transfers(self) -> pd.DataFrame:
        """A row per copy on the link of every run; there only when saved (`--save transfers`, or a single run)."""
        return self._table("transfers")

    @cached_property
    def configs(self) -> list[RunConfig]:
        """The points of the grid, as `resolved.yaml` has them."""
        from moesim.experiment import RunConfig

        points = self.resolved["points"]
        return [RunConfig.model_validate({**point["experiment"], "labels": point["labels"]}) for point in points]

    @property
    def name(self) -> str:
        return self.configs[0].name

    @cached_property
    def digests(self) -> dict[str, dict[str, str]]:
        """sha256 of each input: kind -> name as in the experiment -> digest."""
        return self.resolved["inputs"]

    def table(self) -> str:
        """Every policy of every case and memory size, at most 100 columns wide: the text of `table.txt`."""
        from moesim.analysis.table import render

        return render(self)

    def digest(self) -> str:
        """The table in short, a row per case and memory size: its best policy, and what it is worth."""
        from moesim.analysis.digest import render

        return render(self)

    def report(self) -> str:
        """All of it as one HTML page that opens without a network (docs/report.md).

        Raises InputError with every damaged file.
        """
        from moesim.analysis.report import render

        problems: list[Problem] = []
        for part in ("summary", "resolved", "record"):
            try:
                getattr(self, part)
            except InputError as error:
                problems += error.problems
        if problems:
            raise InputError(problems)
        return render(self)

    @cached_property
    def resolved(self) -> dict[str, Any]:
        """What `resolved.yaml` holds: version, digests of the inputs, every point as it ran."""
        return stored.resolved(self.folder / RESOLVED)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What `run.json` holds: command, dates, versions, wall times; nothing where there is none."""
        return stored.record(self.folder / RUN)

    def _table(self, name: str) -> pd.DataFrame:
        path = self.folder / f"{name}.parquet"
        if not path.is_file():
            raise InputError(Problem(str(path), f"was not saved; run again with --save {name}"))
        found = stored.table(path)
        return found if self._only is None else found[found["run"].isin(self._only)]

    def document(self) -> dict[str, Any]:
        """What `--json` prints: name, folder, digests of the inputs, and the rows of the summary."""
        rows = json.loads(self.summary.to_json(orient="records", double_precision=15))
        for row in rows:
            row |= dict.fromkeys(summary.unmeasured(row), "overloaded" if row.get("overloaded") else "cut off")
        return {"name": self.name, "folder": str(self.folder), "inputs": self.digests, "runs": rows}


def is_results(folder: Path) -> bool:
    """Whether a folder is one that moesim wrote."""
    return (folder / SUMMARY).is_file() and (folder / RESOLVED).is_file()


def check_folder(folder: Path) -> list[Problem]:
    """What stands against writing results there: only results, or nothing, may be replaced."""
    if folder.is_dir() and (is_results(folder) or not any(folder.iterdir())):
        return []
    if not folder.exists():
        why = why_not_in(folder)
        return [Problem(str(folder), f"cannot be made: {why}")] if why else []
    return [Problem(str(folder), "holds something else than results; give another folder with --out")]


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give a new folder beside `folder`; put it in its place when the block ends, remove it when the block fails."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    aside.mkdir()
    try:
        yield aside
        if folder.exists():
            folder.rename(old)
        try:
            aside.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)  # what was there stays there
            raise
    finally:
        for left in (aside, old) if folder.exists() else (aside,):
            shutil.rmtree(left, ignore_errors=True)


def write(folder: Path, plan: Plan, runs: Sequence[Run], results: Sequence[RunResult], save: Sequence[str]) -> None:
    """Write everything but run.json into an existing folder. `save` names the details to keep, of `DETAILS`."""
    import pandas as pd

    from moesim.analysis.gap import add_gaps
    from moesim.analysis.metrics import request_metrics
    from moesim.analysis.table import render

    rows = summary.rows(runs, results)
    frame = add_gaps(summary.read_csv(summary.to_csv(rows)))
    gaps: list[dict[Any, Any]] = frame[[column for column in frame.columns if column not in rows[0]]].to_dict("records")
    text = summary.to_csv([row | more for row, more in zip(rows, gaps, strict=True)])
    (folder / SUMMARY).write_text(text, encoding="utf-8")
    (folder / TABLE).write_text(render(summary.read_csv(text)), encoding="utf-8")
    requests = pd.concat([_frame(run, result.requests) for run, result in zip(runs, results, strict=True)])
    _write_table(folder / REQUESTS, request_metrics(requests.reset_index(drop=True)))
    for name in save:
        tables = [getattr(result, name, None) for result in results]
        if all(tables):
            frames = [_frame(run, table) for run, table in zip(runs, tables, strict=True) if table]
            _write_table(folder / f"{name}.parquet", pd.concat(frames, ignore_index=True))
    (folder / RESOLVED).write_text(resolved(plan, runs), encoding="utf-8")


def _frame(run: Run, columns: Mapping[str, Any]) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    length = len(next(iter(columns.values())))
    numbers = {"run": run.index, "replication": run.replication}
    return pd.DataFrame({name: np.full(length, number, np.int32) for name, number in numbers.items()} | dict(columns))


def _write_table(path: Path, frame: pd.DataFrame) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata(None)
    pq.write_table(table, path, compression="zstd")


def resolved(plan: Plan, runs: Sequence[Run]) -> str:
    """The text of resolved.yaml: version, inputs with their digests, and each point with its labels."""
    import yaml

    from moesim import __version__

    used: dict[str, dict[str, str]] = {}
    for run in runs:
        for kind, digest in inputs.digests(inputs.load(run.sources)).items():
            used.setdefault(kind, {})[str(getattr(run.sources, kind))] = digest
    points = [{"labels": dict(config.labels), "experiment": config.experiment()} for config in plan.configs]
    document = {"moesim": __version__, "inputs": used, "points": points}
    return MARK + yaml.dump(document, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=120)


def _dumper() -> Any:
    import yaml

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    return Plain
