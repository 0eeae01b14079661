"""A frozen schedule: the compositions of all steps, recorded once and replayed under every policy."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from moesim.policy import BatchPolicy, Limits
from moesim.sim.forecast import Forecaster
from moesim.sim.foresight import first_uses, of_schedule
from moesim.sim.kv import Moves
from moesim.sim.scheduler import Again, Scheduler
from moesim.sim.work import Work
from moesim.sim.workload import Request, Workload
from moesim.trace.routing import RoutingTrace


@dataclass(frozen=True, slots=True)
class Frame:
    """One recorded step."""

    visible: tuple[int, ...]
    """requests whose prompt or next token had become visible since the step before, in that order"""
    work: Work
    moves: Moves | None = None
    """of KV memory, where there is one"""


@dataclass(slots=True)
class Schedule:
    """Frames, and what they cost with every expert resident; `after_step[r]`: the step whose end brought request r."""

    frames: list[Frame]
    workload: Workload
    after_step: dict[int, int]
    starts: list[int]
    ends: list[int]
    longest_pass_over: int
    pass_over_bound: int | None
    memo: dict[object, object] = field(default_factory=dict)
    """forecasts and bounds: they depend on the schedule alone, so that compared runs share them"""

    def oracle(self, layers: int, experts: int, unseen: int) -> list[np.ndarray]:
        """What comes after each step, all of it (see `Foresight.begin`)."""
        if "oracle" not in self.memo:
            self.memo["oracle"] = of_schedule([f.work for f in self.frames], layers, experts, unseen)
        return self.memo["oracle"]  # type: ignore[return-value]

    def queued(
        self, policy: BatchPolicy, limits: Limits, trace: RoutingTrace, persist: bool, experts: int, unseen: int
    ) -> list[np.ndarray]:
        """What level `queue` knows at each step: the batcher rolled over the queue as it was recorded."""
        if ("queue", persist) not in self.memo:
            self.memo["queue", persist] = self._roll(policy, limits, trace, persist, experts, unseen)
        return self.memo["queue", persist]  # type: ignore[return-value]

    def _roll(
        self, policy: BatchPolicy, limits: Limits, trace: RoutingTrace, persist: bool, experts: int, unseen: int
    ) -> list[np.ndarray]:
        scheduler = Scheduler(policy, limits)
        sequences = self.workload.sequences
        forecaster = Forecaster(policy, limits, trace, sequences)
        later = []
        reached: dict[int, int] = {}
        held: set[int] = set()
        again = again_of(self.workload, trace)
        for step, frame in enumerate(self.frames):
            for number in frame.visible:
                join(scheduler, self.workload[number], reached.get(number, 0), trace)
            shown = scheduler.shown()
            if frame.moves is not None:
                scheduler.to_front(frame.moves.preempted, again)
                held.difference_update(gone.request for gone in frame.moves.preempted)
                held.update(part.request for part in frame.work.parts)
                shown = [q for q in scheduler.queue.values() if q.request in held or q.request in frame.moves.idle]
            scheduler.take(frame.work.parts, shown)
            reached.update((part.request, part.start + part.tokens) for part in frame.work.parts)
            going_on = scheduler.going_on()
            if frame.moves is not None:  # those that were shown and have tokens left
                going_on = [q for q in shown if q.request in scheduler.queue]
            coming = forecaster.steps(going_on, frame.work.parts, persist)
            later.append(first_uses(coming, step, experts, unseen))
        return later


def routes_of(trace: RoutingTrace, sequence: int, start: int, tokens: int) -> np.ndarray | None:
    """Strongest expert of `tokens` positions of a sequence from `start`; None for a layer-wise router.

    A copy, so that whoever holds it cannot reach what comes after (docs/model.md).
    """
    if trace.meta.router != "decoupled":
        return None
    row = trace.offsets[sequence] + start
    return trace.experts[row : row + tokens, 0, 0].copy()


def again_of(workload: Workload, trace: RoutingTrace) -> Again:
    """The routes of the first so many tokens of a request: what runs again after a preemption."""
    return lambda number, tokens: routes_of(trace, workload[number].sequence, 0, tokens)


def join(scheduler: Scheduler, request: Request, position: int, trace: RoutingTrace) -> None:
    """What `request` has at `position` - its prompt, or its next token - goes to the end of the queue."""
    number, sequence, prompt = request.number, request.sequence, request.prompt
    if position == 0:
        scheduler.admit(number, prompt, lambda: routes_of(trace, sequence, 0, prompt))
    else:
        scheduler.sampled(number, position, lambda: routes_of(trace, sequence, position, 1))
