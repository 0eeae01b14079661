"""The row of a run in `summary.csv`: which run it is, its counters, what follows from them, its labels."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moesim import inputs
from moesim.document import from_plain
from moesim.experiment import PolicySpec, specs_of
from moesim.grid import CASE, POLICIES, text
from moesim.policy.base import LEVELS
from moesim.presets import PRESET

if TYPE_CHECKING:
    import pandas as pd

    from moesim.plan import Run
    from moesim.sim import RunResult

Row = dict[str, Any]
SPELT = ("level", "horizon", "unknown")  # parameters of a cache policy that have a column of their own
TEXT = (
    *("case", "preset", "cache", "level", "horizon", "unknown", "prefetch", "miss", "batch", "knows"),
    *("scope", "schedule", "oracle", "search_outcome"),
)
FIRST = ("run", "case", "replication")
UNLIMITED = "unlimited"
LATENCY = re.compile(r"\w+_(mean|p\d+)_ns")


def rows(runs: Sequence[Run], results: Sequence[RunResult]) -> list[Row]:
    """One row a run, without what compares runs: run, case, replication, the axes, then all that is known of it.

    An axis has its dotted path as column, with `.label` behind it where there is a column of that name. An axis of
    policies or of their parameters has one only where its labels are names of the user's own.
    """
    named = any(preset_of(run) for run in runs)
    known = [_known(run, result, named) for run, result in zip(runs, results, strict=True)]
    axes = [_axes(run, row) for run, row in zip(runs, known, strict=True)]
    columns = [*FIRST, *_union(axes), *(c for c in _union(known) if c not in FIRST)]
    return [{c: (row | more).get(c, "") for c in columns} for row, more in zip(known, axes, strict=True)]


def _union(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def preset_of(run: Run) -> str:
    """What its preset is called: the label of its axis, or its own name; blank where it has none."""
    return run.config.labels.get(PRESET, run.config.preset or "")


def _known(run: Run, result: RunResult, named: bool) -> Row:
    from moesim.analysis.metrics import kv_used, summarize

    labels = dict(result.labels)
    known = {**_identity(run, named), "oracle": labels.pop("oracle", ""), **result.counters}
    known |= summarize(result.counters, result.requests, result.tokens, run.config.objective) | result.found
    known |= dict.fromkeys(unmeasured(known), math.nan)
    if "kv_blocks" in known:
        known |= kv_used(result.counters, known["kv_blocks"])
    return known | {f"label_{name}": text for name, text in labels.items()}


def unmeasured(row: Mapping[str, Any]) -> list[str]:
    """Columns of latencies in a row that has none: of a server that cannot keep up, or of a run that was cut off.

    Their mean would grow with the run, or be that of the requests that happened to finish.
    """
    return [name for name in row if LATENCY.fullmatch(name)] if row.get("overloaded") or row.get("cut_off") else []


def _axes(run: Run, known: Mapping[str, Any]) -> Row:
    return {
        f"{axis}.label" if axis in known else axis: label
        for axis, label in run.config.labels.items()
        if axis not in (CASE, PRESET) and not _is_resolved(axis, label, run.config.experiment())
    }


def _is_resolved(axis: str, label: str, values: Any) -> bool:
    """Whether the label is the text of a policy, of its parameter or of the schedule, which the row has anyway."""
    path = tuple(axis.split("."))
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return (path in POLICIES or path[:-1] in POLICIES or axis == "schedule") and label == text(from_plain(values))


def _identity(run: Run, named: bool) -> Row:
    config, memory = run.config, run.config.memory
    total, slots = size(run)
    cache = _cache(config.cache, run.sources.base)
    preset = {PRESET: preset_of(run)} if named else {}
    knows = max((cache["level"], *_levels_beside(run)), key=LEVELS.index)
    if preset.get(PRESET):
        cache["level"] = knows
    return {
        "run": run.index,
        "case": config.labels.get("case", ""),
        "replication": run.replication,
        **preset,
        **cache,
        "prefetch": words(config.prefetch),
        "miss": words(config.miss),
        "batch": words(config.scheduler.batch),
        "knows": knows,
        "scope": memory.scope,
        "slots": slots,
        "bytes": total,
        **_kv(run),
        "schedule": config.schedule,
    }


def _cache(spec: PolicySpec, base: str) -> Row:
    from moesim import policy

    made = policy.make("cache", spec, base)
    others = PolicySpec(name=spec.name, params={k: v for k, v in spec.params.items() if k not in SPELT})
    horizon = getattr(made, "horizon", "")
    return {
        "cache": words(others),
        "level": made.level,
        "horizon": UNLIMITED if horizon is None else str(horizon),
        "unknown": made.unknown if made.level not in ("history", "layer", "oracle") else "",
    }


def _levels_beside(run: Run) -> list[str]:
    """Levels of the policies beside the cache's. What a miss policy sees of the present layer is no foresight."""
    from moesim import policy

    specs = {kind: spec for kind, spec in specs_of(run.config).items() if kind != "cache"}
    found = {kind: policy.make(kind, spec, run.sources.base).level for kind, spec in specs.items()}
    return [level for kind, level in found.items() if (kind, level) != ("miss", "layer")]


