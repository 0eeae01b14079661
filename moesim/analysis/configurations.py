"""The configurations of a results folder: runs that differ in their replication only, and which of them compare.

A row of `summary.csv` starts with what identifies its run - run, case, replication, one column per axis, the resolved
policy, memory and schedule - and goes on with counters (the first is `steps`), derived numbers and labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from moesim.analysis.searched import LARGEST, largest_of

if TYPE_CHECKING:
    import pandas as pd

FIRST_COUNTER = "steps"
CASE = "case"
KNOWS = "knows"
OF_CACHE = ("cache", "level", "horizon", "unknown")
POLICY = (*OF_CACHE, "scope", "oracle", KNOWS)
PRESET = "preset"
BESIDE = ("prefetch", "batch", "miss")  # policies beside the cache's
PER_RUN = ("run", "replication")
UNLIMITED = "unlimited"
SIZE = ("bytes", "slots", "kv_bytes", "kv_blocks")
BUDGET = "gpu_bytes"
"""with one budget the sizes of KV memory and of the experts say the same: memory.kv.share is no column to compare by"""
TIME = "ns_per_output_token"
LATENCY = "normalized_mean_ns"
CLUSTER = "cluster"
LABELS = ("routing", "costs", "link", "kv")


@dataclass(frozen=True, slots=True, eq=False)
class Configuration:
    """One point of the grid. `group` is what must be equal for two cache policies to compare; `runs` has a row per
    replication, in their order. `horizon` is in layer events, inf when unlimited and NaN when the policy has none.
    `whole`: the name of a preset, or of a batcher where batchers are compared, which is compared as a whole and not by
    its cache alone; blank where the cache is what is compared.

    Replications that share captured sequences are no independent observations. They are one cluster, and its mean is
    one value: intervals are over `units`, which are clusters where there are any and replications elsewhere.
    """

    group: tuple[tuple[str, str], ...]
    cache: str
    level: str
    horizon: float
    unknown: str
    scope: str
    oracle: str
    options: tuple[str, ...]
    whole: str
    runs: pd.DataFrame = field(repr=False)
    loaded: dict[str, np.ndarray] = field(default_factory=dict, repr=False)  # columns that were asked for

    @property
    def policy(self) -> str:
        """Name, level where it says something, horizon and the other options, e.g. `lookahead queue 64 persist`.

        Of what is compared as a whole, a preset or a batcher, the name alone.
        """
        if self.whole:
            return self.whole
        level = "" if self.level == "history" else self.level
        return " ".join(filter(None, (self.cache, level, horizon_text(self.horizon), *self.options)))

    @property
    def is_bound(self) -> bool:
        """Whether it is the oracle that gaps are measured by: everything is known, as far ahead as there is."""
        return self.level == "oracle" and self.horizon == math.inf

    @property
    def lossy(self) -> bool:
        """Whether some tokens got a smaller copy of an expert, or none: the answers are not the model's own."""
        return self.mean("degraded_tokens") > 0

    @property
    def case(self) -> str:
        return dict(self.group).get("case", "")

    def value(self, column: str) -> Any:
        """A column that is the same in all replications; None where there is no such column."""
        return self.runs[column].iloc[0] if column in self.runs.columns else None

    @property
    def units(self) -> list[int]:
        """Numbers of the clusters, or of the replications where each has sequences of its own."""
        return sorted(set(self._unit_of_run()))

    def _unit_of_run(self) -> list[int]:
        named = next((name for name in (CLUSTER, "replication") if name in self.runs.columns), None)
        return list(range(len(self.runs))) if named is None else [int(value) for value in self.runs[named]]

    def values(self, column: str) -> np.ndarray:
        """A numeric column, float64, one value a unit; NaN where the column is missing."""
        if column not in self.loaded:
            missing = np.full(len(self.runs), math.nan)
            found = self.runs[column].to_numpy("float64", na_value=math.nan) if column in self.runs.columns else missing
            self.loaded[column] = self._of_units(found)
        return self.loaded[column]

    def _of_units(self, found: np.ndarray) -> np.ndarray:
        units, of_run = self.units, self._unit_of_run()
        if len(units) == len(of_run):
            return found
        return np.array([found[[u == unit for u in of_run]].mean() for unit in units])

    def together(self, *columns: str) -> list[tuple[float, ...]]:
        """What each run has in some numeric columns; nothing where one of them is missing."""
        there = all(column in self.runs.columns for column in columns)
        return [tuple(map(float, row)) for row in self.runs[[*columns]].to_numpy()] if there else []

    def count(self, column: str) -> int:
        """How many runs a yes-or-no column says yes of; none where there is no such column."""
        return int((self.runs[column] == True).sum()) if column in self.runs.columns else 0  # noqa: E712

    def holds(self, column: str) -> bool:
        """Whether a yes-or-no column says yes of any run."""
        return self.count(column) > 0

    @property
    def unmeasured(self) -> str:
        """Why there are no latencies: `overloaded`, `cut off`, or nothing."""
        return "overloaded" if self.holds("overloaded") else "cut off" if self.holds("cut_off") else ""

    def mean(self, column: str) -> float:
        """The mean of a numeric column over the units."""
        values = self.values(column)
        return math.fsum(values) / len(values)


