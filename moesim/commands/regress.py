"""`moesim regress`: experiments run small, their numbers held against committed baselines."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moesim.commands.terminal import JSON, bad_input, cpus, dump, stopping

if TYPE_CHECKING:
    from moesim.analysis.regression.numbers import Numbers, Verdict
    from moesim.regression.file import Suite
    from moesim.regression.suite import Finished

SUMMARY = "GITHUB_STEP_SUMMARY"


def regress(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Regression file (YAML).")] = Path("regression.yaml"),
    update: Annotated[
        bool, typer.Option("--update", help="Write the baselines anew, and say what has changed in them.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this experiment of the file. Repeatable.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page and the plots [default: results/regress].")
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; as many as there are processors.")] = None,
    init: Annotated[
        Path | None, typer.Option(metavar="EXPERIMENT", help="Write a regression file for an experiment, and stop.")
    ] = None,
    as_json: JSON = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing where nothing has changed.")] = False,
) -> None:
    """Run experiments, compare with committed baselines: exit code 1, a page and plots where a number changed.

    Where GITHUB_STEP_SUMMARY names a file, a summary in Markdown goes there.
    """
    if init is not None:
        _init(file, init, {"--update": update, "--only": bool(only), "--out": out is not None, "--json": as_json})
        return
    with bad_input(), stopping(resumes=False):
        from moesim.regression import artifacts, baselines
        from moesim.regression.file import read_suite

        folder = out or Path("results", "regress")
        if not update:
            artifacts.check_folder(folder)
        suite = read_suite(file, only or ())
        before = _baselines(suite, update)
        found = _run(suite, jobs or cpus(), quiet or as_json)
        stale = [name for name in baselines.known(suite.baselines) if name not in suite.names] if suite.whole else []
        verdicts = _verdicts(suite, found, before, stale)
        if update:
            _update(suite, verdicts, found, stale, as_json, quiet)
            return
        _compare(suite, verdicts, found, folder, as_json, quiet)
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(1)


def _init(file: Path, experiment: Path, others: Mapping[str, bool]) -> None:
    with bad_input():
        from moesim.errors import InputError, Problem
        from moesim.regression.starter import write_starter

        if given := [name for name, is_given in others.items() if is_given]:
            raise InputError(Problem("--init", f"writes a file and stops; leave out {', '.join(given)}"))
        write_starter(file, experiment)
    print(f"{file}\nNow: {_again(file, ())} --update, and commit both the file and the baselines.")


def _baselines(suite: Suite, update: bool) -> dict[str, Numbers | None]:
    """Of every experiment. Raises InputError with all that is wrong with any; an update replaces what is damaged."""
    from moesim.commands.terminal import Gather
    from moesim.regression import baselines

    gather = Gather()
    names = {check.name for check in suite.checks}
    baselines.check_files(suite.baselines, sorted(names), update)
    if suite.whole:
        names |= set(baselines.known(suite.baselines))
    found = {name: gather(lambda name=name: baselines.read(suite.baselines, name)) for name in sorted(names)}  # type: ignore[misc]
    if not update:
        gather.check()
    return found


def _run(suite: Suite, jobs: int, quiet: bool) -> dict[str, Finished]:
    """Raises InputError with the mistakes of all experiments together."""
    from moesim.commands.terminal import Gather
    from moesim.regression.suite import run

    gather = Gather()
    found = {check.name: gather(lambda check=check: run(check, jobs, quiet)) for check in suite.checks}  # type: ignore[misc]
    gather.check()
    return {name: done for name, done in found.items() if done is not None}


def _verdicts(
    suite: Suite, found: dict[str, Finished], before: dict[str, Numbers | None], stale: Sequence[str]
) -> list[Verdict]:
    from moesim.analysis.regression.numbers import failed, judge, without_experiment

    verdicts = []
    for check in suite.checks:
        done, old = found[check.name], before[check.name]
        if done.numbers is None:
            verdicts.append(failed(check.name, check.about, check.rules, old, done.error, done.trace))
        else:
            verdicts.append(judge(check.name, check.about, check.rules, done.numbers, old, done.labels))
    left = ((name, before[name]) for name in stale)
    return verdicts + [without_experiment(name, numbers) for name, numbers in left if numbers is not None]


def _compare(
    suite: Suite, verdicts: list[Verdict], found: dict[str, Finished], folder: Path, as_json: bool, quiet: bool
) -> None:
    from moesim import __version__
    from moesim.analysis.regression import words
    from moesim.analysis.regression.page import Asked
    from moesim.regression import artifacts

    names = () if suite.whole else tuple(check.name for check in suite.checks)
    asked = Asked(str(suite.source), _again(suite.source, names), str(suite.baselines), __version__)
    document = artifacts.write(folder, verdicts, found, asked)
    if path := os.environ.get(SUMMARY):
        try:
            with open(path, "a", encoding="utf-8") as summary:
                summary.write(words.markdown(verdicts, artifacts.PAGE, asked.command))
        except OSError as error:
            print(f"moesim: {SUMMARY} ({path}) cannot be written: {error.strerror}", file=sys.stderr)
    if as_json:
        print(dump(document))
    elif not quiet or not document["passed"]:
        print("\n".join([*words.terminal(verdicts, str(folder), asked.command), f"Page: {document['page']}"]))


def _update(
    suite: Suite, verdicts: list[Verdict], found: dict[str, Finished], stale: Sequence[str], as_json: bool, quiet: bool
) -> None:
    """Write the baselines, all or none: none where an experiment failed."""
    from moesim.analysis.regression import words
    from moesim.regression import baselines

    if broken := {name: done.error for name, done in found.items() if done.numbers is None}:
        for name, error in broken.items():
            print(f"moesim: {name} failed: {error}", file=sys.stderr)
        print("moesim: no baselines were written", file=sys.stderr)
        raise typer.Exit(1)
    told = {verdict.name: list(words.lines_of(verdict)) for verdict in verdicts}
    written = []
    for name, done in found.items():
        if done.numbers is not None and baselines.write(suite.baselines, name, done.numbers):
            written.append(name)
    for name in stale:
        baselines.remove(suite.baselines, name)
    if as_json:
        document = {"baselines": str(suite.baselines), "written": written, "removed": list(stale)}
        print(dump(document | {"experiments": words.document(verdicts)}))
    elif not quiet:
        print("\n".join(_updated(suite, told, written, stale)))


def _updated(suite: Suite, told: dict[str, list[str]], written: Sequence[str], stale: Sequence[str]) -> list[str]:
    lines = []
    for name, said in told.items():
        state = "removed" if name in stale else "written" if name in written else "as before"
        lines += [f"{state:9} {suite.baselines / name}.csv, .yaml", *(f"    {line}" for line in said)]
    changed = len(written) + len(stale)
    last = f"Look at the diff of {suite.baselines} and commit it." if changed else "Nothing has changed."
    return [*lines, "", last]


def _again(file: Path, names: Sequence[str]) -> str:
    """The command by which the same is done again."""
    words = ["moesim", "regress", *[str(file)] * (file != Path("regression.yaml"))]
    return shlex.join([*words, *(word for name in names for word in ("--only", name))])
