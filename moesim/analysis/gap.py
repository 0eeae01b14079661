"""Gap captured: which part of the way from the best ordinary cache to the oracle a policy goes.

    gap captured = (x - baseline) / (oracle - baseline)

in misses and in time: per output token, and in open traffic the mean normalized latency (`judged_by`). Compared are
configurations that have all in common - case, traffic, bytes, prefetcher, batcher, schedule, model - but the cache
policy and its scope. The baseline is the best policy of level `history` and the oracle the best unlimited one, each in
either scope, each by its mean over the replications and by the measure in question. 0 is the baseline, 1 the oracle; a
policy may be below 0 and, in time or when the schedule is free (where the oracle is no bound), above 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING

import numpy as np

from moesim.analysis import compare
from moesim.analysis.compare import NOTHING, Interval
from moesim.analysis.configurations import Configuration, baseline, bound, grouped, judged_by, read
from moesim.analysis.searched import largest_of

if TYPE_CHECKING:
    import pandas as pd

MEASURES = {"misses": "misses_per_output_token", "time": "ns_per_output_token"}
LIMITS = ("", "_low", "_high")
COLUMNS = tuple(f"gap_{measure}{part}" for measure in MEASURES for part in (*LIMITS, "_baseline"))


def add_gaps(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary with `gap_misses`, `gap_time` (fractions), their `_low` and `_high` and the `_baseline` they are of.

    The figures are of the configuration, so its replications carry the same. They are blank where the group has no
    history policy or no unlimited oracle, where a run was overloaded, and where the paired interval of the
    denominator is not wholly below zero: no gain to capture was shown (one replication never shows one).
    """
    import pandas as pd

    result = summary.drop(columns=[column for column in summary.columns if column in COLUMNS]).reset_index(drop=True)
    groups, added = grouped(read(result)), []
    for measure in MEASURES:
        cells = np.full((len(result), 3), np.nan)
        baselines = np.full(len(result), "", dtype=object)
        for group in groups.values():
            column = column_of(measure, group)
            base = baseline(group, column)
            for configuration in group:
                rows = configuration.runs.index
                cells[rows] = astuple(gap(configuration, group, column))
                baselines[rows] = f"{base.policy}, {base.scope}" if base else ""
        names = [f"gap_{measure}{limit}" for limit in LIMITS]
        added.append(pd.DataFrame(cells, columns=names).assign(**{f"gap_{measure}_baseline": baselines}))
    return pd.concat([result, *added], axis=1).copy()  # of one piece, whatever the summary was read with


def column_of(measure: str, group: Sequence[Configuration]) -> str:
    """The column of a measure of MEASURES by which a group is compared."""
    return judged_by(group) if measure == "time" else MEASURES[measure]


def gap(configuration: Configuration, group: Sequence[Configuration], column: str) -> Interval:
    """Gap captured by one configuration of its group, with Fieller's paired interval; NOTHING where it is blank.

    Presets and batchers have none: they differ in more than the cache. Nor have searches, whose runs differ in load.
    """
    if configuration.whole or largest_of(group):
        return NOTHING
    base, oracle = baseline(group, column), bound(group, column)
    if base is None or oracle is None or any(_overloaded(c) for c in (base, oracle, configuration)):
        return NOTHING
    ours, worst, least = paired((configuration, base, oracle), column)
    gain = compare.mean(least - worst)
    if not gain.excludes(0) or gain.value > 0:
        return NOTHING
    return compare.ratio(ours - worst, least - worst)


def against_baseline(configuration: Configuration, group: Sequence[Configuration], column: str) -> Interval:
    """Paired relative difference from the group's baseline, (x - baseline) / baseline; NOTHING without a baseline."""
    base = baseline(group, column)
    if base is None:
        return NOTHING
    ours, theirs = paired((configuration, base), column)
    return compare.ratio(ours - theirs, theirs)


def paired(configurations: Sequence[Configuration], column: str) -> list[np.ndarray]:
    """The column of each configuration over the units (replications, or clusters of them) that all of them have."""
    columns = [dict(zip(c.units, c.values(column), strict=True)) for c in configurations]
    common = sorted(set.intersection(*(set(values) for values in columns)))
    return [np.array([values[unit] for unit in common]) for values in columns]


def _overloaded(configuration: Configuration) -> bool:
    return bool(configuration.unmeasured)
