"""All timelines, in the order of docs/timelines.md."""

from __future__ import annotations

from tests.sim.timelines.scenes import cache, host, instant, layer, link
from tests.sim.timelines.timeline import Figure

FIGURES: tuple[Figure, ...] = (*link.FIGURES, *cache.FIGURES, *layer.FIGURES, *host.FIGURES, *instant.FIGURES)
