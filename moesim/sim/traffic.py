"""From a traffic section to draws: gaps between requests, their lengths, the arrivals of a file (docs/traffic.md)."""

from __future__ import annotations

import numpy as np

from moesim.experiment import ArrivalsFile, Lengths, Traffic
from moesim.trace import arrivals as table
from moesim.trace import generators
from moesim.trace.arrivals import Arrivals
from moesim.trace.generators import Gap, Length


def gap_of(traffic: Traffic) -> Gap | None:
    """Gaps between arrivals; None where the kind has none of its own."""
    if traffic.kind == "poisson":
        return generators.exponential(traffic.rate or 1)
    if traffic.kind == "gamma":
        return generators.gamma(traffic.rate or 1, traffic.cv or 1)
    return None


def length_of(lengths: Lengths | None, captured: np.ndarray) -> Length | None:
    """Draws of a length; `captured` are those of the sequences that may be used. None: as the bound sequence has."""
    if lengths is None:
        return None
    if lengths.kind == "fixed":
        return generators.fixed(lengths.tokens or 1)
    if lengths.kind == "uniform":
        return generators.uniform(lengths.min or 1, lengths.max or 1)
    if lengths.kind == "lognormal":
        return generators.lognormal(lengths.mean or 1, lengths.cv or 1, lengths.min or 1, lengths.max)
    return generators.empirical(captured)


def chosen(arrivals: Arrivals, spec: ArrivalsFile, rng: np.random.Generator) -> Arrivals:
    """What a run takes of a file: its slice, what fits the context, a sample, at the rate that is asked."""
    part = table.sliced(arrivals, round(spec.start * 1e9), None if spec.end is None else round(spec.end * 1e9))
    if spec.context_max is not None:
        part = table.fitting(part, spec.context_max)
    if spec.sample < 1:
        part = table.sampled(part, spec.sample, rng)
    return table.scaled(part, spec.scale) if spec.scale != 1 else part
