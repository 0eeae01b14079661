"""The queue, and forming steps from it: iteration-level batching (Orca, OSDI'22)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import islice
from operator import attrgetter

import numpy as np

from moesim.policy import BatchPolicy, Limits, Queued
from moesim.policy.queue import Routes
from moesim.sim.kv import Preempted
from moesim.sim.work import Part

Again = Callable[[int, int], np.ndarray | None]
"""routes of the first so many tokens of a request, for what has to run again"""
PLACE = attrgetter("place")


class Scheduler:
    """Requests with tokens that are ready, in the order in which they became ready; and what follows each of them.

    `routes` are the strongest experts of the tokens that become ready (None for a layer-wise router).
    """

    def __init__(self, policy: BatchPolicy, limits: Limits) -> None:
        self.policy = policy
        self.limits = limits
        self.queue: dict[int, Queued] = {}
        self.started: dict[int, Queued] = {}
        self.fresh: dict[int, Queued] = {}
        """those in the queue of which tokens have run, and those of which none has"""
        self.longest_pass_over = 0
        """most steps in a row that passed over a request which the policy had admitted"""
        self.bounded = policy.bound(limits, 0) is not None
        self.joined = self.ahead = self.most_ahead = 0
        """so many joined; turns of all in the queue, and the most that were ahead of a request when it was admitted"""

    def __len__(self) -> int:
        return len(self.queue)

    def going_on(self) -> list[Queued]:
        """Those in the queue that coming steps are formed of, as far as it shows."""
        return list(self.queue.values())

    def admit(self, request: int, prompt: int, routes: Routes) -> None:
        """A prompt has become visible."""
        queued = self.fresh[request] = self._join(Queued(request, 0, prompt, prompt, routes))
        admitted = self.policy.ages_unstarted
        if admitted and self.ahead > self.most_ahead:
            self.most_ahead = self.ahead
        if admitted or not self.policy.starts_last:
            queued.turns = -(-prompt // self.limits.max_tokens)
            self.ahead += queued.turns

    def sampled(self, request: int, position: int, routes: Routes) -> None:
        """The token at `position` is there and routed: it waits at the end of the queue."""
        queued = self.started[request] = self._join(Queued(request, position, 0, 1, routes))
        if self.ahead > self.most_ahead:
            self.most_ahead = self.ahead
        queued.turns = 1
        self.ahead += 1

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
                self.fresh[request] = front[request]
                self.started.pop(request, None)
        rest = dict(self.queue)
        self.queue.clear()
        self.queue.update(front | rest)

    def ready(self) -> bool:
        """Whether a step can be formed."""
        return bool(self.queue)

    def form(self) -> tuple[Part, ...]:
        """Ask the policy for the next step and take it out of the queue, which must be `ready`."""
        shown = self.shown()
        chosen = self.policy.form(shown, self.limits)
        self._hold_to_rules(chosen, shown)
        return self.take([Part(q.request, q.position, n, q.prompt_left > 0) for q, n in chosen], shown)

    def shown(self) -> list[Queued]:
        """What the policy sees of the queue: all of it, or no more waiting prompts than it may choose."""
        policy, most = self.policy, self.limits.max_requests
        if len(self.fresh) <= most or not policy.in_order or policy.ages_unstarted:
            return list(self.queue.values())
        return sorted([*self.started.values(), *islice(self.fresh.values(), most)], key=PLACE)

    def take(self, parts: Sequence[Part], shown: Sequence[Queued]) -> tuple[Part, ...]:
        """These parts run now: advance their requests, age the others that were shown."""
        queue, started = self.queue, self.started
        for request, _, tokens, _ in parts:
            queued = queue[request]
            starts = self.fresh.pop(request, None)
            if queued.known > tokens:
                started[request] = queued
                queued.advance(tokens)
                self._goes_on(queued, starts is not None)
            else:
                self.ahead -= queued.turns
                del queue[request]
                started.pop(request, None)
        if len(parts) < len(shown):
            chosen = {part.request for part in parts}
            self._age(queued for queued in shown if queued.request not in chosen)
        return tuple(parts)

    def _age(self, passed_over: Iterable[Queued]) -> None:
        every, longest = self.policy.ages_unstarted, self.longest_pass_over
        for queued in passed_over:
            queued.skipped += 1
            if queued.skipped > longest and (every or queued.position or not queued.prompt_left):
                longest = queued.skipped
        self.longest_pass_over = longest

    def _join(self, queued: Queued) -> Queued:
        """At the end of the queue."""
        queued.place = self.joined
        self.joined += 1
        self.queue[queued.request] = queued
        return queued

    def _goes_on(self, queued: Queued, starts: bool) -> None:
        """A part of a prompt has run, and it keeps its place in the queue. If it `starts`, it is admitted by that."""
        turns = -(-queued.known // self.limits.max_tokens)
        self.ahead += turns - queued.turns
        queued.turns = turns
        if not starts or self.policy.ages_unstarted:
            return
        ahead = 0
        for other in self.queue.values():
            if other is queued:
                break
            ahead += other.turns
        self.most_ahead = max(self.most_ahead, ahead)

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
