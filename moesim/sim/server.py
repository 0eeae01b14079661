"""The server: requests in, steps on the engine, tokens out (docs/model.md); a frozen schedule: moesim.sim.replayed."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from functools import partial

import numpy as np
import simpy

from moesim import policy
from moesim.experiment import Experiment
from moesim.hardware.budget import budget
from moesim.policy import BatchPolicy, Limits
from moesim.sim.compiled import Compiled
from moesim.sim.engine import StepCosts
from moesim.sim.forecast import Forecaster
from moesim.sim.foresight import first_uses, persisting
from moesim.sim.kv import Blocks, Moves
from moesim.sim.log import StepLog
from moesim.sim.misses import COUNTS
from moesim.sim.oracle import FreeOracle
from moesim.sim.paged import PagedScheduler
from moesim.sim.schedule import Frame, again_of, join
from moesim.sim.scheduler import Scheduler
from moesim.sim.setup import Inputs, Setup
from moesim.sim.tokens import TokenLog
from moesim.sim.work import Part, Work, make_work
from moesim.sim.workload import Request, Workload

Kind = tuple[str, str]
"""of foresight: level, and what it assumes of the unknown"""
NO_MISSES = [0] * len(COUNTS)


class Server:
    """State that a free run and a replay share: requests, the router's side queue, the log."""

    def __init__(
        self,
        config: Experiment,
        inputs: Inputs,
        setup: Setup,
        workload: Workload,
        compiled: Compiled | None = None,
    ) -> None:
        self.config, self.inputs, self.setup, self.compiled = config, inputs, setup, compiled
        self.trace = inputs.trace
        self.workload = workload
        if setup.engine.rows is not None:
            setup.engine.rows.bind(self.trace, workload.sequences)
        self.decoupled = self.trace.meta.router == "decoupled"
        self.side_router = self.decoupled and config.machine.router == "side"
        self.limits = Limits(config.scheduler.max_tokens, config.scheduler.max_requests)
        made = policy.make("batch", config.scheduler.batch)
        assert isinstance(made, BatchPolicy)
        self.blocks: Blocks | None = None
        """KV memory, where it has an end"""
        if (kv := config.memory.kv) is None:
            self.scheduler = Scheduler(made, self.limits)
        else:
            self.blocks = Blocks(kv, kv.block_tokens * inputs.shape.kv_bytes_per_token)
            self.scheduler = PagedScheduler(made, self.limits, self.blocks, again_of(workload, self.trace))
        self.budget = budget(config.memory, setup.engine.keys, inputs.shape)
        self.log = StepLog()
        self.router_free = self.arrived = 0
        self.rows: list[int] = []
        """where each request that has arrived starts in the trace"""
        self.tokens = TokenLog()
        self.rolls = False
        """whether what comes later has to be asked at every step, because it is rolled along"""
        self.progress: Callable[[int], None] = lambda steps: None

    def route_aside(self, tokens: int, now: int) -> int:
        """When the routes of `tokens` that come in at `now` are visible: the router serves in FIFO order."""
        if not self.decoupled:
            return now
        self.router_free = max(self.router_free, now) + self.inputs.costs.router(tokens)
        return self.router_free

    def costs_of(self, work: Work, sampled: int, continuing: int) -> StepCosts:
        """Kernel times of a step that samples `sampled` tokens, `continuing` of which are routed afterwards."""
        costs, table = self.inputs.costs, work.parts
        attention = sum(costs.attention_prefill(p.tokens, p.start + p.tokens) for p in table if p.prefill)
        decoding = [p.start + 1 for p in table if not p.prefill]
        if decoding:
            attention += costs.attention_decode(len(decoding), sum(decoding))
        tokens = work.prefill_tokens + work.decode_tokens
        routed = continuing if self.decoupled and not self.side_router else 0
        return StepCosts(
            attention,
            costs.layer_rest(tokens),
            0 if self.decoupled else costs.gate(tokens),
            costs.step_rest(sampled) if sampled else 0,
            costs.router(routed) if routed else 0,
        )

    def sampling(self, parts: Sequence[Part]) -> tuple[list[Request], list[tuple[Request, int]]]:
        """Requests whose step yields a token, and those of them that go on after it, with the token's position."""
        requests = self.workload.requests
        yielding, continuing = [], []
        for number, start, tokens, prefill in parts:
            request = requests[number]
            reached = start + tokens
            if not prefill or reached == request.goal:
                yielding.append(request)
                if request.produced + 1 < request.output:
                    continuing.append((request, reached))
        return yielding, continuing

    def run_step(
        self, step: int, work: Work, start: int, sampled: int, continuing: int, later: Callable[[Kind], np.ndarray]
    ) -> int:
        """Run the step and log it; `later` says what a kind of foresight knows beyond it."""
        for part in work.parts:
            if part.start == 0:
                request = self.workload.requests[part.request]
                if request.started_step < 0:
                    request.started, request.started_step = start, step
        compiled, kinds = self.compiled, self.setup.foresights
        if compiled is not None:
            # Only a victim is chosen by what comes later, and without a miss there is none.
            missing = compiled.ask(work.parts, self.rows) or self.rolls
            known = later(kinds[0]) if missing and compiled.foresees else None
            end = compiled.run(step, start, sampled, continuing, known)
            self.log.add(compiled.book)
            if self.blocks is not None:
                self.log.add_link_busy(self.setup.link.busy_ns)
        else:
            work.costs = work.costs or self.costs_of(work, sampled, continuing)
            end = self.setup.engine.run(step, work, work.costs, start, [later(kind) for kind in kinds])
            self.log.add(self._row(step, start, end, work))
            if self.setup.engine.check:
                self.budget.verify(self.setup.cache.taken_bytes, self.log.kv[-1][0] if self.log.kv else 0)
        if step % 100 == 99:
            self.progress(step + 1)
        return end

    def start_of(self, formed: int, moves: Moves) -> int:
        """When a step that was formed starts: once what it moves of KV memory is there. Enter the moves in the log."""
        requests = self.workload.requests
        for request, _, prompt, swapped in moves.preempted:
            requests[request].preemptions += 1
            if not swapped:
                requests[request].goal = prompt
        start, link = formed, self.setup.link
        out, back = moves.swapped_out, moves.swapped_in
        if out or back:
            at = formed if self.compiled else self.setup.engine.reach(formed)
            start = link.swap_out(out, at) if out else link.swap_in(back, at)
        self.log.kv.append(moves.row(start - formed))
        return start

    def _row(self, step: int, start: int, end: int, work: Work) -> list[int]:
        engine, cache, link = self.setup.engine, self.setup.cache.count, self.setup.link
        row = [step, start, end, work.prefill_tokens, work.decode_tokens, len(work.parts), *engine.parts]
        row += engine.counts
        row += [cache.demand_bytes, cache.prefetch_bytes, cache.wasted_bytes, link.busy_ns, cache.evictions]
        row += [engine.waves, link.dropped, link.cancelled, cache.bypasses, engine.unique_keys]
        return row + (engine.misses.count.row() if engine.misses else NO_MISSES)

    def deliver(self, yielding: Sequence[Request]) -> int:
        """Hand out the step's tokens; return how many requests are finished."""
        now = (self.compiled or self.setup.engine).sampled_at
        finished: list[int] = []
        self.tokens.add(now, [request.number for request in yielding])
        for request in yielding:
            request.produced += 1
            if request.produced == 1:
                request.first_token = now
            if request.produced == request.output:
                request.finished = now
                finished.append(request.number)
        if self.setup.engine.users is not None:
            self.setup.engine.users.ended(finished)
        return len(finished)


