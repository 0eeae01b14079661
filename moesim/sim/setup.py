"""From a configuration and its inputs to an engine; and what makes the two not fit."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from moesim import policy
from moesim.errors import InputError, Problem, unknown
from moesim.experiment import Drift, Experiment
from moesim.hardware.budget import budget, pools, settled
from moesim.hardware.costs import CostTable
from moesim.hardware.keys import Keys
from moesim.hardware.link import LinkTable
from moesim.hardware.shape import ModelShape
from moesim.policy import (
    FAR_VIEWS,
    NEAR_VIEWS,
    CachePolicy,
    MissPolicy,
    Policy,
    Pool,
    PredictedView,
    PrefetchPolicy,
    View,
)
from moesim.policy.cache import wants_users
from moesim.sim.cache import RESIDENT, ExpertCache
from moesim.sim.engine import Engine
from moesim.sim.foresight import Foresight
from moesim.sim.link import Link
from moesim.sim.misses import Misses
from moesim.sim.predictions import Predictions
from moesim.sim.room import check_memory
from moesim.sim.rows import StepRows
from moesim.sim.users import Users
from moesim.sim.workload import eligible
from moesim.trace.arrivals import Arrivals
from moesim.trace.routing import RoutingTrace


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that a run reads; `arrivals` is there for traffic of kind trace."""

    trace: RoutingTrace
    shape: ModelShape
    costs: CostTable
    link: LinkTable
    arrivals: Arrivals | None = None


def keys_of(inputs: Inputs) -> Keys:
    """Keys of the model; those of the captured one, where it has as many layers and the shape shares none itself."""
    meta, shape = inputs.trace.meta, inputs.shape
    alike = (meta.layers, meta.experts) == (shape.layers, shape.experts)
    return Keys.of(shape, meta.key_map if alike else None)


def check(config: Experiment, inputs: Inputs) -> list[Problem]:
    """What is wrong between a valid configuration and valid inputs, all of it."""
    return [
        *_check_fit(config, inputs),
        *_check_traffic(config, inputs),
        *_check_levels(config, inputs.trace),
        *_check_cpu(config, inputs.costs),
        *_check_devices(inputs),
        *_check_sizes(config, inputs),
    ]


def _check_fit(config: Experiment, inputs: Inputs) -> list[Problem]:
    meta, shape, memory = inputs.trace.meta, inputs.shape, config.memory
    found = []
    if meta.experts != shape.experts:
        found.append(Problem("trace", f"has {meta.experts} experts, but model {shape.name} has {shape.experts}"))
    if meta.k > shape.top_k:
        text = f"has up to {meta.k} experts a token, but model {shape.name} has {shape.top_k} (top_k)"
        found.append(Problem("trace", text))
    if meta.router == "layerwise" and meta.layers != shape.layers:
        found.append(
            Problem(
                "trace", f"has a layer-wise router of {meta.layers} layers, but model {shape.name} has {shape.layers}"
            )
        )
    if memory.slots is not None and memory.slots > shape.experts:
        found.append(Problem("memory.slots", f"{memory.slots} is more than the {shape.experts} experts of a layer"))
    return found or check_memory(config, keys_of(inputs), shape, inputs.link)


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
    specs = {"cache": config.cache, "prefetch": config.prefetch, "miss": config.miss}
    specs["scheduler.batch"] = config.scheduler.batch
    for place, spec in specs.items():
        try:
            made = policy.make(place.split(".")[-1], spec)
        except InputError:
            continue  # the schema reports it
        if made.level in ("step", "queue") and trace.meta.router == "layerwise":
            why = "a layer-wise router knows a layer's experts only at its gate"
            if trace.ahead is not None:
                why = "trace.reveal is at-gate: a layer's experts are known at its gate and no sooner"
            found.append(Problem(place, f"{spec.name!r} needs level {made.level!r}: {why}"))
        elif made.level == "predicted" and (lacking := _lacks_predictions(made, trace)):
            found.append(Problem(place, f"{spec.name!r} needs level 'predicted': {lacking}"))
    return found


