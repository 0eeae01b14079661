"""The simulator held against a live run of the same settings (docs/validation.md).

A setting is a point of the experiment's grid. Of each its runs are compared one by one: a replication as simulated, and
as measured, perhaps several times (an axis `repeat`). An error is simulated / measured - 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from moesim.analysis.compare import mean
from moesim.errors import InputError, Problem

METRICS = {
    "step_mean": "step time, mean",
    "step_p50": "step time, median",
    "step_p95": "step time, p95",
    "ttft_mean": "TTFT, mean",
    "tpot_mean": "TPOT, mean",
    "e2e_mean": "end to end, mean",
    "stall": "stalled for experts, in all",
}
COUNTS = ("reuse", "prefetch", "late", "miss", "evictions")
PARTS = ("attention", "rest", "gate", "router", "experts", "host", "miss_stall", "late_stall", "cpu_stall")
COMPOSITION = ("prefill_tokens", "decode_tokens", "requests")
REGIMES = ("resident", "mixed", "transfer-bound")
FREE = {"name", "question", "costs", "link", "validation", "objective", "allow_extrapolation"}
"""of a point: what a live run does not depend on"""
REPEAT = "repeat"
DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Numbers:
    """What one run came to: METRICS in ns, counts of its measured steps, and ns of each of PARTS a step."""

    metrics: dict[str, float]
    counts: dict[str, int]
    parts: dict[str, float]
    stalled: float
    """share of the time of its steps"""
    waves: int
    loaded: float
    """keys that were missing or under way, a step"""


class Pair(NamedTuple):
    """A run as simulated and as measured. `recomposed`: steps that have other tokens or requests in one of them."""

    simulated: Numbers
    measured: Numbers
    recomposed: int = 0
    replication: int = 0
    """pairs of one replication are repeats of one measurement"""


@dataclass(slots=True)
class Setting:
    """One point: its labels, its role, and its runs."""

    labels: dict[str, str]
    role: str
    limits: tuple[float, float]
    """shares of time stalled from which it is mixed, and transfer-bound"""
    exact: bool
    """whether hits must be equal: no decision depends on timing"""
    pairs: list[Pair] = field(default_factory=list)

    @property
    def name(self) -> str:
        named = [f"{axis} {label}" if axis != "case" else label for axis, label in self.labels.items()]
        return ", ".join(named) or "the one point"

    @property
    def stalled(self) -> float:
        """Share of the measured time that the stream waited for experts."""
        return _mean([pair.measured.stalled for pair in self.pairs])

    @property
    def loaded(self) -> float:
        """Keys a step that the measured runs had to load, or were loading."""
        return _mean([pair.measured.loaded for pair in self.pairs])

    @property
    def regime(self) -> str:
        mixed, bound = self.limits
        return REGIMES[(self.stalled >= mixed) + (self.stalled >= bound)]

    def of(self, metric: str) -> tuple[float, float]:
        """Simulated and measured, means over the runs; NaN where the measured one is none."""
        return (
            _mean([pair.simulated.metrics[metric] for pair in self.pairs]),
            _mean([pair.measured.metrics[metric] for pair in self.pairs]),
        )

    def error(self, metric: str) -> float:
        simulated, measured = self.of(metric)
        return simulated / measured - 1 if measured else math.nan

    def interval(self, metric: str) -> float:
        """Half of the 95 % interval of the error (Student's): over replications, of each the mean of its repeats, or
        over the repeats of the only one; NaN for a single run.
        """
        errors = [
            [_error(pair.simulated.metrics[metric], pair.measured.metrics[metric]) for pair in repeats]
            for repeats in self._repeats
        ]
        found = [_mean(of_one) for of_one in errors] if len(errors) > 1 else [e for of_one in errors for e in of_one]
        return mean([error for error in found if not math.isnan(error)]).half

    def spread(self, metric: str) -> float:
        """How far repeats of a measured run are apart: largest over least, less one, of the replication where that is
        most; NaN where nothing was repeated.
        """
        found = [[pair.measured.metrics[metric] for pair in repeats] for repeats in self._repeats]
        return max((max(of_one) / min(of_one) - 1 for of_one in found if len(of_one) > 1 and min(of_one) > 0),
                   default=math.nan)  # fmt: skip

    @property
    def _repeats(self) -> list[list[Pair]]:
        """Pairs by replication."""
        found: dict[int, list[Pair]] = {}
        for pair in self.pairs:
            found.setdefault(pair.replication, []).append(pair)
        return list(found.values())

    @property
    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Simulated and measured, sums over the runs."""
        return (
            {name: sum(pair.simulated.counts[name] for pair in self.pairs) for name in COUNTS},
            {name: sum(pair.measured.counts[name] for pair in self.pairs) for name in COUNTS},
        )

    @property
    def differing(self) -> int:
        """Runs whose counts are not equal."""
        return sum(pair.simulated.counts != pair.measured.counts for pair in self.pairs)

    @property
    def recomposed(self) -> int:
        """Steps, over all runs, that do not have the same tokens and requests in both."""
        return sum(pair.recomposed for pair in self.pairs)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _error(simulated: float, measured: float) -> float:
    return simulated / measured - 1 if measured else math.nan


# ---- from results


def compare(simulated: Any, measured: Any) -> list[Setting]:
    """Settings of two `Results` with saved steps. Raises InputError where they do not belong together."""
    known = _measured_runs(measured)
    problems = [*_strangers(simulated, measured), *_both_roles(simulated.configs)]
    found: list[Setting] = []
    tables = _tables(simulated), _tables(measured)
    for point, config in enumerate(simulated.configs):
        runs = known.get(_identity(config), [])
        if not runs:
            text = f"has no run of {_name(config.labels)}; it has {len(known)} settings"
            problems.append(Problem(str(measured.folder), text))
            continue
        setting = _setting(config)
        for at, replication in runs:
            own = point * config.replications + replication
            if replication < config.replications:
                ours, theirs = tables[0](own), tables[1](at)
                steps = recomposed(ours[0], theirs[0])
                setting.pairs.append(Pair(numbers(*ours), numbers(*theirs), steps, replication))
        found.append(setting)
    if problems:
        raise InputError(problems)
    for setting in found:
        setting.exact = setting.exact and not any(run.waves for pair in setting.pairs for run in pair[:2])
    return found


def _both_roles(configs: Sequence[Any]) -> Iterator[Problem]:
    """What was fitted to a setting is no evidence for it, under whatever name it stands."""
    roles: dict[str, set[str]] = {}
    for config in configs:
        own = roles.setdefault(_identity(config), set())
        own.add(_role(config))
        if len(own) > 1:
            text = f"{_name(config.labels)} is used for calibration and for judging; change one of them"
            yield Problem("validation.role", text)


def _role(config: Any) -> str:
    return str(config.validation.role) if config.validation else "judge"


def _setting(config: Any) -> Setting:
    held = config.validation
    limits = (held.resident, held.transfer_bound) if held else (0.02, 0.5)
    exact = config.schedule == "frozen" and config.prefetch.name == "none" and config.miss.name == "wait"
    return Setting(dict(config.labels), _role(config), limits, exact and not config.memory.staging)


def _measured_runs(measured: Any) -> dict[str, list[tuple[int, int]]]:
    """Identity of a point -> its runs as (number, replication), repeats among them."""
    found: dict[str, list[tuple[int, int]]] = {}
    number = 0
    for config in measured.configs:
        for replication in range(config.replications):
            found.setdefault(_identity(config), []).append((number, replication))
            number += 1
    return found


def _identity(config: Any) -> str:
    plain = {key: value for key, value in config.experiment().items() if key not in FREE}
    plain["replications"] = 0
    return json.dumps(plain, sort_keys=True)


def _name(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{axis}: {label}" for axis, label in labels.items() if axis != REPEAT) or "the one point"


def _strangers(simulated: Any, measured: Any) -> Iterator[Problem]:
    """What shows that a folder is no live run of this experiment."""
    folder = str(measured.folder)
    if "label_live" not in measured.summary:
        yield Problem(folder, "holds no live run (moesim live writes them); its times are " + _labels(measured))
        return
    runs, rows = sum(config.replications for config in measured.configs), len(measured.summary)
    if rows != runs:
        yield Problem(folder, f"is damaged: summary.csv has {rows} runs of {runs}")
    for kind in ("trace", "model"):
        ours, theirs = (set(results.digests.get(kind, {}).values()) for results in (simulated, measured))
        if ours != theirs:
            text = f"was run with another {kind}: {_names(measured, kind)}, here {_names(simulated, kind)}"
            yield Problem(folder, text)
    costs = simulated.summary["label_costs"].iloc[0]
    device = costs[costs.find(", ") + 2 : -1] if costs.startswith("MEASURED (table ") else ""
    live = measured.summary["label_live"].iloc[0]
    if device and device not in live:
        yield Problem("costs", f"was measured on {device!r}, and the live run is {live}")


def _labels(results: Any) -> str:
    return "; ".join(sorted(set(results.summary["label_costs"])))


def _names(results: Any, kind: str) -> str:
    return ", ".join(results.digests.get(kind, {})) or "none"


def _tables(results: Any) -> Any:
    """Run number -> its steps and requests."""
    steps = dict(list(results.steps.groupby("run")))
    requests = dict(list(results.requests.groupby("run")))
    return lambda run: (steps[run], requests[run])


def numbers(steps: Any, requests: Any) -> Numbers:
    """What the measured steps and requests of one run come to."""
    steps = steps[steps["measured"]]
    times = (steps["end_ns"] - steps["start_ns"]).to_numpy("float64")
    done = requests[requests["measured"] & (requests["finished_ns"] >= 0)]
    stalled = float(steps[["miss_stall_ns", "late_stall_ns", "cpu_stall_ns"]].to_numpy().sum())
    metrics = {
        "step_mean": float(times.mean()),
        "step_p50": float(np.percentile(times, 50)),
        "step_p95": float(np.percentile(times, 95)),
        **{f"{name}_mean": float(done[f"{name}_ns"].astype("float64").mean()) for name in ("ttft", "tpot", "e2e")},
        "stall": stalled,
    }
    counts = {name: int(steps[name if name == "evictions" else f"{name}_keys"].sum()) for name in COUNTS}
    parts = {name: float(steps[f"{name}_ns"].mean()) for name in PARTS}
    loaded = (counts["miss"] + counts["late"]) / len(steps)
    return Numbers(metrics, counts, parts, stalled / times.sum(), int(steps["waves"].sum()), loaded)


def recomposed(simulated: Any, measured: Any) -> int:
    """Steps that have other tokens or requests in one than in the other, those that one lacks among them."""
    ours, theirs = (steps[list(COMPOSITION)].to_numpy() for steps in (simulated, measured))
    both = min(len(ours), len(theirs))
    return int((ours[:both] != theirs[:both]).any(axis=1).sum()) + max(len(ours), len(theirs)) - both


# ---- over settings


@dataclass(frozen=True, slots=True)
class Summary:
    """Absolute errors of a metric over the settings of a regime that judge: median with its 95 % interval, largest.

    `spread`: the median over them of how far repeats of the measured run are apart.
    """

    settings: int
    median: float
    low: float
    high: float
    largest: float
    spread: float


def summarize(settings: Sequence[Setting], metric: str) -> Summary | None:
    """None where there is nothing to judge. The interval is by drawing settings anew (bootstrap, percentiles)."""
    errors = np.array([abs(error) for setting in settings if not math.isnan(error := setting.error(metric))])
    if not len(errors):
        return None
    random = np.random.default_rng(0)
    medians = np.median(errors[random.integers(len(errors), size=(DRAWS, len(errors)))], axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    spreads = [spread for setting in settings if not math.isnan(spread := setting.spread(metric))]
    spread = float(np.median(spreads)) if spreads else math.nan
    return Summary(len(errors), float(np.median(errors)), float(low), float(high), float(errors.max()), spread)


def by_regime(settings: Sequence[Setting], role: str = "judge") -> dict[str, list[Setting]]:
    """Settings of a role, by regime; regimes without any are left out."""
    found = {regime: [s for s in settings if s.role == role and s.regime == regime] for regime in REGIMES}
    return {regime: of_regime for regime, of_regime in found.items() if of_regime}


def failures(settings: Sequence[Setting], metrics: Sequence[str], limit: float) -> list[str]:
    """What is beyond the limit, not judged at all, or not equal though it must be; a sentence each."""
    found = []
    judging = by_regime(settings)
    for metric in metrics:
        if not any(summarize(of_regime, metric) for of_regime in judging.values()):
            found.append(f"{METRICS[metric]}: no setting judges it, so that nothing is shown")
    for regime, of_regime in judging.items():
        for metric in metrics:
            summary = summarize(of_regime, metric)
            if summary is not None and summary.median > limit:
                text = f"{METRICS[metric]} is off by {summary.median:.1%} (median), more than {limit:.1%}"
                found.append(f"{regime}: {text}")
    for setting in settings:
        if setting.exact and setting.recomposed:
            found.append(f"{setting.name}: {setting.recomposed} steps are composed otherwise, on one schedule")
        elif setting.exact and setting.differing:
            ours, theirs = setting.counts
            apart = {name: (ours[name], theirs[name]) for name in COUNTS if ours[name] != theirs[name]}
            text = ", ".join(f"{name} {a:,} simulated, {b:,} measured" for name, (a, b) in apart.items())
            found.append(f"{setting.name}: hits must be equal here, and {setting.differing} runs differ: {text}")
    return found


def document(settings: Sequence[Setting], metrics: Sequence[str], limit: float) -> dict[str, Any]:
    """Everything as plain data (`--json`); what is no number is null."""
    return {
        "limit": limit,
        "limited": list(metrics),
        "failures": failures(settings, metrics, limit),
        "regimes": {
            regime: {metric: _plain(summarize(of_regime, metric)) for metric in METRICS}
            for regime, of_regime in by_regime(settings).items()
        },
        "settings": [row(setting) for setting in settings],
    }


def row(setting: Setting) -> dict[str, Any]:
    """One setting as a flat row (validation.csv)."""
    found: dict[str, Any] = {**setting.labels, "role": setting.role, "regime": setting.regime}
    found |= {"runs": len(setting.pairs), "stalled": round(setting.stalled, 6)}
    ours, theirs = setting.counts
    for metric in METRICS:
        simulated, measured = setting.of(metric)
        values = (simulated, measured, setting.error(metric), setting.interval(metric), setting.spread(metric))
        names = ("simulated", "measured", "error", "interval", "spread")
        found |= {f"{metric}_{name}": _number(value) for name, value in zip(names, values, strict=True)}
    for name in COUNTS:
        found |= {f"{name}_simulated": ours[name], f"{name}_measured": theirs[name]}
    for part in PARTS:
        found[f"{part}_ns_simulated"] = _number(_mean([pair.simulated.parts[part] for pair in setting.pairs]))
        found[f"{part}_ns_measured"] = _number(_mean([pair.measured.parts[part] for pair in setting.pairs]))
    return found | {"exact": setting.exact, "runs_differing": setting.differing, "steps_differing": setting.recomposed}


def _plain(summary: Summary | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    return {name: _number(getattr(summary, name)) for name in Summary.__slots__}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