def summary_of(results: Any) -> pd.DataFrame:
    """The summary of a results object, or the summary itself."""
    return getattr(results, "summary", results)


def read(summary: pd.DataFrame) -> list[Configuration]:
    """The configurations in the order of the file."""
    keys = identity(summary)
    decided, beside = _decided(summary), _compared_beside(summary)
    groups = summary.groupby(keys, sort=False, dropna=False)
    return [_configuration(runs, keys, decided, beside.get(text(_case_of(runs)), "")) for _, runs in groups]


def identity(summary: pd.DataFrame) -> list[str]:
    """The columns that say which configuration a run is of."""
    columns = list(summary.columns)
    end = columns.index(FIRST_COUNTER) if FIRST_COUNTER in columns else len(columns)
    return [column for column in columns[:end] if column not in PER_RUN]


def _decided(summary: pd.DataFrame) -> tuple[str, ...]:
    """Columns that presets decide, so that they need not agree: the preset, and policies that go with it alone."""
    if PRESET not in summary:
        return ()
    point = [column for column in (CASE, PRESET) if column in summary]
    found = [column for column in BESIDE if column in summary]
    counts = summary.groupby(point, dropna=False)[found].nunique(dropna=False).max()
    return (PRESET, *(column for column in found if counts[column] == 1))


def _compared_beside(summary: pd.DataFrame) -> dict[str, str]:
    """Of each case with one cache policy, the kind of the policies beside it that it compares: several of one kind.

    Batchers are compared as presets are: as wholes, by their names.
    """
    if PRESET in summary or KNOWS not in summary:
        return {}
    found = {}
    for case, runs in summary.groupby(CASE, dropna=False) if CASE in summary else (("", summary),):
        several = [kind for kind in BESIDE if kind in runs and runs[kind].nunique() > 1]
        if several == ["batch"] and not any(runs[column].nunique() > 1 for column in OF_CACHE if column in runs):
            found[text(case)] = several[0]
    return found


def _case_of(runs: pd.DataFrame) -> Any:
    return runs[CASE].iloc[0] if CASE in runs else ""


def _configuration(runs: pd.DataFrame, keys: list[str], decided: Sequence[str], beside: str) -> Configuration:
    row = {key: text(runs[key].iloc[0]) for key in keys}
    name = row.get(PRESET, "")
    if beside:
        decided = (*decided, beside, f"{beside}.label")
        name, row["level"] = row.get(f"{beside}.label") or row[beside], row[KNOWS]
    group = tuple((key, row[key]) for key in keys if key not in decided and _compares(key, row))
    return Configuration(
        group=group,
        cache=row["cache"],
        level=row["level"],
        horizon=_horizon(row),
        unknown=row.get("unknown", ""),
        scope=row.get("scope", ""),
        oracle=row.get("oracle", ""),
        options=tuple(filter(None, [row.get("unknown", "").replace("farthest", "")])),
        whole=name,
        runs=runs.sort_values("replication", kind="stable") if "replication" in runs else runs,
    )


def _compares(key: str, row: dict[str, str]) -> bool:
    """Whether a column must agree: not the policy's own, and of the memory its bytes and KV memory."""
    if key == "slots":
        return not row.get("bytes")
    beside = key.startswith("memory.kv")
    return beside or (key not in POLICY and key.split(".")[0] not in ("cache", "memory", PRESET))


def _horizon(row: dict[str, str]) -> float:
    value = row.get("horizon", "")
    if value in ("", UNLIMITED, "inf"):
        return math.inf if value or row["cache"] == "lookahead" or row["level"] == "oracle" else math.nan
    return float(value)


def horizon_text(horizon: float) -> str:
    if math.isnan(horizon):
        return ""
    return UNLIMITED if horizon == math.inf else f"{horizon:.0f}"


def text(value: Any) -> str:
    """A cell as text: blank for nothing, whole floats as integers (a column with blanks reads as floats)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def size_text(configuration: Configuration) -> str:
    """The cache's memory in words, e.g. `4 experts a layer (17.3 GB)`."""
    slots, size = text(configuration.value("slots")), text(configuration.value("bytes"))
    gigabytes = f"{float(size) / 1e9:.3g} GB" if size else ""
    kv = kv_text(configuration)
    experts = f"{slots} experts a layer" if slots else ""
    if gigabytes:
        experts = f"{experts} ({gigabytes})" if experts else f"experts {gigabytes}" if kv else gigabytes
    return f"{experts}, KV {kv} GB" if kv else experts


