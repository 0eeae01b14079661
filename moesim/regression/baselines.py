"""Baselines as text that a person reviews: NAME.csv has a line a number, NAME.yaml what the runs were of."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from moesim.analysis.regression.numbers import SEPARATOR, Number, Numbers, RunNumbers
from moesim.errors import InputError, Problem
from moesim.files import why_not_in, write_aside
from moesim.summary import cell

HEAD = ["run", "metric", "value"]
NUMBERS, ABOUT = ".csv", ".yaml"
MARK = "# Baselines of {name}, written by `moesim regress --update`; the numbers are in {name}.csv.\n"
KEYS = ("inputs", "settings", "points")


def texts(name: str, numbers: Numbers) -> dict[str, str]:
    """The two files by name: the same numbers give the same bytes, whatever order the runs were in."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)
    for run in sorted(numbers.runs.values(), key=lambda run: (run.point, run.replication)):
        writer.writerows([run.name, metric, cell(run.values[metric])] for metric in sorted(run.values))
    return {f"{name}{NUMBERS}": out.getvalue(), f"{name}{ABOUT}": MARK.format(name=name) + _about(numbers)}


def _about(numbers: Numbers) -> str:
    """Digests of the inputs, settings in common, and a line for each point with what it has beside them."""
    blocks = []
    for key in KEYS:
        values = getattr(numbers, key)
        lines = [f"  {_flow(name)}: {_flow(values[name])}" for name in sorted(values)]
        blocks.append("\n".join([f"{key}:", *lines]) if lines else f"{key}: {{}}")
    return "\n".join(blocks) + "\n"


def _flow(value: Any) -> str:
    """On one line, as YAML."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=True, allow_unicode=True, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")


def write(folder: Path, name: str, numbers: Numbers) -> bool:
    """Write the baselines of an experiment; False where they were so already."""
    changed = False
    for file, text in texts(name, numbers).items():
        path = folder / file
        if path.is_file() and path.read_bytes() == text.encode():
            continue
        changed = True
        with write_aside(path) as aside:
            aside.write_bytes(text.encode())
    return changed


def remove(folder: Path, name: str) -> None:
    """Remove the baselines of an experiment."""
    for ending in (NUMBERS, ABOUT):
        (folder / f"{name}{ending}").unlink(missing_ok=True)


def known(folder: Path) -> list[str]:
    """Names of experiments that have baselines, sorted; files that are something else are left alone."""
    paths = (path for ending in (NUMBERS, ABOUT) for path in folder.glob(f"*{ending}"))
    return sorted({path.stem for path in paths if _is_ours(path)})


def _is_ours(path: Path) -> bool:
    """Whether a file begins as baselines do. What does not is never replaced or removed."""
    begin = ",".join(HEAD) if path.suffix == NUMBERS else MARK.partition("{")[0]
    try:
        with open(path, "rb") as file:
            return file.read(len(begin)) == begin.encode()
    except OSError:
        return False


def check_files(folder: Path, names: Iterable[str], update: bool) -> None:
    """Raise InputError where the folder cannot be one, or a file that baselines would replace is something else."""
    if folder.exists() and not folder.is_dir():
        raise InputError(Problem(str(folder), "is a file; baselines are kept in a folder"))
    if update and (why := why_not_in(folder)):
        raise InputError(Problem(str(folder), f"baselines cannot be written: {why}"))
    paths = [folder / f"{name}{ending}" for name in names for ending in (NUMBERS, ABOUT)]
    text = "is no file of baselines, and would be replaced by one; give another folder as baselines"
    if wrong := [Problem(str(path), text) for path in paths if path.exists() and not _is_ours(path)]:
        raise InputError(wrong)


def read(folder: Path, name: str) -> Numbers | None:
    """The baselines of an experiment, None where there are none. Raises InputError with all that is wrong with them."""
    table, about = folder / f"{name}{NUMBERS}", folder / f"{name}{ABOUT}"
    if not table.exists() and not about.exists():
        return None
    problems = [Problem(str(path), f"is missing beside {other.name}; {RESTORE}") for path, other in
                ((table, about), (about, table)) if not path.is_file()]  # fmt: skip
    if problems:
        raise InputError(problems)
    runs = _runs(table, problems)
    told = _read_about(about, problems)
    if problems:
        raise InputError(problems)
    return Numbers(runs, *(told[key] for key in KEYS))


RESTORE = "restore it, or write baselines anew with --update"


def _runs(path: Path, problems: list[Problem]) -> dict[str, RunNumbers]:
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8")), strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        problems.append(Problem(str(path), f"cannot be read ({error}); {RESTORE}"))
        return {}
    if not rows or rows[0] != HEAD:
        problems.append(Problem(f"{path}:1", f"is no table of baselines, whose first line is {','.join(HEAD)}"))
        return {}
    values: dict[str, dict[str, Number]] = {}
    for line, row in enumerate(rows[1:], 2):
        number = _number(row[2]) if len(row) == len(HEAD) else None
        if number is None or _split(row[0]) is None:
            problems.append(Problem(f"{path}:{line}", f"{','.join(row)!r} is no line of a run, a metric and a number"))
        elif row[1] in values.setdefault(row[0], {}):
            problems.append(Problem(f"{path}:{line}", f"{row[1]} of {row[0]} is there twice"))
        else:
            values[row[0]][row[1]] = number
    metrics = {metric for run in values.values() for metric in run}
    for name, run in values.items():
        if missing := sorted(metrics - run.keys()):
            problems.append(Problem(str(path), f"{name} has no {', '.join(missing)}, which other runs have; {RESTORE}"))
    return {name: RunNumbers(point, r, values[name]) for name in values for point, r in [_split(name) or ("", 0)]}


def _split(name: str) -> tuple[str, int] | None:
    """Point and replication of a run's name."""
    point, separator, replication = name.rpartition(f"{SEPARATOR}r")
    return (point, int(replication)) if separator and replication.isdecimal() else None


def _number(text: str) -> Number | None:
    """A cell of the table; NaN where it is empty, None where it is no number."""
    if not text:
        return math.nan
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _read_about(path: Path, problems: list[Problem]) -> dict[str, Mapping[str, Any]]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problems.append(Problem(str(path), f"cannot be read ({' '.join(str(error).split())}); {RESTORE}"))
        return {}
    found = found if isinstance(found, dict) else {}
    for key in KEYS:
        if not isinstance(found.get(key), dict):
            problems.append(Problem(str(path), f"has no mapping {key!r}; {RESTORE}"))
    return found
