"""All timelines, in the order of docs/timelines.md."""

from __future__ import annotations

from tests.sim.timelines.scenes import cache, host, instant, layer, link, prefetch
from tests.sim.timelines.timeline import Figure

FIGURES: tuple[Figure, ...] = tuple(
    figure for subject in (link, prefetch, cache, layer, host, instant) for figure in subject.FIGURES
)
