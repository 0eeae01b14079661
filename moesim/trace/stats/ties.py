"""What experts have to do with the domain of a text, and with those of the layer before: counts and bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from moesim.trace.stats.measures import counts_of
from moesim.trace.stats.sample import Sample


def specialisation(sample: Sample) -> dict[str, Any] | None:
    """How far the domains of a trace differ in their experts; None where there is only one."""
    names = sorted(set(sample.domains))
    if len(names) < 2:
        return None
    of_token = np.repeat([names.index(domain) for domain in sample.domains], np.diff(sample.offsets))
    return apart(
        {name: counts_of(Sample(sample.experts[of_token == n], sample.offsets, sample.count, sample.of))
         for n, name in enumerate(names)}
    )  # fmt: skip


def apart(counts: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Of counts [layers, experts] by domain, each domain weighing the same; means over layers.

    `apart`: the share of a domain's choices that would have to go elsewhere to be spread as those of all domains are
    (total variation). `largest`: the share of its most popular expert. `bits`: what the domain tells of an expert
    (mutual information), out of `of_bits` that an expert is worth (entropy).
    """
    shares = np.array([of / np.maximum(of.sum(axis=1, keepdims=True), 1) for of in counts.values()])
    overall = shares.mean(axis=0)
    far = np.abs(shares - overall).sum(axis=2).mean(axis=1) / 2
    bits = entropy(overall) - np.array([entropy(of) for of in shares]).mean(axis=0)
    return {
        "apart": dict(zip(counts, far.tolist(), strict=True)),
        "largest": dict(zip(counts, shares.max(axis=2).mean(axis=1).tolist(), strict=True)),
        "mean_apart": float(far.mean()),
        "bits": float(bits.mean()),
        "of_bits": float(entropy(overall).mean()),
    }


def layer_ties(sample: Sample) -> dict[str, Any] | None:
    """Mutual information of the first experts of neighbouring layers, in bits.

    `bits` and `of_bits` (the entropy of the later layer's) are means over pairs of layers; the bias of counting few
    tokens is taken off (Miller and Madow 1955). None for a decoupled router, and where there are fewer tokens than
    pairs of experts, as that bias is too large then.
    """
    first = sample.first
    if first.shape[1] < 2 or len(first) < sample.count**2:
        return None
    tied, worth = [], []
    for layer in range(first.shape[1] - 1):
        here, there = first[:, layer], first[:, layer + 1]
        used = (here >= 0) & (there >= 0)
        joint = np.bincount(here[used].astype(np.int64) * sample.count + there[used], minlength=sample.count**2)
        tied.append(mutual(joint.reshape(sample.count, sample.count)))
        worth.append(float(entropy(joint.reshape(sample.count, -1).sum(axis=0) / max(joint.sum(), 1))))
    return {"bits": float(np.mean(tied)), "of_bits": float(np.mean(worth)), "by_layer": tied}


def mutual(joint: np.ndarray) -> float:
    """Mutual information in bits of rows and columns of a table of counts, less the bias of counting."""
    count = joint.sum()
    if not count:
        return 0.0
    rows, columns = joint.sum(axis=1), joint.sum(axis=0)
    bits = float(entropy(rows / count) + entropy(columns / count) - entropy(joint.ravel() / count))
    cells = np.count_nonzero(joint) - np.count_nonzero(rows) - np.count_nonzero(columns) + 1
    return max(bits - cells / (2 * float(count) * np.log(2)), 0.0)


def entropy(shares: np.ndarray) -> Any:
    """In bits, along the last axis."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return -np.where(shares > 0, shares * np.log2(shares), 0).sum(axis=-1)
