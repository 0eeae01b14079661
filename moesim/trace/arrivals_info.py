"""What is in an arrivals file: how many requests, how fast, how bursty, how long."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from moesim.trace.arrivals import Arrivals

KEY = b"moesim"
PERCENTILES = (50, 90, 95, 99)
WINDOW_NS = 60 * 10**9
PLAIN = ("name", "label", "source", "licence", "created", "command", "notes")


def is_arrivals(path: Path) -> bool:
    """Whether a file holds arrivals rather than routing: any text, or Parquet whose metadata says so."""
    if not path.is_file():
        return path.suffix not in ("", ".parquet")
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return True
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        document = json.loads((pq.read_schema(path).metadata or {}).get(KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError):
        return False  # the reader of routing says what is wrong with it
    return isinstance(document, dict) and document.get("format") == "moesim-arrivals"


def describe(arrivals: Arrivals) -> dict[str, Any]:
    """An arrivals file as plain numbers; times in seconds, lengths in tokens.

    `rate` is that of the time from the first to the last arrival, None where there is none. `cv` is the standard
    deviation of the gaps over their mean, 1 for a Poisson process; `shape` is 1 / cv^2, the burstiness of other
    benchmarks. A percentile is the smallest value that at least so many percent do not exceed.
    """
    gaps = np.diff(arrivals.arrival)
    span = int(arrivals.arrival[-1] - arrivals.arrival[0])
    cv = float(gaps.std() / gaps.mean()) if span else math.nan
    prompt, output = arrivals.prompt.astype(np.int64), arrivals.output.astype(np.int64)
    return {
        "format": arrivals.format,
        **{name: getattr(arrivals.meta, name) for name in PLAIN},
        "digest": arrivals.digest,
        "requests": len(arrivals),
        "dropped": arrivals.dropped,
        "first_s": int(arrivals.arrival[0]) / 1e9,
        "last_s": arrivals.seconds,
        "rate": (len(arrivals) - 1) * 1e9 / span if span else None,
        "cv": cv if cv > 0 else 0.0 if cv == 0 else None,
        "shape": cv**-2 if cv > 0 else None,
        "most_in_a_minute": _most(arrivals.arrival),
        "gaps_s": {name: value / 1e9 for name, value in _spread(gaps).items()} if len(gaps) else None,
        "prompt_tokens": int(prompt.sum()),
        "output_tokens": int(output.sum()),
        "lengths": {"prompt": _spread(prompt), "output": _spread(output), "both": _spread(prompt + output)},
        "domains": _domains(arrivals),
    }


def _spread(values: np.ndarray) -> dict[str, float]:
    ranked = np.sort(values)
    ranks = {f"p{p}": int(ranked[max(-(-p * len(ranked) // 100), 1) - 1]) for p in PERCENTILES}
    return {"least": int(ranked[0]), "mean": float(ranked.mean()), **ranks, "most": int(ranked[-1])}


def _most(arrival: np.ndarray) -> int:
    """Most requests that come within a minute, wherever it begins."""
    until = np.searchsorted(arrival, arrival + WINDOW_NS)
    return int((until - np.arange(len(arrival))).max())


def _domains(arrivals: Arrivals) -> dict[str, int]:
    names, counts = np.unique(np.array(arrivals.domains or (), dtype=str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def render(info: dict[str, Any]) -> str:
    """`describe`'s answer as text for a terminal."""
    lines = [f"{'arrivals':14}format {info['format']}"]
    lines += [f"{name:14}{info[name]}" for name in PLAIN if info[name] != ""]
    dropped = f", {info['dropped']:,} without tokens left out" if info["dropped"] else ""
    lines.append(f"{'requests':14}{info['requests']:,}{dropped}, {info['first_s']:,.3f} to {info['last_s']:,.3f} s")
    if info["rate"] is None:
        lines.append(f"{'rate':14}all at once")
    else:
        rate = f"{info['rate']:,.4g} a second, at most {info['most_in_a_minute']:,} in a minute"
        lines.append(f"{'rate':14}{rate}")
        shape = f" (gamma shape {info['shape']:.4g})" if info["shape"] else ""
        lines.append(f"{'burstiness':14}cv of the gaps {info['cv']:.4g}{shape}; a Poisson process has 1")
        lines.append(f"{'gaps':14}" + _line(info["gaps_s"], "s"))
    lines.append(f"{'tokens':14}{info['prompt_tokens']:,} prompt, {info['output_tokens']:,} output")
    names = {"prompt": "prompt", "output": "output", "both": "both together"}
    lines += [f"{name:14}" + _line(info["lengths"][key], "tokens") for key, name in names.items()]
    if info["domains"]:
        lines.append(f"{'domains':14}" + ", ".join(f"{name} {count:,}" for name, count in info["domains"].items()))
    return "\n".join(lines)


def _line(spread: dict[str, float], unit: str) -> str:
    told = (f"{name} {_number(value)}" for name, value in spread.items())
    return ", ".join(told) + f" {unit}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
