"""How much of the experts to come is foretold: by recorded predictions, tables of pairs, popularity, repetition."""

from __future__ import annotations

from typing import Any

import numpy as np

from moesim.trace.stats.sample import Sample

MOST_TOKENS = 20_000
"""tokens of a half that are looked at"""
DISTANCES = (1, 2, 3)
NAMES = ("table", "popular", "token_before")
Guesses = dict[str, list[float]]


def foresight(sample: Sample) -> dict[str, Any] | None:
    """What share of the experts to come is foretold on the second half, by what was learnt on the first.

    Layer-wise: of the layer 1, 2 and 3 layers on (`by_distance`). Decoupled: of the next token. `table`: the chances of
    an expert there given one here, summed over the token's experts, the best k taken; `popular`: always the popular
    ones; `token_before`: those of the token before. `recorded`: the first k of the trace's own predictions,
    `recorded_all` all p of them, and `first` how often the first one named is among those chosen (top-1). None where
    there is nothing to learn from.
    """
    learn, test = sample.halves()
    rows, test_rows = _following(learn), _following(test)
    if not len(rows) or not len(test_rows):
        return None
    if sample.experts.shape[1] == 1:
        before, now = learn.experts[rows - 1], learn.experts[rows]
        test_before, test_now = test.experts[test_rows - 1], test.experts[test_rows]
        found = _guessed(before, now, test_before, test_now, test_before, sample.count)
        by_distance = {}
    else:
        by_distance = {
            distance: _at_distance(learn, test, rows, test_rows, distance)
            for distance in DISTANCES
            if distance < sample.experts.shape[1]
        }
        found = by_distance[1]
    return {
        "of": "next layer" if by_distance else "next token",
        **{name: _mean(found[name]) for name in NAMES},
        "by_layer": {name: [None if v != v else v for v in found[name]] for name in found},
        "by_distance": {
            str(distance): {name: _mean(values) for name, values in of.items()} for distance, of in by_distance.items()
        },
        "named": next(iter(sample.predicted.values())).shape[2] if sample.predicted else 0,
        "tokens": len(test_rows),
    }


def _following(half: Sample) -> np.ndarray:
    """Tokens with one before them in their sequence."""
    return np.flatnonzero(np.diff(half.sequence, prepend=-1) == 0)[:MOST_TOKENS]


def _at_distance(learn: Sample, test: Sample, rows: np.ndarray, test_rows: np.ndarray, distance: int) -> Guesses:
    now, later = slice(None, -distance), slice(distance, None)
    learnt, chosen, before = learn.experts[rows], test.experts[test_rows], test.experts[test_rows - 1]
    found = _guessed(
        learnt[:, now], learnt[:, later], chosen[:, now], chosen[:, later], before[:, later], learn.count
    )
    named = test.predicted.get(distance)
    return found if named is None else found | _recorded(named[test_rows][:, now], chosen[:, later])


def _recorded(named: np.ndarray, wanted: np.ndarray) -> Guesses:
    """By layer: what predictions [tokens, layers, p] found of the experts [tokens, layers, k]."""
    layers, k = range(wanted.shape[1]), wanted.shape[2]
    return {
        "recorded": [_recall(named[:, i, :k], wanted[:, i]) for i in layers],
        "recorded_all": [_recall(named[:, i], wanted[:, i]) for i in layers],
        "first": [_recall(wanted[:, i], named[:, i, :1]) for i in layers],
    }


def _guessed(
    now: np.ndarray,
    ahead: np.ndarray,
    test_now: np.ndarray,
    test_ahead: np.ndarray,
    test_before: np.ndarray,
    count: int,
) -> Guesses:
    """By layer, of [tokens, layers, k]: learnt from `now` and `ahead`, tried on the others."""
    layers = range(now.shape[1])
    return {
        "table": [_table(now[:, i], ahead[:, i], test_now[:, i], test_ahead[:, i], count) for i in layers],
        "popular": [_popular(ahead[:, i], test_ahead[:, i], count) for i in layers],
        "token_before": [_recall(test_before[:, i], test_ahead[:, i]) for i in layers],
    }


def _table(now: np.ndarray, ahead: np.ndarray, test_now: np.ndarray, test_ahead: np.ndarray, count: int) -> float:
    spare = count + 1  # -1 falls into the first row and column
    pairs = (now[:, :, None].astype(np.int64) + 1) * spare + ahead[:, None, :] + 1
    table = np.bincount(pairs.ravel(), minlength=spare * spare).reshape(spare, spare).astype(np.float64)
    table[0] = 0
    table = table[:, 1:] / np.maximum(table.sum(axis=1, keepdims=True), 1)
    k = ahead.shape[1]
    recalls = []
    for first in range(0, len(test_now), 1000):
        scores = table[test_now[first : first + 1000] + 1].sum(axis=1)
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


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else None
