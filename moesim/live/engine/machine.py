"""A live machine: device, threads, weights and memory of a run, put together and taken apart."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from moesim.experiment import Experiment
from moesim.hardware.budget import pools
from moesim.hardware.keys import Keys
from moesim.live.copies import Copier, Slots, Throttle
from moesim.live.engine.cache import LiveCache
from moesim.live.engine.engine import LiveEngine
from moesim.live.engine.link import LiveLink
from moesim.live.engine.model import LiveModel, Weights
from moesim.live.engine.real import LoadedRouter, load
from moesim.live.engine.server import LiveFreeServer, LiveReplayServer
from moesim.live.engine.shared import Shared
from moesim.live.engine.side import SideRouter
from moesim.live.engine.streams import stream_on
from moesim.live.kernels import Router, synchronize
from moesim.live.weights import dtype_of
from moesim.sim import Inputs
from moesim.sim.replayed import ReplayServer
from moesim.sim.room import longest
from moesim.sim.schedule import Schedule
from moesim.sim.server import FreeServer
from moesim.sim.setup import Makers, Setup, keys_of
from moesim.sim.workload import Workload

SWITCH_S = 1e-4
"""after so long the interpreter goes on with another thread that can run"""


@dataclass(frozen=True, slots=True)
class Options:
    """How a live run is made, beside what the experiment says."""

    device: str = "cpu"
    throttle: Throttle | None = None
    grouped: bool | None = None
    """experts in grouped products; None: on a GPU"""
    seed: int = 0
    """of the random weights"""
    model: str | None = None
    """folder of a refactorized model that is run, and computes its routes; with `prompts`, a file"""
    prompts: str | None = None
    digest: str = ""
    """of these two"""

    def uses_groups(self) -> bool:
        return self.grouped if self.grouped is not None else torch.device(self.device).type == "cuda"


def places_of(config: Experiment) -> int:
    """Requests that the KV cache has room for at first; it grows where more are started."""
    return min(config.traffic.requests, config.traffic.concurrency or config.scheduler.max_requests)


class LiveMachine:
    """Runs the servers of one run (see `moesim.sim.simulate.Machine`). Made and closed by `machine`."""

    def __init__(
        self, config: Experiment, inputs: Inputs, options: Options, weights: Weights, stack: ExitStack
    ) -> None:
        self.config, self.inputs, self.options, self.weights = config, inputs, options, weights
        self.device = torch.device(options.device)
        self.keys = keys_of(inputs)
        self.layerwise = inputs.trace.meta.router == "layerwise"
        counts = [max(0, capacity) // self.keys.largest for _, capacity in pools(config.memory, self.keys)]
        self.slots = Slots([*counts, config.memory.staging], weights.experts.rows, self.device)
        self.shared = Shared()
        self.copier = Copier(self.device, options.throttle)
        stack.callback(self.copier.close)
        self.stream = stream_on(self.device, self.shared)
        stack.callback(self.stream.close)
        self.shared.checks.append(self.copier.check)
        self._stack = stack

    @property
    def makers(self) -> Makers:
        return Makers(
            cache=partial(LiveCache, self.slots),
            link=partial(LiveLink, self.shared, self.copier, self.weights.experts),
            engine=partial(LiveEngine, self.shared, self.stream),
        )

    def server(
        self, config: Experiment, inputs: Inputs, setup: Setup, schedule: Schedule | None, workload: Workload
    ) -> FreeServer | ReplayServer:
        """The server, with its model and its router; its clock starts now."""
        assert isinstance(setup.engine, LiveEngine)
        self.engine = setup.engine
        length = self._length(schedule)
        requests = places_of(config)
        router = None if self.layerwise else self._router(requests, length)
        setup.engine.model = model = LiveModel(
            inputs.shape, self.weights, self.keys, self.slots, self.device,
            requests=requests, length=length, router=router, grouped=self.options.uses_groups(), seed=config.seed,
        )  # fmt: skip
        side = SideRouter(self.shared, router, self.device)
        self._stack.callback(side.close)
        server: LiveFreeServer | LiveReplayServer
        if schedule is not None:
            server = LiveReplayServer(config, inputs, setup, schedule, workload)
        else:
            server = LiveFreeServer(config, inputs, setup, workload)
        server.bind(setup.engine, model, side)
        synchronize(self.device)
        self.shared.start()
        return server

    def _router(self, requests: int, length: int) -> Router:
        shape, real = self.inputs.shape, self.weights.real
        if real is None:
            return Router(shape, requests, length, self.device, self.options.seed)
        return LoadedRouter(real.router, requests, length, self.device, dtype_of(shape), shape.dense_bits)

    def _length(self, schedule: Schedule | None) -> int:
        """Tokens of the longest request."""
        if schedule is not None:
            return max(request.prompt + request.output for request in schedule.workload.requests)
        found, _ = longest(self.config, self.inputs.trace, self.inputs.arrivals)
        assert found is not None, "checked before (moesim.live.engine.fit)"
        return found


@contextmanager
def machine(config: Experiment, inputs: Inputs, options: Options, weights: Weights) -> Iterator[LiveMachine]:
    """A machine for one run of this configuration, whose memory is settled; its threads end with the block."""
    threads, interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(1)
    sys.setswitchinterval(SWITCH_S)
    try:
        with ExitStack() as stack:
            yield LiveMachine(config, inputs, options, weights, stack)
    finally:
        sys.setswitchinterval(interval)
        torch.set_num_threads(threads)


def weights_for(inputs: Inputs, options: Options) -> Weights:
    """Weights of the model, which several runs may use."""
    keys: Keys = keys_of(inputs)
    if options.model is not None and options.prompts is not None:
        device = torch.device(options.device)
        real = load(Path(options.model), Path(options.prompts), inputs.shape, keys, device)
        return Weights(real.layers, real.step, real.experts, real)
    layerwise = inputs.trace.meta.router == "layerwise"
    return Weights.random(inputs.shape, keys, torch.device(options.device), layerwise=layerwise, seed=options.seed)
