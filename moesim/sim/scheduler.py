"""The queue, and forming steps from it: iteration-level batching (Orca, OSDI'22)."""

from __future__ import annotations

from collections.abc import Sequence

from moesim.policy import BatchPolicy, Limits, Queued
from moesim.policy.queue import Routes
from moesim.sim.work import Part


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
        """The largest bound that the policy states for a request it has admitted so far; None where it states none."""
        return self.policy.bound(self.limits, self.most_ahead)

    def form(self) -> tuple[Part, ...]:
        """Ask the policy for the next step and take it out of the queue; empty if nothing is ready."""
        chosen = self.policy.form(list(self.queue.values()), self.limits) if self.queue else []
        self._hold_to_rules(chosen)
        return self.take([Part(q.request, q.position, n, q.prompt_left > 0) for q, n in chosen])

    def take(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        """These parts run now: advance their requests, age the others."""
        queue = self.queue
        going_on = set()
        for request, _, tokens, _ in parts:
            queued = queue[request]
            waited = self._turns(queued)
            if queued.known == tokens:
                del queue[request]
            else:
                going_on.add(request)
            begins = not self.policy.admitted(queued)
            queued.advance(tokens)
            self.ahead += self._turns(queued) - waited
            if begins and queued.known:
                self._admitted_in_place(request)
        for request, queued in queue.items():
            if request not in going_on:
                queued.skipped += 1
                if queued.skipped > self.longest_pass_over and self.policy.admitted(queued):
                    self.longest_pass_over = queued.skipped
        return tuple(parts)

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

    def _hold_to_rules(self, chosen: Sequence[tuple[Queued, int]]) -> None:
        """A policy that breaks the rules is a bug of the policy: say which rule."""
        name, limits = self.policy.name, self.limits
        if self.queue and not chosen:
            raise RuntimeError(f"batch policy {name!r} formed an empty step while {len(self.queue)} requests wait")
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