class FreeServer(Server):
    """The server as it runs: steps are formed from what is there.

    With `recording`, `frames` holds the steps and `after_step` the arrivals, as a replay needs them.
    """

    def __init__(
        self,
        config: Experiment,
        inputs: Inputs,
        setup: Setup,
        workload: Workload,
        compiled: Compiled | None = None,
    ) -> None:
        super().__init__(config, inputs, setup, workload, compiled)
        self.env = simpy.Environment()
        self.now = 0
        """ns; between steps and at arrivals"""
        self.recording = False
        self.frames: list[Frame] = []
        self.after_step: dict[int, int] = {}
        self.came_into_view: list[int] = []
        self.in_router: dict[int, int] = {}
        """position of each request whose prompt or token is there and not routed yet"""
        self.left = 0
        self.kept: dict[int, int] = {}
        """tokens of each request that KV memory should have room for, if that is checked"""
        self.awaited = config.window.awaited if config.window else config.traffic.requests
        """how many requests, the first ones, must leave before the run is over"""
        self.gone = 0
        """all requests before this one have left"""
        self.forecaster = Forecaster(self.scheduler.policy, self.limits, self.trace, workload.sequences)
        self.oracle = FreeOracle(self) if any(level == "oracle" for level, _ in setup.foresights) else None
        self.rolls = self.oracle is not None

    def run(self) -> None:
        """Until every request that counts has left or the steps are used up."""
        self.env.process(self._arrivals())
        for step in range(self.config.steps):
            if self.left >= self.awaited and self._over():
                return
            self._reach(self.now)
            while not self.scheduler.ready():
                if self.left == self.config.traffic.requests:
                    return
                self._reach(self._next_event())
            self._step(step)

    def _next_event(self) -> int:
        due = self.env.peek()
        if due == math.inf:
            queue = list(self.scheduler.queue)
            raise AssertionError(f"{self.left} requests have left, {queue} wait, nothing may run and nothing comes")
        return int(due)

    def _over(self) -> bool:
        """Whether the awaited requests have left, while others may still come."""
        requests = self.workload.requests
        while self.gone < min(self.awaited, self.arrived) and requests[self.gone].finished >= 0:
            self.gone += 1
        return self.gone == self.awaited

    def _reach(self, time: int, *, arrivals: bool = True) -> None:
        """Go to `time`: everything that happens before it and, with `arrivals`, at that instant."""
        env, latest = self.env, time if arrivals else time - 1
        while (due := env.peek()) <= latest:
            self.now = int(due)
            env.step()
        self.now = time

    def _arrivals(self) -> Generator[simpy.Event, None, None]:
        traffic = self.config.traffic
        for number in range(traffic.requests):
            request = self.workload[number]
            if request.arrival < 0:
                return  # closed loop: the rest come as others leave
            if request.arrival > self.now:
                yield self.env.timeout(request.arrival - self.now)
            self._arrive(request)

    def _arrive(self, request: Request) -> None:
        request.arrival = self.now
        self.arrived += 1
        self.rows.append(int(self.trace.offsets[request.sequence]))
        self.in_router[request.number] = 0
        request.visible = self.route_aside(request.prompt, self.now)
        self._at(request.visible, [(request, 0)])

    def _show(self, shown: Sequence[tuple[Request, int]]) -> None:
        """What these requests have at these positions is there, and routed."""
        for request, position in shown:
            join(self.scheduler, request, position, self.trace)
        if self.in_router:
            for request, _ in shown:
                self.in_router.pop(request.number, None)
        if self.recording:
            self.came_into_view += [request.number for request, _ in shown]

    def _at(self, time: int, shown: Sequence[tuple[Request, int]]) -> None:
        """Show these at `time`; SimPy's clock is that of its last event, which may be behind."""
        if time <= self.now:
            self._show(shown)
        else:
            self.env.timeout(time - self.env.now).callbacks.append(lambda event: self._show(shown))

    def _step(self, step: int) -> None:
        start = self.now
        if self.compiled is None:
            self.setup.engine.reach(start)  # the batcher may look at the cache
        parts = self.scheduler.form()
        work = make_work(parts, self.trace, self.workload.sequences)
        moves = None
        if isinstance(self.scheduler, PagedScheduler):
            moves = self.scheduler.moves
            start = self.start_of(start, moves)
            self._check_blocks(parts, moves)
        yielding, continuing = self.sampling(parts)
        if self.recording:
            self.frames.append(Frame(tuple(self.came_into_view), work, moves))
            self.came_into_view = []
        later = partial(self._later, step, work)
        end = self.run_step(step, work, start, len(yielding), len(continuing), later)
        # The step's tokens join the queue before what arrives when it ends.
        self._reach(end, arrivals=False)
        finished = self.deliver(yielding)
        if self.blocks is not None:
            self._free_blocks(yielding)
        self._requeue(continuing)
        self.left += finished
        if self.config.traffic.kind == "closed":
            for _ in range(min(finished, self.config.traffic.requests - self.arrived)):
                request = self.workload[self.arrived]
                if self.recording:
                    self.after_step[request.number] = step
                self._arrive(request)

    def _free_blocks(self, yielding: Sequence[Request]) -> None:
        """Requests that are answered need no KV memory any more."""
        assert self.blocks is not None
        for request in yielding:
            if request.produced == request.output:
                self._release(request.number)
                self.kept.pop(request.number, None)
        if self.setup.engine.check:
            self.blocks.verify(self.kept)

    def _release(self, request: int) -> None:
        assert self.blocks is not None
        self.blocks.release(request)

    def _check_blocks(self, parts: Sequence[Part], moves: Moves) -> None:
        """Whether those that should have blocks have them, and no others (`--check`)."""
        if self.blocks is None or not self.setup.engine.check:
            return
        for gone in moves.preempted:
            del self.kept[gone.request]
        for request, first, tokens, _ in parts:
            self.kept[request] = max(first + tokens, self.workload.requests[request].goal)
        self.blocks.verify(self.kept)

    def _requeue(self, continuing: Sequence[tuple[Request, int]]) -> None:
        """The sampled tokens go to the end of the queue, in the order of the step, once they are routed."""
        if self.side_router and continuing:
            self.in_router.update((request.number, position) for request, position in continuing)
            self._at(self.route_aside(len(continuing), self.now), continuing)
        else:
            self._show(continuing)

    def _later(self, step: int, work: Work, kind: Kind) -> np.ndarray:
        """What a foresight of this kind knows beyond the step that starts now."""
        level, unknown = kind
        engine = self.setup.engine
        shape = (engine.experts,) if self.decoupled else (engine.layers, engine.experts)
        unseen = engine.foresights[0].unseen
        if level == "oracle":
            assert self.oracle is not None
            return self.oracle.later(step, work, unseen)
        if level == "queue":
            coming = self.forecaster.steps(self.scheduler.going_on(), work.parts, unknown == "persist")
            return first_uses(coming, step, engine.experts, unseen)
        if unknown == "persist":
            return persisting(work, step, shape, unseen)
        return np.full(shape, unseen, dtype=np.int64)
