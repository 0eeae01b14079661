"""What the gate of one layer weighs its experts with."""

from __future__ import annotations

import numpy as np


def weigh(ids: np.ndarray, weights: np.ndarray, experts: int) -> tuple[np.ndarray, np.ndarray]:
    """Per expert: the gate weight it has, in tokens, and the least share of a token's that goes to what comes before.

    ids int [tokens, k] (-1: none) and weights [tokens, k] of a layer event; both results are float64 [experts]. A
    token's weights count as shares of their sum (all equal where that is 0). Before an expert come those that the token
    weighs more and, of equals, those it names first: HOBBIT's s (arXiv 2411.01433); 1 for an expert of no token.
    """
    there = ids >= 0
    share = np.where(there, weights, 0).astype(np.float64)
    total = share.sum(axis=1, keepdims=True)
    share = np.where(total > 0, share, there)
    share /= np.maximum(share.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    order = np.argsort(-share, axis=1, kind="stable")
    ranked = np.take_along_axis(share, order, axis=1)
    before = np.empty_like(share)
    np.put_along_axis(before, order, np.cumsum(ranked, axis=1) - ranked, axis=1)
    least = np.ones(experts)
    np.minimum.at(least, ids[there], before[there])
    return np.bincount(ids[there], weights=share[there], minlength=experts), least
