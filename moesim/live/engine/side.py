"""The router's own place: prompts are routed there while they wait, one after another (docs/model.md)."""

from __future__ import annotations

import heapq
import threading
from contextlib import nullcontext

import numpy as np
import torch

from moesim.live.engine.shared import Shared
from moesim.live.kernels import Batch, Prompt, Router


class Errand:
    """Tokens to be routed; `done` is when they are, in ns of the run, and -1 before."""

    __slots__ = ("chosen", "done", "ids", "not_before", "prompts", "singles")

    def __init__(self, ids: list[int], prompts: list[Prompt], singles: list[tuple[int, int]], not_before: int) -> None:
        """As a `Batch`: prompts, then single tokens as (place, position)."""
        self.ids, self.prompts, self.singles, self.not_before = ids, prompts, singles, not_before
        self.chosen: np.ndarray | None = None
        """experts [tokens, k], once it is done"""
        self.done = -1


class SideRouter:
    """Routes errands one after another, in the order of their times and none before its own.

    Errands may be sent ahead: one whose time has come does not wait behind those that are for later. Without a `router`
    they are done at their time.
    """

    def __init__(self, shared: Shared, router: Router | None, device: torch.device) -> None:
        self.shared, self.router, self.device = shared, router, device
        self.failure: BaseException | None = None
        self._waiting: list[tuple[int, int, Errand]] = []
        """a heap by time, and among equal ones as they were sent"""
        self._sent = 0
        self._news = threading.Condition()
        self._closed = False
        self.at_rest = threading.Lock()
        """whoever holds it may change the router's cache"""
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        shared.checks.append(self.check)
        self._thread = threading.Thread(target=self._work, name="router", daemon=True)
        self._thread.start()

    def send(self, errand: Errand) -> None:
        with self._news:
            heapq.heappush(self._waiting, (errand.not_before, self._sent, errand))
            self._sent += 1
            self._news.notify()

    def check(self) -> None:
        """Raises what ended it."""
        if self.failure is not None:
            raise RuntimeError("the router has failed") from self.failure

    def close(self) -> None:
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join()

    def _next(self) -> Errand | None:
        with self._news:
            while not self._closed:
                early = self._waiting[0][0] - self.shared.now() if self._waiting else None
                if early is not None and early <= 0:
                    return heapq.heappop(self._waiting)[2]
                self._news.wait(None if early is None else early / 1e9)
        return None

    @torch.inference_mode()
    def _work(self) -> None:
        while (errand := self._next()) is not None:
            try:
                with self.at_rest:
                    self._route(errand)
            except BaseException as error:
                self.failure = error
                self.shared.tell()
                return
            errand.done = self.shared.now()
            self.shared.tell()

    def _route(self, errand: Errand) -> None:
        if self.router is None:
            return
        with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
            batch = Batch(errand.prompts, errand.singles, self.device)
            chosen = self.router.route(torch.tensor(errand.ids, device=self.device), batch)[0]
            errand.chosen = chosen.cpu().numpy()
