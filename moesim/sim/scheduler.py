"""The queue, and forming steps from it: iteration-level batching (Orca, OSDI'22)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np

from moesim.policy import BatchPolicy, Limits, Queued
from moesim.policy.queue import Routes
from moesim.sim.kv import Preempted
from moesim.sim.work import Part

Again = Callable[[int, int], np.ndarray | None]
"""routes of the first so many tokens of a request, for what has to run again"""


class Scheduler:
    """Requests with tokens that are ready, in the order in which they became ready; and what follows each of them.

    `routes` are the strongest experts of the tokens that become ready (None for a layer-wise router).
    """

    def __init__(self, policy: BatchPolicy, limits: Limits) -> None:
        self.policy = policy
        self.limits = limits
        self.queue: dict[int, Queued] = {}
        self.longest_pass_over = 0
        """most steps in a row that passed over a request which the policy had admitted"""
        self.bounded = policy.bound(limits, 0) is not None
        self.ahead = self.most_ahead = 0
        """turns of all in the queue, and the most that were ahead of a request when it was admitted"""

    def __len__(self) -> int:
        return len(self.queue)

    def admit(self, request: int, prompt: int, routes: Routes) -> None:
        """A prompt has become visible."""
        self._join(Queued(request, 0, prompt, prompt, routes))

    def sampled(self, request: int, position: int, routes: Routes) -> None:
        """The token at `position` is there and routed: it waits at the end of the queue."""
        self._join(Queued(request, position, 0, 1, routes))

    @property
    def pass_over_bound(self) -> int | None:
        """The largest bound that the policy states for a request it has admitted so far; None where it states none.

        It states none for a queue in which others are put ahead of those that wait: where somebody was preempted.
        """
        return self.policy.bound(self.limits, self.most_ahead) if self.bounded else None

    def to_front(self, preempted: Sequence[Preempted], routes: Again) -> None:
        """These gave up their memory, the one admitted first being the last; with swapping they are as they were."""
        if not preempted:
            return
        self.bounded = False
        front: dict[int, Queued] = {}
        for request, _, prompt, swapped in reversed(preempted):
            gone = self.queue.pop(request)
            if swapped:
                gone.skipped = 0
                front[request] = gone
            else:
                front[request] = Queued(request, 0, prompt, prompt, partial(routes, request, prompt))
        rest = dict(self.queue)
        self.queue.clear()
        self.queue.update(front | rest)

    def ready(self) -> bool:
        """Whether a step can be formed."""
        return bool(self.queue)

    def form(self) -> tuple[Part, ...]:
        """Ask the policy for the next step and take it out of the queue, which must be `ready`."""
        shown = self._shown()
        chosen = self.policy.form(shown, self.limits)
        self._hold_to_rules(chosen, shown)
        return self.take([Part(q.request, q.position, n, q.prompt_left > 0) for q, n in chosen], shown)

    def _shown(self) -> list[Queued]:
        return list(self.queue.values())

    def take(self, parts: Sequence[Part], shown: Sequence[Queued]) -> tuple[Part, ...]:
        """These parts run now: advance their requests, age the others that were shown."""
        queue = self.queue
        for request, _, tokens, _ in parts:
            queued = queue[request]
            waited = self._turns(queued)
            if queued.known == tokens:
                del queue[request]
            begins = not self.policy.admitted(queued)
            queued.advance(tokens)
            self.ahead += self._turns(queued) - waited
            if begins and queued.known:
                self._admitted_in_place(request)
        if len(parts) < len(shown):
            chosen = {part.request for part in parts}
            self._age(queued for queued in shown if queued.request not in chosen)
        return tuple(parts)

    def _age(self, passed_over: Iterable[Queued]) -> None:
        for queued in passed_over:
            queued.skipped += 1
            if queued.skipped > self.longest_pass_over and self.policy.admitted(queued):
                self.longest_pass_over = queued.skipped

    def _join(self, queued: Queued) -> None:
        """At the end of the queue."""
        if self.bounded:
            if self.policy.admitted(queued):
                self.most_ahead = max(self.most_ahead, self.ahead)
            self.ahead += self._turns(queued)
        self.queue[queued.request] = queued

    def _admitted_in_place(self, request: int) -> None:
        ahead = 0
        for number, queued in self.queue.items():
            if number == request:
                break
            ahead += self._turns(queued)
        self.most_ahead = max(self.most_ahead, ahead)

    def _turns(self, queued: Queued) -> int:
        """Steps that it may take from one behind it in the queue."""
        if not self.bounded or not self.policy.holds_up(queued):
            return 0
        return -(-queued.known // self.limits.max_tokens)

    def _hold_to_rules(self, chosen: Sequence[tuple[Queued, int]], shown: Sequence[Queued]) -> None:
        """A policy that breaks the rules is a bug of the policy: say which rule."""
        name, limits = self.policy.name, self.limits
        if not chosen:
            raise RuntimeError(f"batch policy {name!r} formed an empty step while {len(shown)} requests wait")
        seen, total = set(), 0
        for queued, tokens in chosen:
            if not 0 < tokens <= queued.known:
                raise RuntimeError(f"batch policy {name!r} chose {tokens} tokens of a request that has {queued.known}")
            seen.add(queued.request)
            total += tokens
        if len(seen) != len(chosen) or len(chosen) > limits.max_requests:
            raise RuntimeError(f"batch policy {name!r} chose {len(chosen)} parts of {len(seen)} requests; {limits}")
        if total > limits.max_tokens:
            raise RuntimeError(f"batch policy {name!r} chose {total} tokens; {limits}")