def words(spec: PolicySpec) -> str:
    """A policy in a few words, as in `expert-aware age=16`."""
    return " ".join([spec.name, *(f"{key}={_plain(value)}" for key, value in spec.params.items())])


def _plain(value: object) -> str:
    return value if isinstance(value, str) else cell(value) or "null"


def size(run: Run) -> tuple[int, int | str]:
    """Bytes of all pools and staging slots, and experts per layer where the pools hold a whole number of them."""
    from moesim.hardware.budget import pools, staging_bytes
    from moesim.sim.setup import keys_of, settle

    loaded = inputs.load(run.sources)
    memory, keys = settle(run.config, loaded).memory, keys_of(loaded)
    total = sum(capacity for _, capacity in pools(memory.model_copy(update={"scope": "global"}), keys))
    slots, rest = divmod(total, keys.layers * keys.largest)
    return total + staging_bytes(memory, keys), "" if rest or not keys.equal else slots


def _kv(run: Run) -> Row:
    """Blocks and bytes of KV memory, where it has an end, and the GPU's budget, where there is one."""
    from moesim.hardware.budget import budget
    from moesim.sim.setup import keys_of

    memory, loaded = run.config.memory, inputs.load(run.sources)
    found = budget(memory, keys_of(loaded), loaded.shape)
    kv = {} if found.blocks is None else {"kv_blocks": found.blocks, "kv_bytes": found.kv}
    return kv if found.gpu is None else {**kv, "gpu_bytes": found.gpu}


def cell(value: Any) -> str:
    """A value as `summary.csv` has it: shortest exact floats, True and False, nothing for NaN and None."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if hasattr(value, "item"):
        return cell(value.item())
    return repr(value) if isinstance(value, float) else str(value)


def to_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """The text of `summary.csv`."""
    rows = list(rows)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(rows[0])
    writer.writerows([cell(value) for value in one.values()] for one in rows)
    return out.getvalue()


def read_csv(text: str) -> pd.DataFrame:
    """`summary.csv` as a frame. Labels, names and axes are text ("" where empty); numbers are NaN where empty."""
    import pandas as pd

    columns, *rows = csv.reader(io.StringIO(text))
    words = set(text_columns(columns))
    cells = dict(zip(columns, zip(*rows, strict=True), strict=True))
    return pd.DataFrame({c: list(values) if c in words else _numbers(values) for c, values in cells.items()})


def _numbers(values: Sequence[str]) -> list[Any]:
    """The values of a column as they were written, exactly (pandas rounds, in some versions)."""
    for kind in (int, _float, {"True": True, "False": False}.__getitem__):
        try:
            return [kind(value) for value in values]
        except (ValueError, KeyError):
            continue
    return list(values)


def _float(value: str) -> float:
    return float(value) if value else math.nan


def text_columns(columns: Sequence[str]) -> list[str]:
    """The columns of a summary that hold text: names, axes and labels."""
    place = columns.index("cache") if "cache" in columns else len(FIRST)
    axes = set(columns[len(FIRST) : place])
    return [c for c in columns if c in axes or c in TEXT or c.startswith("label_") or c.endswith("_baseline")]
