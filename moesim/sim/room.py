"""What does not fit into GPU memory: keys, the parts of its budget, the longest request (docs/kv.md)."""

from __future__ import annotations

import numpy as np

from moesim.errors import Problem
from moesim.experiment import Experiment, Lengths
from moesim.hardware.budget import Budget, budget, pools, settled
from moesim.hardware.keys import Keys
from moesim.hardware.link import LinkTable
from moesim.hardware.shape import ModelShape
from moesim.sim.traffic import chosen
from moesim.sim.workload import eligible, stream
from moesim.trace.arrivals import Arrivals
from moesim.trace.routing import RoutingTrace


def check_memory(config: Experiment, keys: Keys, shape: ModelShape, link: LinkTable) -> list[Problem]:
    """What is wrong with the memory of a point: its budget, its pools, and the link if KV memory is swapped over it."""
    memory, name = config.memory, shape.name
    if keys.shared and memory.scope == "layer":
        return [Problem("memory.scope", f"is layer, but layers of {name} share experts: it must be global")]
    found = [*_check_budget(budget(memory, keys, shape), name), *_check_swap(config, link)]
    if found:
        return found
    memory = settled(memory, keys, shape)
    for number, (of_pool, capacity) in enumerate(pools(memory, keys)):
        largest = max(keys.sizes[key] for key in of_pool)
        if capacity >= largest or (capacity >= 0 and memory.staging):
            continue
        a_layer = "a layer" if keys.equal else f"layer {number}"
        where = a_layer if memory.scope == "layer" else "all layers"
        less = f" once {memory.staging} staging slots are taken off" if memory.staging else ""
        text = f"gives {where} {capacity:,} bytes{less}, but one key of {name} takes {largest:,}"
        if memory.gpu is not None:
            text += f" (gpu {budget(memory, keys, shape)})"
        return [Problem("memory", text)]
    return []


def _check_budget(found: Budget, name: str) -> list[Problem]:
    if found.gpu is not None and found.left < 0:
        return [Problem("memory", f"{name} needs {-found.left:,} bytes more than gpu has, {found}")]
    if found.blocks == 0:
        text = f"leaves KV memory less than one block of {found.block_bytes:,} bytes"
        return [Problem("memory", text if found.gpu is None else f"{text}; gpu has {found}")]
    return []


def _check_swap(config: Experiment, link: LinkTable) -> list[Problem]:
    kv = config.memory.kv
    if kv is None or kv.preempt != "swap" or not link.lacks:
        return []
    text = f"swap copies to the host and back, and link {link.name} does not say what that takes: it has no"
    return [Problem("memory.kv.preempt", f"{text} {' and no '.join(link.lacks)}")]


def check_lengths(config: Experiment, trace: RoutingTrace, blocks: int, arrivals: Arrivals | None) -> list[Problem]:
    """Whether the longest request that the traffic may have fits into that many blocks of KV memory."""
    kv = config.memory.kv
    assert kv is not None
    # The last token is sampled and never runs.
    most = blocks * kv.block_tokens + 1
    length, keys = longest(config, trace, arrivals)
    if length is not None and length <= most:
        return []
    asks = "may ask for any number" if length is None else f"asks for up to {length:,}"
    text = (
        f"has {blocks:,} blocks of {kv.block_tokens:,} tokens, room for a request of {most:,} tokens with its output; "
        f"the traffic {asks}; what limits them: {', '.join(f'traffic.{key}' for key in keys)}"
    )
    return [Problem("memory.kv", text)]


def longest(config: Experiment, trace: RoutingTrace, arrivals: Arrivals | None) -> tuple[int | None, list[str]]:
    """Most prompt and output tokens of a request, None if there is no limit; and the keys that limit them."""
    traffic = config.traffic
    cap = traffic.output_max or 10**9
    if traffic.arrivals is not None and arrivals is not None:
        streams = [stream(config.seed, replication, "sample") for replication in range(config.replications)]
        found = [chosen(arrivals, traffic.arrivals, rng) for rng in streams]
        tokens = [(a.prompt + np.minimum(a.output, cap))[: traffic.requests] for a in found]
        return max((int(t.max()) for t in tokens if len(t)), default=0), ["arrivals.context_max", "output_max"]
    of_use = eligible(trace, traffic)
    prompts, outputs = trace.prompt_tokens[of_use], np.minimum(trace.output_tokens[of_use], cap)
    prompt, output = _most(traffic.prompt, prompts), _most(traffic.output, outputs)
    keys = [_key("prompt", traffic.prompt, "prompt_max"), _key("output", traffic.output, "output_max")]
    if traffic.prompt is None and traffic.output is None:
        return int((prompts + outputs).max(initial=0)), keys
    if prompt is None or (output is None and traffic.output_max is None):
        return None, keys
    return prompt + min(cap if output is None else output, cap), keys


def _key(name: str, lengths: Lengths | None, limit: str) -> str:
    if lengths is None or lengths.kind == "captured":
        return limit
    return f"{name}.tokens" if lengths.kind == "fixed" else f"{name}.max"


def _most(lengths: Lengths | None, captured: np.ndarray) -> int | None:
    if lengths is None or lengths.kind == "captured":
        return int(captured.max(initial=0))
    return lengths.tokens if lengths.kind == "fixed" else lengths.max
