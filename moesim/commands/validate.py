"""`moesim validate`: the simulator held against a live run of the same experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.commands.terminal import JSON, bad_input, cpus, dump, stopping, write_texts

if TYPE_CHECKING:
    from moesim.analysis.validate import Setting
    from moesim.results import Results
    from moesim.runner import Job

DEFAULT = "step_mean"
SIMULATED = "simulated"


def validate(
    experiment: Annotated[Path, typer.Argument(help="Experiment file (YAML).")],
    measured: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Results of moesim live, of the same experiment; or a file in there.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=V", help="Change a value; V is YAML and may be a list. Repeatable."),
    ] = None,
    limit: Annotated[
        str, typer.Option(metavar="10%", help="Most that a regime's median error may be. [default: the file's, or 10%]")
    ] = "",
    metrics: Annotated[
        str, typer.Option(metavar="NAME,...", help="What the limit holds for: step_mean, step_p95, tpot_mean, ...")
    ] = DEFAULT,
    fit: Annotated[
        Path | None,
        typer.Option(metavar="TABLE.json", help="Fit this cost table to the settings that calibrate, and stop."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; as many as there are processors.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder. [default: results/validate/NAME]")] = None,
    as_json: JSON = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table, no figure.")] = False,
) -> None:
    """Simulate an experiment and compare it with a live run of it; exit code 1 beyond the limit."""
    with bad_input(), stopping():
        from moesim import runner
        from moesim.analysis.validate import METRICS, compare, document
        from moesim.commands.terminal import Gather
        from moesim.errors import Problem, unknown
        from moesim.results import Results

        gather = Gather()
        chosen = [name.strip() for name in metrics.split(",")]
        wrong = [name for name in chosen if name not in METRICS]
        gather.problems += [Problem("--metrics", unknown("metric", name, METRICS)) for name in wrong]
        given = gather(lambda: _limit(limit) if limit else None)
        theirs = gather(lambda: Results.load(measured.parent if measured.is_file() else measured))
        gather(lambda: theirs.steps if theirs else None)
        job = gather(lambda: _job(experiment, settings or [], out, fit))
        gather.check()
        assert theirs is not None and job is not None
        folder = job.folder.parent
        ours = runner.execute(job, jobs=jobs or cpus(), figures=False, quiet=quiet or as_json)
        found = compare(ours, theirs)
        if fit is not None:
            text = _fit(fit, found, ours, theirs)
            print(dump({"table": str(fit), "fitted": text}) if as_json else text)
            return
        most = given if given is not None else min(c.validation.limit if c.validation else 0.1 for c in ours.configs)
        shown = document(found, chosen, most)
        text = _write(folder, found, chosen, most, ours, theirs, figure=not quiet)
    if as_json:
        print(dump({"name": ours.name, "measured": str(measured), "folder": str(folder), **shown}))
    elif not quiet:
        print(f"{text}\nFiles: {folder}")
    if shown["failures"]:
        if not as_json:
            for line in shown["failures"]:
                typer.echo(f"moesim: {line}", err=True)
        raise typer.Exit(1)


def _job(experiment: Path, settings: list[str], out: Path | None, fit: Path | None) -> Job:
    """What is to be simulated, into a folder inside that of the comparison: all settings, or those to fit to."""
    from dataclasses import replace

    from moesim import runner
    from moesim.errors import InputError
    from moesim.results import check_folder

    job = runner.prepare([experiment], settings=settings, save=["steps"], out=out / SIMULATED if out else None)[0]
    if out is None:
        job = replace(job, folder=Path("results", "validate", job.plan.name, SIMULATED))
        if problems := check_folder(job.folder):
            raise InputError(problems)
    if fit is not None:
        job = replace(job, plan=job.plan.of_role("calibrate"))
        _told_apart(job, fit)
    return job


def _told_apart(job: Job, fit: Path) -> None:
    """Raises InputError where the table that is to be fitted is not the one that the settings are simulated with."""
    from moesim.errors import InputError, Problem
    from moesim.hardware.files import CostFile, read
    from moesim.inputs import resolve

    given, _ = read(CostFile, "kernels", fit, "--fit")
    for run in job.plan.runs():
        used, _ = read(CostFile, "kernels", resolve(run.config.costs, run.sources.base), "costs")
        if used != given:
            raise InputError(Problem("--fit", f"{fit} is not the table of the experiment, {run.config.costs}"))


def _fit(table: Path, found: list[Setting], ours: Results, theirs: Results) -> str:
    """Change the table by what its simulation lacks in the settings that calibrate; what was done, in words."""
    from moesim.hardware.costs import load_costs
    from moesim.hardware.files import CostFile, read
    from moesim.hardware.fitted import KEY, LAYER, fit, write_fit

    row = ours.summary.iloc[0]
    layers = round(row["layer_events"] / row["steps"])
    file, _ = read(CostFile, "kernels", table, "--fit")
    known = {constant.name: constant.value for constant in file.constants}
    rows = []
    for setting in found:
        simulated, measured = setting.of("step_mean")
        loaded = setting.loaded
        already = known.get(LAYER, 0) * layers + known.get(KEY, 0) * loaded
        rows.append((measured, measured - simulated + already, loaded))
    layer, key = fit(layers, rows)
    names = "; ".join(setting.name for setting in found)
    live = theirs.summary["label_live"].iloc[0]
    source = f"fitted to mean step times of live runs of {len(found)} settings ({names}): {live}"
    layer, key = write_fit(table, layer, key, source)
    load_costs(table, shape=file.shape)
    return f"{table}: {layer:,} ns a layer and {key:,} ns a loaded key, fitted to {names}"


def _limit(text: str) -> float:
    from moesim.errors import InputError, Problem

    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 < value <= 10:
        raise InputError(Problem("--limit", f"{text!r} is no limit; write 10%, or 0.1"))
    return value


def _write(
    folder: Path,
    found: list[Setting],
    metrics: list[str],
    limit: float,
    ours: Results,
    theirs: Results,
    *,
    figure: bool,
) -> str:
    """validation.csv, validation.json, validation.txt and the scatter figure; the text."""
    import matplotlib
    import pandas as pd

    from moesim.analysis.plots import STYLE, save
    from moesim.analysis.validate import document, row
    from moesim.analysis.validation_table import render, scatter

    costs, link = (ours.summary[f"label_{kind}"].iloc[0] for kind in ("costs", "link"))
    live, copies = (theirs.summary[f"label_{kind}"].iloc[0] for kind in ("live", "link"))
    labels = [f"{ours.name}: simulated with costs {costs}, link {link}", f"measured: {live}; link {copies}"]
    text = render(found, metrics, limit, labels)
    rows = pd.DataFrame([row(setting) for setting in found])
    texts = {
        "validation.txt": text,
        "validation.csv": rows.to_csv(index=False),
        "validation.json": dump(document(found, metrics, limit)) + "\n",
    }
    write_texts(folder, texts)
    if figure:
        with matplotlib.rc_context(STYLE):
            save(scatter(found, "\n".join(labels)), folder, "validation")
    return text
