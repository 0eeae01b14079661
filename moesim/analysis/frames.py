"""Tidy frames of results: one row an observation, units in the columns' names, labels as columns of their own."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from moesim.analysis import compare
from moesim.analysis.configurations import (
    BESIDE,
    CASE,
    FIRST_COUNTER,
    PRESET,
    UNLIMITED,
    Configuration,
    grouped,
    identity,
    text,
)
from moesim.analysis.units import Measure, in_unit, measure, shown_as
from moesim.errors import InputError, Problem, unknown

if TYPE_CHECKING:
    import pandas as pd

Labels = dict[str, Any]
POLICY, SCOPE, SIZE, GB = "policy", "scope", "experts_per_layer", "cache_gb"
ALWAYS = (POLICY, SCOPE)
"""labels that a frame has even where all configurations agree in them"""
OWN_NAMES = {"slots": SIZE, "bytes": GB, "kv_bytes": "kv_gb", "gpu_bytes": "gpu_gb"}
HORIZON = "horizon"
SAID_BY_POLICY = ("cache", "level", "unknown", PRESET, "knows", "oracle")
IN_A_REQUEST = ("ttft", "tpot", "e2e", "normalized", "queueing")


def labels(configuration: Configuration) -> Labels:
    """All that identifies a configuration: axes of the experiment, policies, scope, sizes, and `policy` in words.

    `horizon` is in layer events, inf where unlimited, NaN where there is none; `oracle` says whether it knows the
    future; `experts_per_layer` is NaN where pools hold no whole number of them; sizes are in GB (10^9 bytes).
    """
    row = {name: configuration.value(name) for name in identity(configuration.runs)}
    found: Labels = {CASE: text(row.pop(CASE, "")), POLICY: configuration.policy.replace(f" {UNLIMITED}", "")}
    for name, value in row.items():
        if name in OWN_NAMES:
            number = float(text(value) or math.nan)
            found[OWN_NAMES[name]] = number if name == "slots" else number / 1e9
        else:
            found[name] = _number(text(value)) if "." in name else text(value)
    found[HORIZON] = configuration.horizon
    found["oracle"] = configuration.level == "oracle"
    return found


def _number(value: str) -> str | int | float:
    """An axis whose labels are numbers is one of numbers."""
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def telling(configurations: Sequence[Configuration]) -> list[Labels]:
    """The labels in which the configurations differ, with policy and scope, each thing said once."""
    every = [labels(c) for c in configurations]
    names = dict.fromkeys(name for row in every for name in row)
    kept: dict[str, list[Any]] = {}
    for name in sorted(names, key=_rank):
        values = [row.get(name, "") for row in every]
        says_more = name == HORIZON or not (name in SAID_BY_POLICY or _repeated(name, values, kept))
        numbers = [value for value in values if value == value]  # without the NaN of those that have no horizon
        if name in ALWAYS or (_several(numbers) and says_more):
            kept[name] = values
    order = [name for name in names if name in kept]
    return [{name: kept[name][place] for name in order} for place in range(len(every))]


def _rank(name: str) -> tuple[bool, bool]:
    """Labels of our own before axes, which say many of them again."""
    return ("." in name, name == GB or name in BESIDE)


def _several(values: Sequence[Any]) -> bool:
    return len({str(value) for value in values}) > 1


def _repeated(name: str, values: Sequence[Any], kept: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a label tells apart nothing that another one of them does not: as `memory.slots` beside the size.

    A case says what its batcher is; sizes and scopes are said beside it.
    """
    if name == CASE:
        return False
    there = [place for place, value in enumerate(values) if value != ""]  # an axis that some cases do not have
    for other in (mine for other, mine in kept.items() if other != CASE or name in BESIDE):
        pairs = {(str(values[place]), str(other[place])) for place in there}
        if len(pairs) == len({second for _, second in pairs}):
            return True
    return False


def runs(summary: pd.DataFrame, configurations: Sequence[Configuration]) -> pd.DataFrame:
    """A row per run: its number, replication, labels, then every counter and metric in ms, MB and as it is."""
    import pandas as pd

    columns = list(summary.columns)
    measured = columns[columns.index(FIRST_COUNTER) :] if FIRST_COUNTER in columns else []
    named = {run: found for c in configurations for found in [labels(c)] for run in c.runs["run"]}
    said = pd.DataFrame([{"run": run} | named[run] for run in summary["run"]])
    if CASE in said and not said[CASE].any():
        said = said.drop(columns=CASE)
    said.insert(1, "replication", summary["replication"].to_numpy())
    shown = {in_unit(column): _shown(summary[column]) for column in measured}
    return pd.concat([said, pd.DataFrame(shown, index=summary.index).reset_index(drop=True)], axis=1)


