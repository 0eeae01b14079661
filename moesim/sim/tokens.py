"""When tokens came out, kept in twelve bytes a token and less."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

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

    def gaps(self, table: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The times between successive tokens of each request that is measured and has finished.

        `table` is the table of requests. Requests of one batch mostly share a gap: `gap_ns` has every gap that
        occurred, ascending, and `tokens` how many tokens came so long after the one before.
        """
        counted = np.asarray(table["measured"], bool) & (np.asarray(table["finished_ns"]) >= 0)
        keep = np.zeros(max(np.asarray(table["request"]).max(initial=-1), max(self.requests, default=-1)) + 1, bool)
        keep[np.asarray(table["request"])[counted]] = True
        who, when = np.asarray(self.requests), np.repeat(np.asarray(self.at), np.asarray(self.counts))
        kept = keep[who]
        who, when = who[kept], when[kept]
        order = np.argsort(who, kind="stable")  # the tokens of a request beside each other, in their order
        who, when = who[order], when[order]
        gaps, tokens = np.unique(np.diff(when)[who[1:] == who[:-1]], return_counts=True)
        return {"gap_ns": gaps.astype(np.int64), "tokens": tokens.astype(np.int64)}
