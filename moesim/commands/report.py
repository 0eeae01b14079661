"""`moesim report`: a results folder as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moesim.commands.terminal import bad_input


def report(
    results: Annotated[Path, typer.Argument(metavar="RESULTS", help="A folder that `moesim run` wrote.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The page [default: RESULTS/report.html].")] = None,
) -> None:
    """One self-contained HTML page: what was asked, what differs and what does not, figures, tables, configuration."""
    with bad_input():
        from moesim.errors import InputError, Problem
        from moesim.files import unwritable, write_aside
        from moesim.results import REPORT, Results

        problems = [Problem("--out", text) for text in (unwritable(out) if out else ())]
        try:
            page = Results.load(results).report()
        except InputError as error:
            problems = [*error.problems, *problems]
        if problems:
            raise InputError(problems)
        target = out or results / REPORT
        try:
            with write_aside(target) as aside:
                aside.write_text(page, encoding="utf-8")
        except OSError as error:
            raise InputError(Problem(str(target), f"cannot be written ({error.strerror})")) from error
    print(target)
