"""Small streams of layer events."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from moesim.replay.stream import Stream


def stream(events: Sequence[Sequence[int]], layers: Sequence[int] | None = None, layer_count: int = 1) -> Stream:
    """Events of output steps, one a step unless `layers` says of which layer each is (a step ends where it falls)."""
    of = np.array(layers if layers is not None else [0] * len(events), dtype=np.int32)
    return Stream(
        keys=np.array([key for keys in events for key in keys], dtype=np.int32),
        bounds=np.cumsum([0, *map(len, events)]).astype(np.int64),
        layers=of,
        steps=np.cumsum(np.diff(of, prepend=layer_count) <= 0) - 1,
        output=np.ones(len(events), dtype=bool),
        sequences=np.zeros(len(events), dtype=np.int32),
        layer_count=layer_count,
    )


KEYS = 7


@st.composite
def event_lists(draw, most: int = 30, widest: int = 4) -> list[list[int]]:
    """Events of 1 to `widest` distinct keys of 7."""
    event = st.lists(st.integers(0, KEYS - 1), min_size=1, max_size=widest, unique=True)
    return draw(st.lists(event, min_size=1, max_size=most))