def _check_devices(inputs: Inputs) -> list[Problem]:
    """Two tables that were measured must be of one machine; what is estimated may be put beside anything."""
    costs, link = inputs.costs, inputs.link
    if "ESTIMATED" in (costs.label, link.label) or costs.device == link.device:
        return []
    text = (
        f"{link.name} was measured on {link.device!r}, and cost table {costs.name} on {costs.device!r}; take the link "
        f"that was measured with it, or an ESTIMATED one"
    )
    return [Problem("link", text)]


def _check_sizes(config: Experiment, inputs: Inputs) -> list[Problem]:
    """A link that was measured must have been measured for copies as large as the largest chunk."""
    link, largest = inputs.link, min(config.machine.chunk_bytes, max(keys_of(inputs).sizes))
    if link.most is None or largest <= link.most or config.allow_extrapolation:
        return []
    text = (
        f"{link.name} was measured for copies of up to {link.most:,} bytes, and a chunk here has {largest:,}; measure "
        f"larger ones (moesim profile --sizes), take a smaller machine.chunk_bytes, or allow_extrapolation: true"
    )
    return [Problem("link", text)]


def _check_cpu(config: Experiment, costs: CostTable) -> list[Problem]:
    try:
        made = policy.make("miss", config.miss)
    except InputError:
        return []  # the schema reports it
    if costs.has_cpu or not (isinstance(made, MissPolicy) and made.uses_cpu):
        return []
    text = (
        f"{config.miss.name!r} computes experts on the CPU, and cost table {costs.name} does not say what that takes: "
        f"it has no component cpu_expert"
    )
    return [Problem("miss", text)]


def _lacks_predictions(made: Policy, trace: RoutingTrace) -> str | None:
    """What the trace does not have of the predictions that a policy reads."""
    if trace.meta.router == "decoupled":
        return "a decoupled router predicts nothing, it knows all layers; take a policy of level 'step'"
    if trace.ahead is not None:
        return "trace.reveal is at-gate, and a decoupled router has recorded no guesses; take one of level 'layer'"
    if not trace.predicted:
        return (
            "the trace has no predictions of later layers (columns predicted_1 to predicted_3); capture some, or take "
            "a synthetic trace with recall_1"
        )
    if not set(range(1, made.reach + 1)) <= trace.predicted.keys():
        there = " and ".join(map(str, sorted(trace.predicted)))
        return f"it reads predictions up to {made.reach} layers ahead, and the trace has them for distance {there}"
    return None


@dataclass(frozen=True, slots=True)
class Makers:
    """Who makes the parts of a machine; parts that are watched are made by others."""

    cache: Callable[..., ExpertCache] = ExpertCache
    link: Callable[..., Link] = Link
    misses: Callable[..., Misses] = Misses
    engine: Callable[..., Engine] = Engine


