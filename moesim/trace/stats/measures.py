"""Balance, reuse, overlap and breadth of routing; every number is counted, none is modelled."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.trace.info import blocks, persistence
from moesim.trace.stats.sample import Sample

LAGS = (1, 2, 4, 8, 16, 64)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
DRAWS = 200
MOST_USES = 2_000_000
"""uses whose reuse distance is counted; a longer trace is cut"""


def counts_of(sample: Sample) -> np.ndarray:
    """int64 [R, experts]: how often each expert is chosen in each layer (once for all layers if decoupled)."""
    layers = range(sample.experts.shape[1])
    # One layer at a time, -1 falling into a spare column: a trace may be long.
    return np.array([np.bincount(sample.experts[:, i].ravel() + 1, minlength=sample.count + 1)[1:] for i in layers])


def balance(sample: Sample) -> dict[str, Any]:
    """How evenly experts are used, and what pinning the popular ones would hit.

    `covered`: share of choices that fall on the most popular part of a layer's experts, by part. `pinned`: the same
    with the popular ones chosen on the first half and counted on the second. `evenness`: entropy / its maximum, mean
    over layers. `unused`: share of (layer, expert) pairs never chosen.
    """
    counts = counts_of(sample)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        entropy = -np.where(shares > 0, shares * np.log(shares), 0).sum(axis=1)
    curve = np.cumsum(-np.sort(-shares, axis=1), axis=1).mean(axis=0)
    first, second = (counts_of(half) for half in sample.halves())
    order = np.argsort(-first, axis=1, kind="stable")
    later = np.take_along_axis(second / np.maximum(second.sum(axis=1, keepdims=True), 1), order, axis=1)
    pinned = np.cumsum(later, axis=1).mean(axis=0)
    parts = {f"{percent} %": max(round(sample.count * percent / 100), 1) for percent in (10, 25, 50)}
    return {
        "evenness": float((entropy / max(np.log(sample.count), 1e-12)).mean()),
        "largest_share": float(shares.max(axis=1).mean()),
        "unused": float((counts == 0).mean()),
        "covered": {part: float(curve[experts - 1]) for part, experts in parts.items()},
        "pinned": {part: float(pinned[experts - 1]) for part, experts in parts.items()},
        "parts": parts,
        "curve": [0.0, *curve.tolist()],
        "pinned_curve": [0.0, *pinned.tolist()],
    }


def reuse(sample: Sample) -> dict[str, Any]:
    """Reuse distances: how many other experts of the layer were used since an expert's last use.

    `hit_share[c]` is the share of uses whose distance is below c: what an LRU cache of c experts a layer hits, as soon
    as it holds a token's own (Mattson et al. 1970). `tokens`: median tokens between two uses of an expert.
    """
    experts = sample.experts[: max(MOST_USES // (sample.experts.shape[1] * sample.experts.shape[2]), 1)]
    distances = np.zeros(sample.count + 1, dtype=np.int64)  # the last: first uses
    gaps: list[np.ndarray] = []
    for layer in range(experts.shape[1]):
        found, between = _distances(experts[:, layer].tolist(), sample.count)
        distances += found
        gaps.append(between)
    uses = int(distances.sum())
    share = np.concatenate([[0], np.cumsum(distances[:-1])]) / max(uses, 1)
    gap = np.concatenate(gaps)
    return {
        "uses": uses,
        "first_uses": float(distances[-1] / max(uses, 1)),
        "hit_share": share.tolist(),
        "experts_for": {f"{p} %": _least(share, p / 100) for p in (50, 80, 90)},
        "median_tokens": float(np.median(gap)) if len(gap) else None,
        "tokens_read": len(experts),
    }


def _distances(rows: list[list[int]], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one layer: uses by reuse distance (the last: first uses), and the tokens between uses."""
    recent: list[int] = []  # most recent last
    last: dict[int, int] = {}
    distances, gaps = [0] * (count + 1), []
    for token, row in enumerate(rows):
        own = [expert for expert in row if expert >= 0]
        for expert in own:
            if expert in last:
                distances[len(recent) - 1 - recent.index(expert)] += 1
                gaps.append(token - last[expert])
            else:
                distances[count] += 1
        for expert in own:
            if expert in last:
                recent.remove(expert)
            recent.append(expert)
            last[expert] = token
    return np.array(distances), np.array(gaps, dtype=np.int64)


def _least(share: np.ndarray, wanted: float) -> int | None:
    """The smallest cache that hits so much; None where no cache does."""
    enough = np.flatnonzero(share >= wanted)
    return int(enough[0]) if len(enough) else None


def overlap(sample: Sample) -> dict[str, Any]:
    """Share of a token's experts that the token so many before it chose too, and what it would be by chance.

    `same_by_lag`: share of a token's decisions (one a layer) that choose exactly those of the token so many before.
    """
    counts = counts_of(sample)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    chosen = (sample.experts >= 0).sum() / max(sample.experts.shape[0] * sample.experts.shape[1], 1)
    by_lag = {str(lag): persistence(sample.experts, sample.offsets, lag) for lag in LAGS}
    return {
        "by_lag": by_lag,
        "same_by_lag": {str(lag): _same(sample, lag) for lag in LAGS},
        "even": float(chosen / sample.count),
        "popular": float(np.minimum((shares**2).sum(axis=1) * chosen, 1).mean()),
    }


def _same(sample: Sample, lag: int) -> float | None:
    experts, again, decisions = sample.experts, 0, 0
    place = np.arange(sample.tokens) - np.repeat(sample.offsets[:-1], np.diff(sample.offsets))
    for rows in blocks(np.flatnonzero(place >= lag), experts):
        now, before = (np.sort(experts[at], axis=2) for at in (rows, rows - lag))
        there = now[:, :, -1] >= 0
        decisions += int(there.sum())
        again += int(((now == before).all(axis=2) & there).sum())
    return again / decisions if decisions else None


def breadth(sample: Sample, seed: int = 0) -> dict[str, Any]:
    """Unique experts of a layer in a batch of tokens drawn at random, of different sequences where there are enough."""
    rng = np.random.default_rng(seed)
    sequence = sample.sequence
    sizes = [size for size in BATCHES if size <= sample.tokens]
    chosen = float((sample.experts >= 0).sum() / (sample.tokens * sample.experts.shape[1]))
    unique, even = [], []
    for size in sizes:
        draws = [_unique(sample, _draw(rng, sequence, size)) for _ in range(DRAWS)]
        unique.append(float(np.mean(draws)))
        even.append(float(sample.count * (1 - (1 - chosen / sample.count) ** size)))
    return {"batches": sizes, "unique": unique, "even": even, "draws": DRAWS, "experts": sample.count}


def _draw(rng: np.random.Generator, sequence: np.ndarray, size: int) -> np.ndarray:
    count = int(sequence[-1]) + 1
    if size > count:
        return rng.choice(len(sequence), size, replace=False)
    picked = rng.choice(count, size, replace=False)
    first = np.searchsorted(sequence, picked)
    return first + (rng.random(size) * (np.searchsorted(sequence, picked, side="right") - first)).astype(np.int64)


def _unique(sample: Sample, tokens: np.ndarray) -> float:
    layers = sample.experts.shape[1]
    used = np.zeros((layers, sample.count + 1), dtype=bool)
    used[np.arange(layers)[:, None], sample.experts[tokens]] = True  # -1 falls into the spare column
    return float(used[:, :-1].sum() / layers)
