"""The queue as a batch policy sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Routes = np.ndarray | Callable[[], np.ndarray | None] | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one step. A prompt longer than `max_tokens` runs in chunks of that size."""

    max_tokens: int
    max_requests: int


class Queued:
    """One request with tokens that are ready to run and whose routes (decoupled router) are visible.

    `routes` are the strongest experts of the `known` next tokens, int16 [known], and nothing beyond them, not even as
    the base of the array; or what gives them when a policy first asks. None for a layer-wise router.
    """

    __slots__ = ("_routes", "_span", "known", "place", "position", "prompt_left", "request", "skipped", "turns")

    def __init__(self, request: int, position: int, prompt_left: int, known: int, routes: Routes) -> None:
        self.request = request
        self.position = position
        """tokens already processed"""
        self.prompt_left = prompt_left
        """prompt tokens still to process; 0 while decoding"""
        self.known = known
        """next contiguous tokens that may run now: the rest of the prompt, or one"""
        self.skipped = 0
        """steps in a row that passed this request over"""
        self.place = self.turns = 0
        """of the scheduler: its number among all that joined the queue; what it adds to the bound of those behind it"""
        self._routes = routes
        self._span: tuple[int, int] | None = None

    def __repr__(self) -> str:
        return f"Queued({self.request}, position={self.position}, known={self.known}, skipped={self.skipped})"

    @property
    def decoding(self) -> bool:
        return self.prompt_left == 0

    @property
    def experts(self) -> np.ndarray:
        """Strongest expert of each of the next `known` tokens, int16 [known] (decoupled router only)."""
        routes = self._given()
        assert routes is not None, "a layer-wise router shows no routes in the queue"
        return routes

    def _given(self) -> np.ndarray | None:
        if callable(self._routes):
            self._routes = self._routes()
        return self._routes

    def span(self) -> tuple[int, int]:
        """(expert, tokens) of the next maximal run of one expert."""
        if self._span is None:
            experts = self.experts
            change = np.flatnonzero(experts != experts[0])
            self._span = int(experts[0]), int(change[0]) if len(change) else len(experts)
        return self._span

    def advance(self, tokens: int) -> None:
        """`tokens` of the known ones have run."""
        self.position += tokens
        self.known -= tokens
        self.prompt_left = max(0, self.prompt_left - tokens)
        self.skipped = 0
        self._span = None
        if self.known:
            routes = self._given()
            self._routes = None if routes is None else routes[tokens:]

    def copy(self) -> Queued:
        twin = Queued(self.request, self.position, self.prompt_left, self.known, self._routes)
        twin.skipped, twin._span = self.skipped, self._span
        return twin
