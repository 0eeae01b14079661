"""What was asked, of which machine, model and trace, and which of it was measured."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from moesim.analysis.configurations import Configuration, text
from moesim.analysis.report.html import Html, join, tag

PROGRAM = "moesim"
LABEL = "label_"
NAMES = {
    "costs": "kernel times",
    "link": "link",
    "routing": "routing and model",
    "kv": "KV memory",
    "arrivals": "arrivals",
}
SCHEDULES = {
    "frozen": "frozen: every policy replays the same recorded steps, so that misses, bounds and gaps compare exactly",
    "free": "free: each policy forms its own batches; latency and throughput are judged here, an oracle is no bound",
}


def command(record: Mapping[str, Any]) -> str:
    """The command that was given, the program by its name; "" where it was called from Python or is not known."""
    program, *words = record.get("command") or [""]
    name = PurePath(program.replace("\\", "/")).name
    return shlex.join([PROGRAM, *words]) if name in (PROGRAM, "cli.py", "__main__.py", f"{PROGRAM}.exe") else ""


def head(points: Sequence[Mapping[str, Any]], record: Mapping[str, Any], runs: int) -> Html:
    """Name, question, how much of it there is, and the command."""
    experiment = points[0]["experiment"]
    question = experiment.get("question")
    amount = [several(len(points), "configuration"), several(runs, "run")]
    given = command(record)
    return tag(
        "header",
        tag("p", PROGRAM, " · report", class_="kind"),
        tag("h1", experiment["name"]),
        tag("p", question, class_="question") if question else None,
        tag("p", " · ".join([*amount, *_made(record)]), class_="made"),
        tag("pre", tag("code", "$ ", given), class_="command") if given else None,
    )


def several(count: int, what: str) -> str:
    return f"{count:,} {what}{'s' * (count != 1)}"


def _made(record: Mapping[str, Any]) -> list[str]:
    """When, how long it took, and with which version."""
    found = []
    if begun := str(record.get("begun", ""))[:10]:
        found.append(begun)
    if seconds := record.get("wall", {}).get("simulation_s"):
        found.append(f"simulated in {seconds:,.0f} s" if seconds >= 1 else "simulated in under 1 s")
    if version := record.get("versions", {}).get(PROGRAM):
        found.append(f"{PROGRAM} {version}")
    return found


def warning(configurations: Iterable[Configuration]) -> Html | None:
    """Said first where a time is estimated."""
    labels = [label for c in configurations for label in (text(c.value(f"{LABEL}{n}")) for n in ("costs", "link"))]
    if not any("ESTIMATED" in label for label in labels):
        return None
    shown = tag("strong", "Times are ESTIMATED, not measured.")
    return tag("p", shown, " They follow from formulas and published constants; see “What it is of”.", class_="warning")


def facts(configurations: Sequence[Configuration], points: Sequence[Mapping[str, Any]]) -> Html:
    """Labels, schedule, steps and replications, as a list of terms."""
    columns = dict.fromkeys(column for c in configurations for column in c.runs.columns if column.startswith(LABEL))
    names = [column.removeprefix(LABEL) for column in columns]
    ordered = [*(n for n in NAMES if n in names), *(n for n in names if n not in NAMES)]
    terms = {NAMES.get(n, n): _distinct(text(c.value(f"{LABEL}{n}")) for c in configurations) for n in ordered}
    experiments = [point["experiment"] for point in points]
    schedules = _distinct(e.get("schedule") for e in experiments)
    terms |= {
        "schedule": [SCHEDULES.get(name, name) for name in schedules],
        "steps": _distinct(_steps(e) for e in experiments),
        "replications": _distinct(f"{e['replications']}, seed {e['seed']}" for e in experiments),
    }
    pairs = [
        join(tag("dt", name), *(tag("dd", *labelled(_shorn(name, value))) for value in values))
        for name, values in terms.items()
        if values
    ]
    return tag("dl", *pairs, class_="facts")


def _distinct(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(str(value) for value in values if value not in (None, "")))


def _steps(experiment: Mapping[str, Any]) -> str:
    return f"{experiment['steps']:,} a run, the first {experiment['warmup_steps']:,} of them not measured"


def _shorn(name: str, value: str) -> str:
    """A label without the name that stands before it already."""
    return re.sub(rf"^({re.escape(name)}|routing): ", "", value)


def labelled(value: str) -> Sequence[str]:
    """MEASURED and ESTIMATED as badges."""
    parts = re.split(r"\b(MEASURED|ESTIMATED)\b", value)
    return [tag("strong", p, class_=f"label {p.lower()}") if p in ("MEASURED", "ESTIMATED") else p for p in parts if p]
