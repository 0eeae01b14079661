"""What commands that run experiments say: what is planned, and what came out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moesim.commands.terminal import dump

if TYPE_CHECKING:
    from moesim.results import Results
    from moesim.runner import Job

READABLE = 60  # lines of a table that a person reads at once


def planned(jobs: list[Job], as_json: bool) -> str:
    """What would run, as text or as JSON."""
    if as_json:
        return dump(
            {
                "experiments": [
                    {
                        "name": job.plan.name,
                        "folder": str(job.folder),
                        "runs": len(job.plan.runs()),
                        "points": [{"labels": c.labels, "experiment": c.experiment()} for c in job.plan.configs],
                    }
                    for job in jobs
                ]
            }
        )
    lines = []
    for job in jobs:
        runs, points = len(job.plan.runs()), len(job.plan.configs)
        lines.append(f"{job.plan.name}: {points} points, {runs} runs -> {job.folder}")
        lines += ["  " + (", ".join(f"{k}: {v}" for k, v in c.labels.items()) or "one point") for c in job.plan.configs]
    return "\n".join(lines)


def show(results: Results) -> None:
    """The table for a person, or its digest where it is long, and where the files are."""
    from rich.console import Console

    from moesim.analysis import digest, layout, table
    from moesim.results import TABLE

    console = Console()
    width = layout.width_of(console)
    lines = table.lines(results, width)
    whole = len(lines) <= READABLE
    layout.show(lines if whole else digest.lines(results, width), console)
    if not whole:
        text = f"\nThe table of all policies ({len(lines)} lines): {results.folder / TABLE}"
        console.print(text, highlight=False, markup=False, soft_wrap=True)
    console.print(f"\nResults: {results.folder}", highlight=False, markup=False, soft_wrap=True)
