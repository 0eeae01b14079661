"""A refactorized model for a live machine: its weights in slots and layers, its router, and prompts to serve.

Only scheme domains: one router, apart from the backbone, knows a token's expert in all layers before it runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moesim import policy
from moesim.errors import InputError, Problem
from moesim.experiment import Experiment, specs_of
from moesim.hardware.keys import Keys
from moesim.hardware.shape import ModelShape
from moesim.live.copies import HostPool
from moesim.live.kernels import ROPE_BASE, KVCache, Pieces, Router
from moesim.live.prompts import Limits, Prompt, read_prompts
from moesim.live.refactorized import Refactorized, load_refactorized
from moesim.live.router import PreGatingRouter
from moesim.live.weights import ExpertForm, LayerWeights, StepWeights, dtype_of
from moesim.sim import Inputs, check
from moesim.trace.meta import RoutingMeta
from moesim.trace.routing import RoutingTrace

OUTPUT = 64
"""tokens to generate where a prompt does not say"""
MOST = 4096
"""requests that have rows of their own for their routes; more use the rows of those that came first"""


@dataclass(frozen=True, slots=True)
class Real:
    """What is read of a folder and of a file of prompts."""

    name: str
    layers: tuple[LayerWeights, ...]
    step: StepWeights
    experts: HostPool
    router: PreGatingRouter
    rope_base: float
    eps: float
    prompts: tuple[Prompt, ...]

    def inputs(self, inputs: Inputs, config: Experiment) -> Inputs:
        """The inputs of a run with the prompts in the place of the trace: their routes are entered as they are known.

        Raises InputError where the experiment and the prompts do not fit.
        """
        copies = -(-min(config.traffic.requests, MOST) // len(self.prompts))
        prompts = self.prompts * max(1, copies)
        tokens = sum(prompt.tokens for prompt in prompts)
        shape = inputs.shape
        trace = RoutingTrace(
            meta=RoutingMeta(
                model=self.name, router="decoupled", layers=shape.layers, experts=shape.experts, k=1,
                key_bytes=shape.key_bytes, label="captured",
            ),
            experts=np.full((tokens, 1, 1), -1, np.int16),
            weights=np.ones((tokens, 1, 1), np.float16),
            offsets=np.cumsum([0, *(prompt.tokens for prompt in prompts)]).astype(np.int64),
            prompt_tokens=np.array([len(prompt.ids) for prompt in prompts], np.int32),
            domains=tuple(prompt.domain for prompt in prompts),
        )  # fmt: skip
        made = replace(inputs, trace=trace)
        if problems := check(config, made):
            raise InputError(problems)
        return made

    def ids(self, sequence: int) -> list[int]:
        """Token ids of the prompt that a sequence of the trace has."""
        found: list[int] = self.prompts[sequence % len(self.prompts)].ids.tolist()
        return found


class LoadedRouter(Router):
    """A trained router in the place of one with random weights."""

    def __init__(
        self, made: PreGatingRouter, slots: int, length: int, device: torch.device, dtype: torch.dtype, bits: float
    ) -> None:
        sizes = made.config
        self.shape = ModelShape(
            name="router", layers=1, d_model=sizes.width, expert_width=1, experts=sizes.experts, top_k=1,
            heads=sizes.heads, kv_heads=sizes.heads, head_dim=sizes.width // sizes.heads, vocab=sizes.vocabulary,
            shared_expert_width=sizes.mlp, dense_bits=bits, expert_bits=bits, kv_bits=bits,
        )  # fmt: skip

        def to(*parts: Tensor) -> Tensor:
            return torch.cat([part.detach() for part in parts]).to(device, dtype)

        self.layer = LayerWeights(
            to(made.attention_norm.weight),
            to(made.query.weight, made.key.weight, made.value.weight),
            to(made.out.weight),
            to(made.mlp_norm.weight),
            (to(made.gate.weight, made.up.weight), to(made.down.weight)),
            to(made.head.weight),
        )
        self.embedding, self.norm = to(made.embedding.weight), to(made.norm.weight)
        self.pieces = Pieces(self.shape, length, dtype, device, rope_base=sizes.rope_base)
        self.cache = KVCache(self.shape, 1, slots, length, dtype, device)


def load(folder: Path, prompts: Path, shape: ModelShape, keys: Keys, device: torch.device) -> Real:
    """Read both. Raises InputError with everything that does not fit the shape."""
    found = load_refactorized(folder)
    problems = [Problem(str(folder), text) for text in _unfit(found, shape, keys)]
    if problems:
        raise InputError(problems)
    dense, dtype = found.dense.model, dtype_of(shape)
    assert found.router is not None
    config = dense.config
    limits = Limits(config.vocab_size, config.max_position_embeddings)
    chosen = read_prompts(prompts, found.dense.encode, limits, output=OUTPUT)
    with torch.no_grad():
        layers = tuple(_layer(block, device, dtype) for block in dense.model.layers)
        step = StepWeights(
            dense.model.embed_tokens.weight.to(device, dtype),
            dense.lm_head.weight.to(device, dtype),
            dense.model.norm.weight.to(device, dtype),
            (),
        )
        experts = HostPool(_experts(found, shape, keys, dtype), device)
    turning: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    theta, eps = float(turning.get("rope_theta", ROPE_BASE)), float(config.rms_norm_eps)
    return Real(found.meta["model"], layers, step, experts, found.router, theta, eps, tuple(chosen))


def _unfit(found: Refactorized, shape: ModelShape, keys: Keys) -> Sequence[str]:
    """What is wrong between a refactorized model and the shape."""
    meta, config = found.meta, found.dense.model.config
    if meta["scheme"] != "domains":
        return [f"is of scheme {meta['scheme']}; a live machine runs scheme domains, whose router is apart"]
    wanted = {
        "layers": (meta["layers"], shape.layers),
        "experts": (meta["experts"], shape.experts),
        "d_model": (meta["d_model"], shape.d_model),
        "expert_width": (meta["expert_width"], shape.expert_width),
        "vocab": (config.vocab_size, shape.vocab),
        "heads": (config.num_attention_heads, shape.heads),
        "kv_heads": (config.num_key_value_heads, shape.kv_heads),
    }
    wrong = [f"has {name} {mine}, and model {shape.name} has {theirs}" for name, (mine, theirs) in wanted.items()
             if mine != theirs]  # fmt: skip
    if shape.top_k != 1 or shape.shared_expert_width or keys.shared or shape.expert_matrices != 3:
        wrong.append(f"runs one expert of three matrices a token and no shared one, and model {shape.name} does not")
    if getattr(config, "attention_bias", False):
        wrong.append("has biases in its attention, which are not run here")
    return wrong


def _layer(block: Any, device: torch.device, dtype: torch.dtype) -> LayerWeights:
    attention = block.self_attn
    inward = torch.cat([attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight])
    parts = (block.input_layernorm.weight, inward, attention.o_proj.weight, block.post_attention_layernorm.weight)
    first, inward, outward, second = (part.to(device, dtype) for part in parts)
    return LayerWeights(first, inward, outward, second, None, None)


def _experts(found: Refactorized, shape: ModelShape, keys: Keys, dtype: torch.dtype) -> Tensor:
    """[keys, weights of a key] in host memory, what was tuned included."""
    rows = torch.empty(keys.count, ExpertForm.of(shape).weights, dtype=dtype)
    for layer, block in enumerate(found.dense.model.model.layers):
        for expert in range(shape.experts):
            parts = expert_of(block.mlp, expert)
            rows[keys.table[layer][expert]] = torch.cat([part.flatten() for part in parts]).to(dtype)
    return rows


def expert_of(ffn: Any, expert: int) -> tuple[Tensor, Tensor, Tensor]:
    """Gate and up [width, d] and down [d, width] of an expert of a `DomainFFN`, with its deltas."""
    channels = ffn.masks[expert].nonzero().flatten()

    def whole(name: str) -> Tensor:
        weight: Tensor = getattr(ffn.dense, name).weight
        if ffn.deltas is None:
            return weight
        delta = ffn.deltas[name]
        inner = delta.down if ffn.reach is None else delta.down * ffn.reach[expert][:, None]
        return weight + delta.up @ inner

    return whole("gate_proj")[channels], whole("up_proj")[channels], whole("down_proj")[:, channels]


def problems_of(config: Experiment) -> list[tuple[str, str]]:
    """(key, what is wrong) of an experiment whose routes are computed as it runs."""
    found = []
    if config.schedule == "frozen":
        found.append(("schedule", "frozen replays routes that are known; with --model they are computed: give free"))
    traffic = config.traffic
    for key, given in (("prompt", traffic.prompt), ("output", traffic.output), ("arrivals", traffic.arrivals)):
        if given is not None:
            found.append((f"traffic.{key}", "does not go with --prompts, which say how long requests are"))
    for kind, spec in specs_of(config).items():
        if policy.make(kind, spec).level == "oracle":
            text = f"{spec.name!r} knows all routes, and with --model they are computed as they are needed"
            found.append(("scheduler.batch" if kind == "batch" else kind, text))
    return found


def digest_of(folder: Path, prompts: Path) -> str:
    """What tells one model and file of prompts from another, without reading the model."""
    parts = []
    for path in (folder / "refactorized.json", prompts):
        try:
            parts.append(hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError as error:
            raise InputError(Problem(str(path), f"cannot be read ({error.strerror})")) from error
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
