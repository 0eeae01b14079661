"""What a live machine cannot run: said before anything runs, all of it at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from moesim import inputs
from moesim.errors import InputError, Problem
from moesim.experiment import RunConfig
from moesim.hardware.budget import pools, staging_bytes
from moesim.live.engine.machine import Options, places_of
from moesim.live.engine.real import problems_of
from moesim.live.weights import dtype_of
from moesim.plan import Plan
from moesim.sim import Inputs
from moesim.sim.room import longest
from moesim.sim.setup import keys_of, settle


def check(plans: Sequence[Plan], options: Options) -> None:
    """Raises InputError with everything of the plans, and of the device, that cannot be run."""
    found: dict[Problem, None] = {}
    try:
        device = torch.device(options.device)
    except RuntimeError:
        text = f"{options.device!r} is no device of torch; cpu, cuda or cuda:N"
        raise InputError(Problem("--device", text)) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        found[Problem("--device", f"torch {torch.__version__} finds no GPU here; use --device cpu")] = None
    elif device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        # Nothing of it can be asked: what the experiments lack is said when there is a device.
        count = torch.cuda.device_count()
        raise InputError(Problem("--device", f"{options.device!r} is not there; torch finds {count}: cuda:0 and on"))
    elif device.type not in ("cpu", "cuda"):
        found[Problem("--device", f"{options.device!r} is not run here; cpu, cuda or cuda:N")] = None
    for source, run in [(plan.source, run) for plan in plans for run in plan.runs()]:
        config = inputs.located(run.config, run.sources.base)
        found.update(dict.fromkeys(_problems(config, inputs.load(run.sources), source, device, options)))
    if found:
        raise InputError(list(found))


def _problems(
    config: RunConfig, loaded: Inputs, source: str, device: torch.device, options: Options
) -> Iterator[Problem]:
    def at(key: str, text: str) -> Problem:
        return Problem(f"{source}: {key}" if source else key, text)

    if config.miss.name != "wait":
        yield at("miss", f"{config.miss.name!r} is simulated only; a live machine waits for every miss (miss: wait)")
    if config.memory.kv is not None and config.memory.kv.preempt == "swap":
        yield at("memory.kv.preempt", "swap is simulated only; a live machine computes anew (preempt: recompute)")
    if config.search is not None:
        yield at("search", "is simulated only; give the loads to run live as a list, such as rate: [1, 2, 4]")
    try:
        dtype_of(loaded.shape)
    except InputError as error:
        yield from error.problems
        return
    length = None
    if options.model is not None:
        yield from (at(key, text) for key, text in problems_of(config))
    elif config.schedule == "free":
        length, keys = longest(config, loaded.trace, loaded.arrivals)
        if length is None:
            names = ", ".join(f"traffic.{key}" for key in keys)
            yield at("traffic", f"has no longest request, so that no KV cache can be made for it; limit {names}")
    yield from (at("model", text) for text in _too_large(config, loaded, device, length or 1))


def _too_large(config: RunConfig, loaded: Inputs, device: torch.device, length: int) -> Iterator[str]:
    """Whether weights and caches fit where they go, as far as that can be known before."""
    keys, shape = keys_of(loaded), loaded.shape
    memory = settle(config, loaded).memory
    slots = sum(max(0, capacity) for _, capacity in pools(memory, keys)) + staging_bytes(memory, keys)
    there = slots + shape.static_bytes + shape.kv_bytes_per_token * length * places_of(config)
    if device.type == "cuda" and torch.cuda.is_available():
        free = torch.cuda.mem_get_info(device)[0]
        if there > free:
            yield f"takes {there:,} bytes of the GPU, experts' slots and KV cache included, and {free:,} are free"
        there = 0
    host, free_host = keys.total_bytes + there, _free_host()
    if host > free_host:
        yield f"takes {host:,} bytes of host memory for {keys.count:,} experts and the rest, and {free_host:,} are free"


def _free_host() -> int:
    """Bytes of host memory that may be had; a very large number where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 1 << 62