def sizes_of(configurations: Sequence[Configuration]) -> tuple[dict[Configuration, float], str]:
    """Each cache's size and its unit: experts a layer where all have that, else GB."""
    slots = [text(c.value("slots")) for c in configurations]
    if all(slots):
        return dict(zip(configurations, map(float, slots), strict=True)), "experts a layer"
    return {c: c.mean("bytes") / 1e9 for c in configurations}, "GB"


def kv_text(configuration: Configuration) -> str:
    """The size of its KV memory in GB; blank where that has no end."""
    size = text(configuration.value("kv_bytes"))
    return f"{float(size) / 1e9:.3g}" if size else ""


def labels_of(configuration: Configuration) -> list[str]:
    """What the figures are of: routing and shape, cost table, link, KV memory. Blank labels are left out."""
    found = ((name, text(configuration.value(f"label_{name}"))) for name in LABELS)
    return [label if label.lower().startswith(name) else f"{name}: {label}" for name, label in found if label]


def is_estimated(configuration: Configuration) -> bool:
    """Whether a cost or a link behind the times is estimated and not measured."""
    return any("ESTIMATED" in label for label in labels_of(configuration))


def oracle_is_no_bound(configurations: Iterable[Configuration]) -> bool:
    """Whether an oracle among them is no bound, as in a free schedule."""
    return any("not a bound" in c.oracle for c in configurations)


def grouped(configurations: Iterable[Configuration]) -> dict[tuple[tuple[str, str], ...], list[Configuration]]:
    """The configurations by what must be equal to compare them, in the order of the file."""
    groups: dict[tuple[tuple[str, str], ...], list[Configuration]] = {}
    for configuration in configurations:
        groups.setdefault(configuration.group, []).append(configuration)
    return groups


def best(configurations: Sequence[Configuration], column: str) -> Configuration | None:
    """The one with the least mean of a column over its replications, the first of equals; None without any value.

    Of a largest load that was searched for the one with the greatest.
    """
    sign = -1 if column in LARGEST else 1
    means = [(sign * c.mean(column), place) for place, c in enumerate(configurations)]
    ranked = sorted(pair for pair in means if not math.isnan(pair[0]))
    return configurations[ranked[0][1]] if ranked else None


def baseline(group: Sequence[Configuration], column: str) -> Configuration | None:
    """The best policy of level `history` that leaves the model as it is, in either scope.

    Where some do otherwise, as presets may, one that waits for what is missing.
    """
    found = [c for c in group if c.level == "history" and not c.lossy]
    return best([c for c in found if c.value("miss") in (None, "", "wait")] or found, column)


def judged_by(group: Sequence[Configuration]) -> str:
    """The column by which a group is judged: its time, or the largest load where that is what was searched for."""
    return largest_of(group) or time_of(group)


def time_of(group: Sequence[Configuration]) -> str:
    """The time that tells the policies of a group apart: per output token, in open traffic the normalized latency.

    An open server that keeps up serves what comes, so that its time per token is that of the traffic, whatever the
    policy. Where none keeps up the time per token is what the server can do.
    """
    found = any(c.holds("open_traffic") for c in group) and any(not math.isnan(c.mean(LATENCY)) for c in group)
    return LATENCY if found else TIME


def time_words(groups: Iterable[Sequence[Configuration]]) -> str:
    """What the times of these groups are, for an axis."""
    names = {TIME: "time per output token", LATENCY: "normalized latency"}
    found = dict.fromkeys(names[time_of(group)] for group in groups)
    unit = "ms" if list(found) == [names[TIME]] else "ms per token"
    return " or\n".join(found) + f" ({unit})"


def bound(group: Sequence[Configuration], column: str) -> Configuration | None:
    """The best unlimited oracle, in either scope."""
    return best([c for c in group if c.is_bound], column)


def ranked(group: Sequence[Configuration]) -> list[Configuration]:
    """A group that is compared as wholes (presets, batchers), the best first; another one as it is."""
    if not any(c.whole for c in group):
        return list(group)
    column = judged_by(group)
    means = {c: c.mean(column) * (-1 if column in LARGEST else 1) for c in group}
    return sorted(group, key=lambda c: (math.isnan(means[c]), means[c]))


def deployable(group: Sequence[Configuration]) -> list[Configuration]:
    """What does not know the future and leaves the model as it is."""
    return [c for c in group if c.level != "oracle" and not c.lossy]
