"""`moesim live`: experiments executed by the live engine (docs/live.md)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.commands.running import planned, show
from moesim.commands.terminal import JSON, bad_input, dump, stopping
from moesim.commands.torch_extra import needs_torch

if TYPE_CHECKING:
    from moesim.live.engine.machine import Options


ROLES = ("calibrate", "judge")


def live(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Experiment files (YAML).")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=V", help="Change a value; V is YAML and may be a list. Repeatable."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    repeats: Annotated[int, typer.Option(min=1, max=1000, help="Run every point so many times, in turns.")] = 1,
    throttle: Annotated[
        str | None,
        typer.Option(metavar="SPEED", help="Hold copies back to so many bytes a second, such as 12GB."),
    ] = None,
    throttle_fixed: Annotated[
        float, typer.Option(metavar="US", min=0, help="With --throttle: microseconds of each copy beside its bytes.")
    ] = 0.0,
    experts: Annotated[
        str, typer.Option(help="looped, grouped, or auto: grouped on a GPU. How an expert kernel runs its group.")
    ] = "auto",
    role: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Only settings that calibrate, or judge (docs/validation.md).")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="A model of moesim refactorize: its weights, its routes, with --prompts."),
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With --model: the prompts to serve (JSONL, docs/capture.md).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every random stream.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Results folder [default: results/live/NAME]; with several files, what holds them."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare every slot and every layer with the full weights; slow.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, list the runs, and stop.")] = False,
    as_json: JSON = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, no table, no figures.")] = False,
    page: Annotated[bool, typer.Option("--report", help="Write report.html into the folder (moesim report).")] = False,
) -> None:
    """Run experiments for real: policies and schedule as in `moesim run`, with real copies and kernels in torch."""
    with bad_input(), stopping():
        options = _options(device, throttle, throttle_fixed, experts, role, model, prompts)
        from moesim.live.engine import campaign
        from moesim.live.engine.differences import told

        given = {"settings": settings or (), "seed": seed, "out": out}
        todo = campaign.prepare(files, options, repeats=repeats, role=role, **given)
        if dry_run:
            print(planned(todo, as_json))
            return
        calm, done = quiet or as_json, []
        for job in todo:
            done.append(campaign.execute(job, options, check=check, figures=not calm, quiet=calm, report=page))
            if not calm:
                show(done[-1])
                print(told(campaign.agreement_of(done[-1])))
    agreement = [campaign.agreement_of(results) for results in done]
    if as_json:
        found = [results.document() | {"agreement": a} for results, a in zip(done, agreement, strict=True)]
        print(dump({"experiments": found}))
    if any(run["broken"] for runs in agreement for run in runs):
        if calm:
            print(told([run for runs in agreement for run in runs]), file=sys.stderr)
        raise typer.Exit(1)


def _options(
    device: str,
    throttle: str | None,
    fixed: float,
    experts: str,
    role: str | None,
    model: Path | None,
    prompts: Path | None,
) -> Options:
    """Raises InputError with every option that makes no sense, and where torch is not installed."""
    from moesim.errors import InputError, Problem, unknown
    from moesim.experiment import parse_bytes

    problems, speed = [], None
    if throttle is not None:
        try:
            speed = parse_bytes(throttle)
        except ValueError as error:
            problems.append(Problem("--throttle", str(error)))
        if speed == 0:
            problems.append(Problem("--throttle", "0 is no speed; a link carries 1 byte a second or more"))
    elif fixed:
        problems.append(Problem("--throttle-fixed", "belongs to --throttle, which is not given"))
    forms = {"auto": None, "looped": False, "grouped": True}
    if experts not in forms:
        problems.append(Problem("--experts", unknown("form", experts, forms)))
    if role not in (None, *ROLES):
        problems.append(Problem("--role", unknown("role", str(role), ROLES)))
    if (model is None) != (prompts is None):
        given, missing = ("--model", "--prompts") if prompts is None else ("--prompts", "--model")
        problems.append(Problem(given, f"needs {missing}: a model computes the routes of what it is given to serve"))
    if problems:
        raise InputError(problems)
    needs_torch("live")
    from moesim.live.copies import Throttle
    from moesim.live.engine.machine import Options

    held = Throttle(int(str(speed)), round(fixed * 1000)) if speed is not None else None
    if model is None or prompts is None:
        return Options(device, held, forms[experts])
    from moesim.live.engine.real import digest_of

    digest = digest_of(model, prompts)
    return Options(device, held, forms[experts], model=str(model), prompts=str(prompts), digest=digest)
