"""When tokens came out, kept in four bytes a token and twelve a step until the run is over."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np


class TokenLog:
    """The instant at which each step gave its tokens, and the numbers of the requests that got one."""

    __slots__ = ("at", "counts", "requests")

    def __init__(self) -> None:
        self.at, self.counts, self.requests = array("q"), array("i"), array("i")

    def add(self, at: int, requests: Sequence[int]) -> None:
        """A step gave each of these requests a token at `at`."""
        self.at.append(at)
        self.counts.append(len(requests))
        self.requests.extend(requests)

    def table(self) -> dict[str, np.ndarray]:
        """A row per output token, in the order in which they came: its request, and when it was there."""
        at = np.repeat(np.array(self.at, np.int64), np.array(self.counts, np.int64))
        return {"request": np.array(self.requests, np.int32), "at_ns": at}