def _shown(column: pd.Series) -> pd.Series:
    factor, _ = shown_as(str(column.name))
    return column if factor == 1 else column * factor


def requests(found: pd.DataFrame, configurations: Sequence[Configuration]) -> pd.DataFrame:
    """A row per measured request that was answered: labels, lengths in tokens, its latencies in ms."""
    import pandas as pd

    kept = found[found["measured"] & (found["finished_ns"] >= 0)]
    pairs = zip(configurations, telling(configurations), strict=True)
    named = {run: said for c, said in pairs for run in c.runs["run"]}
    kept = kept[kept["run"].isin(named)]
    told = pd.DataFrame([named[run] for run in kept["run"]], index=kept.index)
    lengths = kept[["run", "replication", "request", "prompt_tokens", "output_tokens"]]
    times = {f"{name}_ms": kept[f"{name}_ns"].astype("float64") * 1e-6 for name in IN_A_REQUEST}
    return pd.concat([told, lengths, pd.DataFrame(times)], axis=1).reset_index(drop=True)


def means(
    configurations: Sequence[Configuration], everyone: Sequence[Configuration], names: Sequence[str]
) -> pd.DataFrame:
    """A row per configuration and metric: labels, metric, unit, mean, low and high of its 95 % interval, and of how
    many independent replications. Raises InputError where there is no such metric."""
    import pandas as pd

    rows = []
    told = telling(configurations)
    for name in names:
        found = measures(name, everyone)
        for c, said in zip(configurations, told, strict=True):
            what = found[c.group]
            mean = compare.mean(c.values(what.column)).scaled(what.scale)
            values = {"metric": what.name, "unit": what.unit, "mean": mean.value, "low": mean.low, "high": mean.high}
            rows.append({**said, **values, "replications": len(c.units)})
    return pd.DataFrame(rows)


def measures(name: str, configurations: Sequence[Configuration]) -> dict[Any, Measure]:
    """What a metric is in each group. Raises InputError where there is none of that name."""
    found, problems = {}, []
    for key, group in grouped(configurations).items():
        columns = list(group[0].runs.columns)
        start = columns.index(FIRST_COUNTER) if FIRST_COUNTER in columns else 0
        what = measure(name, group, columns[start:])
        if isinstance(what, str):
            problems.append(Problem("metric", what))
        else:
            found[key] = what
    if problems:
        raise InputError(dict.fromkeys(problems))
    if len({what.column for what in found.values()}) > 1:  # where some groups are overloaded, and others are not
        return {key: replace(what, name=what.words) for key, what in found.items()}
    return found


def chosen(configurations: Sequence[Configuration], wanted: Mapping[str, Any]) -> list[Configuration]:
    """The configurations whose labels have these values, or one of these. Raises InputError with every mistake."""
    named = {c: labels(c) for c in configurations}
    known = dict.fromkeys(name for row in named.values() for name in row)
    problems, kept = [], list(configurations)
    for given, value in wanted.items():
        name = given if given in known else given.replace("__", ".")
        if name not in known:
            problems.append(Problem("where", unknown("label", name, known)))
            continue
        values = list(value) if isinstance(value, list | tuple | set | frozenset | range) else [value]
        there = {plain(row.get(name, "")) for row in named.values()}
        problems += [
            Problem(f"where {name}", unknown("value", plain(one), there)) for one in values if plain(one) not in there
        ]
        wanted_here = {plain(one) for one in values}
        kept = [c for c in kept if plain(named[c].get(name, "")) in wanted_here]
    if not problems and not kept:
        said = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
        problems.append(Problem("where", f"no configuration has {said} together"))
    if problems:
        raise InputError(problems)
    return kept


def plain(value: Any) -> str:
    """A value as labels are compared: 4 is 4.0 and "4"."""
    try:
        return f"{float(value):g}" if not isinstance(value, bool) else str(value)
    except (TypeError, ValueError):
        return str(value)

