"""From a configuration and its inputs to an engine; and what makes the two not fit."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from moesim import policy
from moesim.errors import InputError, Problem, unknown
from moesim.experiment import Drift, Experiment, Memory
from moesim.hardware.costs import CostTable
from moesim.hardware.link import LinkTable
from moesim.hardware.shape import ModelShape
from moesim.policy import FAR_VIEWS, NEAR_VIEWS, CachePolicy, Policy, Pool, PrefetchPolicy, View
from moesim.sim.cache import RESIDENT, ExpertCache
from moesim.sim.engine import Engine
from moesim.sim.foresight import Foresight
from moesim.sim.link import Link
from moesim.sim.workload import eligible
from moesim.trace.routing import RoutingTrace


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a run reads."""

    trace: RoutingTrace
    shape: ModelShape
    costs: CostTable
    link: LinkTable


def pools(memory: Memory, shape: ModelShape) -> list[tuple[range, int]]:
    """Keys and capacity in bytes of each pool: one a layer, or one for all."""
    if memory.slots is not None:
        total = memory.slots * shape.layers * shape.key_bytes
    elif memory.bytes is not None:
        total = memory.bytes
    else:
        total = round((memory.share or 0) * shape.keys * shape.key_bytes)
    if memory.scope == "global":
        return [(range(shape.keys), total)]
    width = shape.experts
    return [(range(width * layer, width * (layer + 1)), total // shape.layers) for layer in range(shape.layers)]


def check(config: Experiment, inputs: Inputs) -> list[Problem]:
    """What is wrong between a valid configuration and valid inputs, all of it."""
    return [*_check_fit(config, inputs), *_check_traffic(config, inputs), *_check_levels(config, inputs.trace)]


def _check_fit(config: Experiment, inputs: Inputs) -> list[Problem]:
    meta, shape, memory = inputs.trace.meta, inputs.shape, config.memory
    found = []
    if meta.experts != shape.experts:
        found.append(Problem("trace", f"has {meta.experts} experts, but model {shape.name} has {shape.experts}"))
    if meta.router == "layerwise" and meta.layers != shape.layers:
        found.append(
            Problem(
                "trace", f"has a layer-wise router of {meta.layers} layers, but model {shape.name} has {shape.layers}"
            )
        )
    if meta.key_map is not None:
        found.append(Problem("trace", "shares keys between layers (key_map), which the simulator does not serve yet"))
    if memory.slots is not None and memory.slots > shape.experts:
        found.append(Problem("memory.slots", f"{memory.slots} is more than the {shape.experts} experts of a layer"))
    capacity = pools(memory, shape)[0][1]
    if capacity < shape.key_bytes:
        where = "a layer" if memory.scope == "layer" else "all layers"
        text = f"gives {where} {capacity:,} bytes, but one key of {shape.name} takes {shape.key_bytes:,}"
        found.append(Problem("memory", text))
    return found


def _check_traffic(config: Experiment, inputs: Inputs) -> list[Problem]:
    traffic, trace = config.traffic, inputs.trace
    chosen = eligible(trace, traffic)
    if not len(chosen):
        prompts = trace.prompt_tokens
        lengths = f"{prompts.min()} to {prompts.max()}" if len(prompts) else "none"
        return [Problem("traffic", f"no captured sequence fits its limits (prompts in the trace: {lengths} tokens)")]
    present = {trace.domains[s] for s in chosen}
    mixes = {"": traffic.mix}
    if isinstance(traffic.mix, Drift):
        mixes = {".from": traffic.mix.start, ".to": traffic.mix.end}
    found = []
    for where, mix in mixes.items():
        if isinstance(mix, dict):
            found += [Problem(f"traffic.mix{where}", unknown("domain", d, present)) for d in mix if d not in present]
            if not any(w for d, w in mix.items() if d in present):
                found.append(Problem(f"traffic.mix{where}", f"gives no weight to any of {', '.join(sorted(present))}"))
    return found


def _check_levels(config: Experiment, trace: RoutingTrace) -> list[Problem]:
    found = []
    shown = {**NEAR_VIEWS, **FAR_VIEWS}
    specs = {"cache": config.cache, "prefetch": config.prefetch, "scheduler.batch": config.scheduler.batch}
    for place, spec in specs.items():
        try:
            made = policy.make(place.split(".")[-1], spec)
        except InputError:
            continue  # the schema reports it
        if made.level not in shown:
            why = f"which no view shows yet. There is: {', '.join(sorted(shown))}"
            found.append(Problem(place, f"{spec.name!r} needs level {made.level!r}, {why}"))
        elif made.level in ("step", "queue") and trace.meta.router == "layerwise":
            why = "a layer-wise router knows a layer's experts only at its gate"
            found.append(Problem(place, f"{spec.name!r} needs level {made.level!r}: {why}"))
    return found


@dataclass(slots=True)
class Setup:
    """An engine and the foresights behind its policies' views, as (level, unknown) pairs."""

    engine: Engine
    foresights: list[tuple[str, str]]
    cache: ExpertCache
    link: Link
    labels: dict[str, str]


def set_up(
    config: Experiment,
    inputs: Inputs,
    replication: int,
    *,
    resident: bool = False,
    verify: bool = False,
    direct: bool = False,
) -> Setup:
    """Build the machine. `resident`: every expert is on the GPU, the bound that no cache can beat."""
    shape, layers = inputs.shape, inputs.shape.layers
    parts = [(range(shape.keys), shape.keys * shape.key_bytes)] if resident else pools(config.memory, shape)
    views: dict[tuple[str, str], View] = {}
    foresights: dict[tuple[str, str], Foresight] = {}
    engine_of: list[Engine] = []

    def view_for(made: Policy) -> View:
        key = (made.level, made.unknown)
        if key not in views:
            views[key] = _view(made.level, shape, foresights, key, engine_of)
        return views[key]

    policies: list[CachePolicy] = []
    sizes = [shape.key_bytes] * shape.keys
    for number, (keys, capacity) in enumerate(parts):
        made = CachePolicy() if resident else policy.make("cache", config.cache)
        assert isinstance(made, CachePolicy)
        rng = random.Random(f"{config.seed}/{replication}/cache/{number}")
        made.start(Pool(keys, capacity, sizes, rng), view_for(made))
        policies.append(made)
    pool_of = [number for number, (keys, _) in enumerate(parts) for _ in keys]
    cache = ExpertCache(sizes, pool_of, [capacity for _, capacity in parts], policies)
    if resident:
        cache.state = bytearray([RESIDENT]) * shape.keys
        cache.used_bytes = [shape.keys * shape.key_bytes]
        cache.there_at_first = shape.keys
    prefetcher = _prefetcher(config, view_for, resident)
    engine = Engine(
        layers,
        shape.experts,
        inputs.costs,
        cache,
        layerwise=inputs.trace.meta.router == "layerwise",
        expert_start=config.machine.expert_start,
        views=list(views.values()),
        foresights=list(foresights.values()),
        prefetcher=prefetcher,
        check=verify,
        direct=direct,
    )
    engine_of.append(engine)
    idle = engine.link_idle if prefetcher else None
    machine = config.machine
    link = Link(inputs.link, machine.chunk_bytes, machine.copies_in_flight, cache.make_room, cache.landed, idle)
    engine.link = link
    return Setup(engine, list(foresights), cache, link, _labels(config, inputs, {level for level, _ in views}))


def _view(
    level: str,
    shape: ModelShape,
    foresights: dict[tuple[str, str], Foresight],
    key: tuple[str, str],
    engine_of: list[Engine],
) -> View:
    if level in NEAR_VIEWS:
        return NEAR_VIEWS[level](shape.layers, shape.experts)
    uses = (foresights.setdefault(key, Foresight(shape.layers, shape.experts))).next_uses
    return FAR_VIEWS[level](shape.layers, shape.experts, uses, lambda layer: engine_of[0].needed(layer))


def _prefetcher(config: Experiment, view_for: Callable[[Policy], View], resident: bool) -> PrefetchPolicy | None:
    if resident or config.prefetch.name == "none":
        return None
    made = policy.make("prefetch", config.prefetch)
    assert isinstance(made, PrefetchPolicy)
    made.start(view_for(made))
    made.view = view_for(made)
    return made


def _labels(config: Experiment, inputs: Inputs, levels: set[str]) -> dict[str, str]:
    meta, shape = inputs.trace.meta, inputs.shape
    oracle = "" if "oracle" not in levels else "oracle" if config.schedule == "frozen" else "oracle, not a bound"
    return {
        "costs": f"{inputs.costs.label} (table {inputs.costs.name}, {inputs.costs.device})",
        "link": f"{inputs.link.label} (table {inputs.link.name}, {inputs.link.device})",
        "routing": f"routing: {meta.model} ({meta.label}), shape: {shape.name}",
        "kv": "KV memory: no limit",
        "oracle": oracle,
    }
