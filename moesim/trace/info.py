"""What is in a routing trace: counts, shares of experts, persistence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from moesim.trace.routing import RoutingTrace

LAGS = (1, 2, 4, 16, 64)
BLOCK = 1 << 24
PLAIN = (
    "model",
    "label",
    "router",
    "layers",
    "experts",
    "k",
    "m",
    "p",
    "device",
    "dtype",
    "created",
    "command",
    "outputs",
    "notes",
)


def describe(trace: RoutingTrace) -> dict[str, Any]:
    """Statistics of a trace as plain numbers: metadata, sequences and tokens, expert shares, persistence by lag."""
    meta = trace.meta
    sizes = meta.key_sizes
    return {
        "digest": trace.digest,
        **{name: getattr(meta, name) for name in PLAIN},
        "keys": meta.keys,
        "key_bytes": {"smallest": int(sizes.min()), "largest": int(sizes.max()), "all": int(sizes.sum())},
        "sequences": trace.sequences,
        "tokens": trace.tokens,
        "prompt_tokens": int(trace.prompt_tokens.sum()),
        "output_tokens": int(trace.output_tokens.sum()),
        "lengths": {"prompt": _spread(trace.prompt_tokens), "output": _spread(trace.output_tokens)},
        "domains": {name: _domain(trace, name) for name in sorted(set(trace.domains))},
        "shares": shares(trace.experts, meta.experts),
        "persistence": {str(lag): persistence(trace.experts, trace.offsets, lag) for lag in LAGS},
        "prompts": [source.model_dump() for source in meta.prompts],
        "report": meta.report,
    }


def shares(experts: np.ndarray, count: int) -> list[float]:
    """Share of each expert among all choices of `experts` [tokens, R, k]; -1 (none) does not count."""
    chosen = experts[experts >= 0]
    return [float(n) / max(len(chosen), 1) for n in np.bincount(chosen, minlength=count)]


def persistence(experts: np.ndarray, offsets: np.ndarray, lag: int) -> float | None:
    """Mean share of a token's experts that the token `lag` before it in its sequence chose too; None without a pair.

    For k = 1 this is P(same expert as `lag` tokens before); with a layer-wise router it is the mean over layers.
    """
    lengths = np.diff(offsets)
    position = np.arange(len(experts)) - np.repeat(offsets[:-1], lengths)
    rows = np.flatnonzero(position >= lag)
    again = used = 0
    for part in blocks(rows, experts):
        now, before = experts[part], experts[part - lag]
        there = now >= 0
        used += int(there.sum())
        again += int(((now[..., :, None] == before[..., None, :]).any(axis=-1) & there).sum())
    return again / used if used else None


def blocks(rows: np.ndarray, experts: np.ndarray) -> Iterator[np.ndarray]:
    """`rows` in parts whose experts [tokens, R, k], each compared with k others, take some 16 MB."""
    size = max(BLOCK // (experts.shape[1] * experts.shape[2] ** 2), 1)
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def render(info: dict[str, Any]) -> str:
    """`describe`'s answer as text for a terminal."""
    lines = [f"{name:14}{info[name]}" for name in PLAIN if info[name] != ""]
    size = info["key_bytes"]
    lines.append(
        f"{'keys':14}{info['keys']}, {size['smallest']:,}..{size['largest']:,} bytes each, {size['all']:,} in all"
    )
    lines.append(f"{'sequences':14}{info['sequences']:,}")
    lines.append(
        f"{'tokens':14}{info['tokens']:,} ({info['prompt_tokens']:,} prompt, {info['output_tokens']:,} output)"
    )
    for phase, spread in info["lengths"].items():
        lines.append(f"{phase + ' length':14}" + ", ".join(f"{name} {value:g}" for name, value in spread.items()))
    kept = [f"lag {lag}: {value:.3f}" for lag, value in info["persistence"].items() if value is not None]
    lines.append(f"{'persistence':14}" + ", ".join(kept))
    lines.append("")
    return "\n".join([*lines, *_domain_table(info)])


def _spread(lengths: np.ndarray) -> dict[str, float]:
    return {
        "least": int(lengths.min()),
        "median": float(np.median(lengths)),
        "mean": round(float(lengths.mean()), 2),
        "most": int(lengths.max()),
    }


def _domain(trace: RoutingTrace, name: str) -> dict[str, Any]:
    mine = np.array([domain == name for domain in trace.domains])
    rows = np.repeat(mine, trace.lengths)
    return {
        "sequences": int(mine.sum()),
        "prompt_tokens": int(trace.prompt_tokens[mine].sum()),
        "output_tokens": int(trace.output_tokens[mine].sum()),
        "shares": shares(trace.experts[rows], trace.meta.experts),
    }


def _domain_table(info: dict[str, Any]) -> list[str]:
    count = len(info["shares"])
    shown = min(count, 8)
    head = (
        f"{'domain':14}{'sequences':>10}{'prompt':>10}{'output':>10}   share of expert "
        + (" ".join(f"{expert:>5}" for expert in range(shown)))
        + (" ..." if count > shown else "")
    )
    rows = [head]
    for name, part in info["domains"].items():
        numbers = f"{part['sequences']:>10,}{part['prompt_tokens']:>10,}{part['output_tokens']:>10,}"
        rows.append(f"{name:14}{numbers}{'':19}" + _row(part["shares"], shown))
    total = f"{info['sequences']:>10,}{info['prompt_tokens']:>10,}{info['output_tokens']:>10,}"
    return [*rows, f"{'all':14}{total}{'':19}" + _row(info["shares"], shown)]


def _row(values: list[float], shown: int) -> str:
    return " ".join(f"{value:5.3f}" for value in values[:shown])
