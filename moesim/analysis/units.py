"""What is measured, by the names that people use: which column it is, in which unit it is shown, in words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from moesim.analysis.configurations import LATENCY, Configuration, judged_by
from moesim.analysis.searched import LARGEST

STATISTICS = {"": "mean", "p50": "median", "p95": "95th percentile", "p99": "99th percentile"}
LATENCIES = {
    "ttft": "time to first token",
    "tpot": "time per output token after the first",
    "e2e": "end-to-end latency",
    "normalized": "normalized latency",
    "queueing": "queueing",
    "itl": "time between tokens",
}
OTHERS = {
    "misses": ("misses_per_output_token", "misses per output token"),
    "moved": ("moved_bytes_per_output_token", "moved over the link per output token"),
    "throughput": ("throughput_tokens_per_s", "throughput"),
    "goodput": ("goodput_requests_per_s", "goodput"),
    "experts": ("unique_experts_per_event", "unique experts in a layer of a step"),
}
UNITS = {
    "misses_per_output_token": "expert keys",
    "unique_experts_per_event": "experts",
    "throughput_tokens_per_s": "tokens/s",
    "throughput_requests_per_s": "requests/s",
    "goodput_requests_per_s": "requests/s",
}
MORE_IS_BETTER = ("throughput_tokens_per_s", "throughput_requests_per_s", "goodput_requests_per_s", *LARGEST)
TIME = "time"


@dataclass(frozen=True, slots=True)
class Measure:
    """A column of the summary, how it is shown: times `scale` it is in `unit`."""

    name: str
    column: str
    words: str
    scale: float = 1.0
    unit: str = ""

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"{self.words} ({self.unit})" if self.unit else self.words

    @property
    def is_time(self) -> bool:
        return self.unit == "ms"

    @property
    def more_is_better(self) -> bool:
        return self.column in MORE_IS_BETTER


def measure(name: str, group: Sequence[Configuration], columns: Iterable[str]) -> Measure | str:
    """What `name` is in a group of configurations; a text that says what there is where it is nothing.

    `time` is what a group is judged by: the time per output token, in open traffic the mean normalized latency. Other
    names are those of LATENCIES (`ttft`, `ttft_p95`), of OTHERS, or of any column of `summary` or `runs`.
    """
    known = {column: column for column in columns}
    if name == TIME:
        column = judged_by(group)
        if column in LARGEST:
            return Measure(name, column, LARGEST[column])
        words = "normalized latency" if column == LATENCY else "time per output token"
        return Measure(name, column, words, 1e-6, "ms")
    base, _, statistic = name.partition("_")
    if base in LATENCIES and statistic in STATISTICS:
        column = f"{base}_{statistic or 'mean'}_ns"
        return _known(Measure(name, column, f"{LATENCIES[base]}, {STATISTICS[statistic]}", 1e-6, "ms"), known)
    if name in OTHERS:
        column, words = OTHERS[name]
        return _known(Measure(name, column, words, *shown_as(column)), known)
    found = known.get(name) or {in_unit(column): column for column in known}.get(name)
    if found is None:
        usual = [TIME, *LATENCIES, *OTHERS]
        near = difflib.get_close_matches(name, [*usual, *known], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        return f"unknown metric {name!r}{hint} There is: {', '.join(usual)}, ttft_p95 and the like, any column of runs"
    return Measure(name, found, name.replace("_", " "), *shown_as(found))


def _known(found: Measure, known: dict[str, str]) -> Measure | str:
    if found.column in known:
        return found
    return f"these results have no {found.words} (no column {found.column!r})"


def shown_as(column: str) -> tuple[float, str]:
    """Factor and unit in which people read a column: ms for ns, MB (10^6) for bytes; others as they are."""
    words = column.split("_")
    if "ns" in words:
        return 1e-6, "ms"
    if "bytes" in words:
        return 1e-6, "MB"
    return 1.0, UNITS.get(column, "")


def in_unit(column: str) -> str:
    """The column's name with the unit in which it is shown: `ns_per_step` is `ms_per_step`, `bytes` is `mb`."""
    renamed = {"ns": "ms", "bytes": "mb"}
    return "_".join(renamed.get(word, word) for word in column.split("_"))