MAKERS = Makers()


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
    makers: Makers = MAKERS,
) -> Setup:
    """Build the machine. `resident`: every expert is on the GPU, the bound that no cache can beat."""
    keys = keys_of(inputs)
    parts = [(range(keys.count), keys.total_bytes)] if resident else pools(config.memory, keys)
    sizes = list(keys.sizes)
    views: dict[tuple[str, str], View] = {}
    foresights: dict[tuple[str, str], Foresight] = {}

    def view_for(made: Policy) -> View:
        key = (made.level, made.unknown)
        if key not in views:
            views[key] = _view(key, keys, inputs.trace.meta.k, foresights)
        return views[key]

    policies: list[CachePolicy] = []
    for number, (of_pool, capacity) in enumerate(parts):
        made = CachePolicy() if resident else policy.make("cache", config.cache)
        assert isinstance(made, CachePolicy)
        rng = random.Random(f"{config.seed}/{replication}/cache/{number}")
        made.start(Pool(of_pool, capacity, keys.sizes, rng), view_for(made))
        policies.append(made)
    pool_of = [number for number, (of_pool, _) in enumerate(parts) for _ in of_pool]
    staging = 0 if resident else config.memory.staging
    cache = makers.cache(sizes, pool_of, [capacity for _, capacity in parts], policies, staging)
    if resident:
        cache.state[:] = bytes([RESIDENT]) * keys.count
        cache.used_bytes = [keys.total_bytes]
        cache.there_at_first = keys.count
    prefetcher = _prefetcher(config, view_for, resident)
    link = makers.link(inputs.link, config.machine.chunk_bytes, config.machine.copies_in_flight, cache)
    rows = StepRows(inputs.trace)
    misses = None
    if not resident and config.miss.name != "wait":
        made = policy.make("miss", config.miss)
        assert isinstance(made, MissPolicy)
        made.start(view_for(made))
        misses = makers.misses(made, keys, cache, link, inputs.costs, rows, 2 * inputs.shape.d_model)
    predictions = Predictions(rows) if any(isinstance(view, PredictedView) for view in views.values()) else None
    users = Users(rows, keys, policies) if any(map(wants_users, policies)) else None
    engine = makers.engine(
        keys,
        inputs.costs,
        cache,
        link,
        layerwise=inputs.trace.meta.router == "layerwise",
        expert_start="eager" if resident else config.machine.expert_start,
        views=list(views.values()),
        foresights=list(foresights.values()),
        prefetcher=prefetcher,
        misses=misses,
        predictions=predictions,
        rows=rows if misses or predictions or users else None,
        users=users,
        check=verify,
        direct=direct,
    )
    return Setup(engine, list(foresights), cache, link, _labels(config, inputs, {level for level, _ in views}))


def _view(kind: tuple[str, str], keys: Keys, k: int, foresights: dict[tuple[str, str], Foresight]) -> View:
    level = kind[0]
    if level in NEAR_VIEWS:
        return NEAR_VIEWS[level](keys.layers, keys.experts, keys.table)
    if level == PredictedView.level:
        return PredictedView(keys.layers, keys.experts, k, keys.table)
    uses = foresights.setdefault(kind, Foresight(keys)).next_uses
    return FAR_VIEWS[level](keys.layers, keys.experts, uses, keys.table)


def _prefetcher(config: Experiment, view_for: Callable[[Policy], View], resident: bool) -> PrefetchPolicy | None:
    if resident or config.prefetch.name == "none":
        return None
    made = policy.make("prefetch", config.prefetch)
    assert isinstance(made, PrefetchPolicy)
    made.start(view_for(made))
    made.view = view_for(made)
    return made


def settle(config: Experiment, inputs: Inputs) -> Experiment:
    """The configuration with the sizes of its memory in bytes and blocks."""
    memory = settled(config.memory, keys_of(inputs), inputs.shape)
    return config if memory is config.memory else config.model_copy(update={"memory": memory})


def _memory_labels(config: Experiment, inputs: Inputs) -> dict[str, str]:
    kv = config.memory.kv
    found = budget(config.memory, keys_of(inputs), inputs.shape)
    of_gpu = "" if found.gpu is None else f", and no part of the {found.gpu / 10**9:g} GB"
    labels = {"kv": f"KV memory: no limit{of_gpu}"}
    if kv is not None:
        labels["kv"] = f"KV memory: blocks of {kv.block_tokens:,} tokens, {kv.preempt}"
    return labels if found.gpu is None else {**labels, "memory": f"GPU memory {found}; left {found.left:,}"}


def _labels(config: Experiment, inputs: Inputs, levels: set[str]) -> dict[str, str]:
    meta, shape = inputs.trace.meta, inputs.shape
    revealed = ", revealed at each gate" if inputs.trace.ahead is not None else ""
    oracle = "" if "oracle" not in levels else "oracle" if config.schedule == "frozen" else "oracle, not a bound"
    return {
        "costs": f"{inputs.costs.label} (table {inputs.costs.name}, {inputs.costs.device})",
        "link": f"{inputs.link.label} (table {inputs.link.name}, {inputs.link.device})",
        "routing": f"routing: {meta.model} ({meta.label}{revealed}), shape: {shape.name}",
        **_memory_labels(config, inputs),
        "oracle": oracle,
    }
