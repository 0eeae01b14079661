"""Balance, reuse, overlap, breadth and foresight of routing; every number is counted, none is modelled."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.trace.info import persistence
from moesim.trace.stats.sample import Sample

LAGS = (1, 2, 4, 8, 16, 64)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
DRAWS = 200
MOST_USES = 2_000_000
"""uses whose reuse distance is counted; a longer trace is cut"""
MOST_TOKENS = 20_000
"""tokens whose next layer is predicted"""


def counts_of(sample: Sample) -> np.ndarray:
    """int64 [R, experts]: how often each expert is chosen in each layer (once for all layers if decoupled)."""
    layers = sample.experts.shape[1]
    chosen = sample.experts.astype(np.int64) + np.arange(layers)[:, None] * sample.count
    flat = chosen[sample.experts >= 0]
    return np.bincount(flat, minlength=layers * sample.count).reshape(layers, sample.count)


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
    """Share of a token's experts that the token so many before it chose too, and what it would be by chance."""
    counts = counts_of(sample)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    chosen = (sample.experts >= 0).sum() / max(sample.experts.shape[0] * sample.experts.shape[1], 1)
    by_lag = {str(lag): persistence(sample.experts, sample.offsets, lag) for lag in LAGS}
    return {
        "by_lag": by_lag,
        "even": float(chosen / sample.count),
        "popular": float(np.minimum((shares**2).sum(axis=1) * chosen, 1).mean()),
    }


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


def foresight(sample: Sample) -> dict[str, Any] | None:
    """What share of the experts to come a table foretells, learnt on the first half and counted on the second.

    Layer-wise: P(expert of the next layer | expert of this one), summed over the token's experts, the best k taken.
    Decoupled: the same from a token to the next. Beside it: the popular ones, and those of the token before. None
    where there is nothing to learn from.
    """
    learn, test = sample.halves()
    layerwise = sample.experts.shape[1] > 1
    pairs = [_pairs(half, layerwise) for half in (learn, test)]
    if not all(len(now) for now, _, _ in pairs):
        return None
    (now, ahead, _), (test_now, test_ahead, before) = pairs
    layers, count = range(now.shape[1]), sample.count
    table = [_found(now[:, i], ahead[:, i], test_now[:, i], test_ahead[:, i], count) for i in layers]
    popular = [_popular(ahead[:, i], test_ahead[:, i], count) for i in layers]
    kept = [_recall(before[:, i], test_ahead[:, i]) for i in layers]
    by_layer = {"table": table, "popular": popular, "token_before": kept}
    return {
        "of": "next layer" if layerwise else "next token",
        **{name: float(np.nanmean(values)) for name, values in by_layer.items()},
        "by_layer": {name: [None if v != v else v for v in values] for name, values in by_layer.items()},
        "tokens": len(test_now),
    }


def _pairs(half: Sample, layerwise: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is known, what is to be foretold, and what the token before had there: [tokens, layers - 1 or 1, k]."""
    follows = np.flatnonzero(np.diff(half.sequence, prepend=-1) == 0)[:MOST_TOKENS]
    now, before = half.experts[follows], half.experts[follows - 1]
    return (now[:, :-1], now[:, 1:], before[:, 1:]) if layerwise else (before, now, before)


def _found(now: np.ndarray, ahead: np.ndarray, test_now: np.ndarray, test_ahead: np.ndarray, count: int) -> float:
    spare = count + 1  # -1 falls into the spare row and column
    table = np.zeros((spare, spare))
    np.add.at(table, (now[:, :, None], ahead[:, None, :]), 1)
    table[-1] = 0
    table = table[:, :-1] / np.maximum(table.sum(axis=1, keepdims=True), 1)
    k = ahead.shape[1]
    recalls = []
    for first in range(0, len(test_now), 1000):
        scores = table[test_now[first : first + 1000]].sum(axis=1)
        best = np.argpartition(-scores, min(k, count - 1), axis=1)[:, :k]
        recalls.append(_hits(best, test_ahead[first : first + 1000]))
    hits, wanted = np.sum(recalls, axis=0)
    return float(hits / wanted) if wanted else float("nan")


def _popular(ahead: np.ndarray, test_ahead: np.ndarray, count: int) -> float:
    best = np.argsort(-np.bincount(ahead[ahead >= 0], minlength=count), kind="stable")[: ahead.shape[1]]
    return _recall(np.broadcast_to(best, test_ahead.shape), test_ahead)


def _recall(guessed: np.ndarray, wanted: np.ndarray) -> float:
    hits, count = _hits(guessed, wanted)
    return float(hits / count) if count else float("nan")


def _hits(guessed: np.ndarray, wanted: np.ndarray) -> tuple[int, int]:
    there = wanted >= 0
    again = (wanted[:, :, None] == guessed[:, None, :]).any(axis=2) & there
    return int(again.sum()), int(there.sum())
