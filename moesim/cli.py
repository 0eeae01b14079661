"""The command line. Everything heavy is imported by the command that needs it, so that `--help` is instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moesim.commands import cache, capture, live, policies, profile, refactorize, regress, report, trace, validate
from moesim.commands.running import planned, show
from moesim.commands.terminal import JSON, bad_input, cpus, dump, stopping

app = typer.Typer(
    name="moesim",
    help="Which expert cache, prefetcher and batcher should an MoE server use, and how far is that from the best?",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)
trace_app = typer.Typer(help="Traces of routing and of arrivals.", no_args_is_help=True)
app.add_typer(trace_app, name="trace")
app.add_typer(policies.app, name="policies")


@app.callback(invoke_without_command=True)
def top(version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False) -> None:
    if version:
        from moesim import __version__

        print(f"moesim {__version__}")
        raise typer.Exit()


@app.command()
def run(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Experiment files (YAML).")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=V", help="Change a value; V is YAML and may be a list. Repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random stream.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; as many as there are processors.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Results folder [default: results/NAME]; with several files, what holds them.")
    ] = None,
    save: Annotated[
        list[str] | None,
        typer.Option(metavar="WHAT", help="Details to keep: steps, tokens, transfers. A single run keeps them anyway."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check conservation at every event.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, list the runs, and stop.")] = False,
    as_json: JSON = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table, no figures.")] = False,
    page: Annotated[bool, typer.Option("--report", help="Write report.html into the folder (moesim report).")] = False,
    timeline: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Some steps of a run, for Perfetto (docs/timeline.md).")
    ] = None,
    timeline_run: Annotated[int | None, typer.Option(metavar="N", help="Of which run [default: the first].")] = None,
    timeline_steps: Annotated[
        str | None, typer.Option(metavar="A:B", help="Steps A to B - 1 [default: the first 20 that are measured].")
    ] = None,
) -> None:
    """Run experiments, print their tables and write their results folders."""
    from moesim import runner

    details = [name.strip() for text in save or () for name in text.split(",")]
    with bad_input(), stopping():
        todo = runner.prepare(files, settings=settings or (), seed=seed, out=out, save=details)
        shown = runner.shown_steps(todo, timeline, timeline_run, timeline_steps)
        if dry_run:
            print(planned(todo, as_json))
            return
        done = []
        for job in todo:
            figures = not (as_json or quiet)
            calm = quiet or as_json
            done.append(
                runner.execute(job, jobs=jobs or cpus(), check=check, figures=figures, quiet=calm, report=page)
            )
            if shown is not None and timeline is not None:
                runner.write_timeline(job, done[-1], shown, timeline, check=check)
            if figures:
                show(done[-1])
                if timeline is not None:
                    print(f"Timeline: {timeline}")
    if as_json:
        print(dump({"experiments": [results.document() for results in done]}))


@app.command()
def schema(
    markdown: Annotated[bool, typer.Option("--markdown", help="As a page to read (docs/experiment-file.md).")] = False,
    regression: Annotated[bool, typer.Option("--regression", help="Of a regression file (moesim regress).")] = False,
) -> None:
    """The JSON schema of an experiment file, for editors."""
    if markdown and regression:
        raise typer.BadParameter("--markdown is a page of the experiment file's schema only")
    if markdown:
        from moesim.manual import experiment
        from moesim.manual.pages import linked

        print(linked(experiment.page()), end="")
        return
    if regression:
        from moesim.regression.file import regression_schema

        print(dump(regression_schema()))
        return
    from moesim.schema import experiment_schema

    print(dump(experiment_schema()))


app.command()(cache.cache)
app.command()(report.report)
app.command()(regress.regress)
app.command()(refactorize.refactorize)
app.command()(capture.capture)
app.command()(profile.profile)
app.command()(live.live)
app.command()(validate.validate)
trace_app.command()(trace.info)
trace_app.command()(trace.stats)
trace_app.command("import")(trace.import_trace)


def main() -> None:
    app()


if __name__ == "__main__":
    main()
