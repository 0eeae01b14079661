"""Small randomly initialised models of real architectures, and what their gates choose, written down from their
definitions in numpy; nothing of the tracer is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

VOCABULARY = 64
E, K = 8, 2
BASE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 0,
}
LATENT = {  # multi-head latent attention
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 4,
    "num_key_value_heads": 4,
    "head_dim": 4,
}
GROUPS = {
    "n_group": 4,
    "topk_group": 2,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
    "moe_intermediate_size": 8,
    "n_routed_experts": E,
    "num_experts_per_tok": K,
}
LOCAL = {"num_local_experts": E, "num_experts_per_tok": K}
COUNTED = {"num_experts": E, "num_experts_per_tok": K}


@dataclass(frozen=True)
class Rule:
    """How a gate gets from logits to its choice: scores, groups, what becomes of the weights, a factor."""

    scores: str = "softmax"
    groups: str = ""
    weights: str = "scores"
    scale: float = 1.0


@dataclass(frozen=True)
class Architecture:
    config: str
    given: dict[str, Any]
    rule: Rule
    layers: int = 4
    weight: str = "gate.weight"
    bias: str = ""


NORMED = Rule(weights="normed")
BIASED = Rule("sigmoid", "two best", "normed")
ARCHITECTURES = {
    "Mixtral": Architecture("MixtralConfig", LOCAL, NORMED),
    "Qwen2-MoE": Architecture(
        "Qwen2MoeConfig", {**COUNTED, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 16}, Rule()
    ),
    "Qwen3-MoE": Architecture(
        "Qwen3MoeConfig", {**COUNTED, "moe_intermediate_size": 8, "norm_topk_prob": True}, NORMED
    ),
    "OLMoE": Architecture("OlmoeConfig", COUNTED, Rule()),
    "FlexOlmo": Architecture("FlexOlmoConfig", COUNTED, Rule()),
    "DeepSeek-V2": Architecture(
        "DeepseekV2Config",
        {**LATENT, **GROUPS, "topk_method": "group_limited_greedy", "routed_scaling_factor": 1.5},
        Rule(groups="best", scale=1.5),
        layers=3,
    ),
    "DeepSeek-V3": Architecture(
        "DeepseekV3Config",
        {**LATENT, **GROUPS, "norm_topk_prob": True, "routed_scaling_factor": 2.5},
        Rule("sigmoid", "two best", "normed", 2.5),
        layers=3,
        bias="gate.e_score_correction_bias",
    ),
    "GLM4-MoE": Architecture(
        "Glm4MoeConfig",
        {**GROUPS, "head_dim": 8, "norm_topk_prob": True, "routed_scaling_factor": 1.0},
        BIASED,
        layers=3,
        bias="gate.e_score_correction_bias",
    ),
    "dots1": Architecture(
        "Dots1Config",
        {**GROUPS, "head_dim": 8, "norm_topk_prob": True, "routed_scaling_factor": 1.0},
        BIASED,
        layers=3,
        bias="gate.e_score_correction_bias",
    ),
    "gpt-oss": Architecture(
        "GptOssConfig", {**LOCAL, "head_dim": 8, "sliding_window": 6}, Rule("logits", weights="softmax of the chosen"),
        weight="router.weight",
    ),
    "GraniteMoE": Architecture(
        "GraniteMoeConfig", LOCAL, Rule("logits", weights="softmax of the chosen"), weight="router.weight"
    ),
    "Phi-MoE": Architecture("PhimoeConfig", LOCAL, Rule("logits", weights="sparsemixer"), weight="router.weight"),
    "Jamba": Architecture(
        "JambaConfig",
        {**COUNTED, "mamba_d_state": 4, "mamba_dt_rank": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
        Rule(),
        layers=2,
        weight="router.weight",
    ),
    "MiniMax": Architecture("MiniMaxConfig", {**LOCAL, "head_dim": 8}, NORMED),
    "MiniMax-M2": Architecture(
        "MiniMaxM2Config", {**LOCAL, "head_dim": 8}, Rule("sigmoid", weights="normed"), bias="e_score_correction_bias"
    ),
    "Llama-4": Architecture(
        "Llama4TextConfig",
        {"num_local_experts": E, "num_experts_per_tok": 1, "intermediate_size_mlp": 24, "head_dim": 8},
        Rule("logits", weights="sigmoid"),
        weight="router.weight",
    ),
    "LFM2-MoE": Architecture(
        "Lfm2MoeConfig",
        {
            **COUNTED,
            "moe_intermediate_size": 8,
            "num_dense_layers": 1,
            "layer_types": ["conv", "full_attention", "conv", "full_attention"],
        },
        Rule("sigmoid", weights="normed"),
        layers=3,
        bias="expert_bias",
    ),
    "Ernie-4.5-MoE": Architecture(
        "Ernie4_5_MoeConfig",
        {"moe_num_experts": E, "moe_k": K, "moe_intermediate_size": 8, "moe_layer_start_index": 1},
        NORMED,
        layers=3,
        bias="gate.moe_statics.e_score_correction_bias",
    ),
    "Hunyuan-MoE": Architecture(
        "HunYuanMoEV1Config", {"num_experts": E, "moe_topk": K, "head_dim": 8}, NORMED, weight="gate.wg.weight"
    ),
    "AFMoE": Architecture(
        "AfmoeConfig",
        {**COUNTED, "moe_intermediate_size": 8, "head_dim": 8, "num_dense_layers": 1, "route_scale": 1.0},
        Rule("sigmoid", weights="normed"),
        layers=3,
        weight="router.gate.weight",
        bias="expert_bias",
    ),
}


def small(config: str, given: dict[str, Any], seed: int = 0):
    """A model of an architecture, on the CPU in float32, whose gates choose clearly."""
    import pytest
    import torch
    import transformers

    if not hasattr(transformers, config):
        pytest.skip(f"this transformers has no {config}")
    torch.manual_seed(seed)
    made = getattr(transformers, config)(**{**BASE, **given})
    model = transformers.AutoModelForCausalLM.from_config(made).eval().requires_grad_(False)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if "e_score_correction_bias" in name or "expert_bias" in name:
            value.normal_(0, 0.2)
        elif value.ndim >= 2 and value.is_floating_point():
            value.normal_(0, 0.3)
    return model


def inputs_of_gates(model: Any, ids: Any) -> list[tuple[Any, np.ndarray]]:
    """(MoE block, float64 [tokens, d] that its gate gets) of every layer, by the names that transformers gives them."""
    found = []
    for layer in model.model.layers:
        parts = (getattr(layer, name, None) for name in ("mlp", "feed_forward", "block_sparse_moe"))
        block = next(part for part in parts if part is not None)
        gate = getattr(block, "gate", None) or getattr(block, "router", None)
        if gate is None or not hasattr(block, "experts"):
            continue
        seen: list[np.ndarray] = []
        run = gate.forward

        def spy(hidden, *args, run=run, seen=seen):
            seen.append(hidden.reshape(-1, hidden.shape[-1]).double().numpy().copy())
            return run(hidden, *args)

        gate.forward = spy
        found.append((block, gate, seen))
    model(input_ids=ids, use_cache=False)
    for _, gate, _ in found:
        del gate.forward
    return [(block, seen[0]) for block, _, seen in found]


def chosen(architecture: Architecture, block: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(experts, weights) [tokens, k] that the gate of `block` chooses for `x`, largest weight first."""
    rule, k = architecture.rule, architecture.given.get("num_experts_per_tok", K)
    logits = x @ block.get_parameter(architecture.weight).double().numpy().T
    if "bias" in dict(block.named_parameters()) or hasattr(getattr(block, "router", None), "bias"):
        bias = getattr(block.router, "bias", None)
        logits = logits if bias is None else logits + bias.double().numpy()
    if rule.weights == "sparsemixer":
        return sparsemixer(logits)
    scores = {"softmax": softmax, "sigmoid": lambda v: 1 / (1 + np.exp(-v)), "logits": lambda v: v}[rule.scores](logits)
    ranked = scores
    if architecture.bias:
        *path, last = architecture.bias.split(".")
        owner = block.get_submodule(".".join(path))
        ranked = scores + getattr(owner, last).double().numpy().reshape(-1)
    if rule.groups:
        ranked = within_groups(ranked, rule.groups)
    index = np.argsort(-ranked, axis=1, kind="stable")[:, :k]
    weights = np.take_along_axis(scores, index, axis=1)
    if rule.weights == "normed":
        weights = weights / weights.sum(axis=1, keepdims=True)
    elif rule.weights == "softmax of the chosen":
        weights = softmax(weights)
    elif rule.weights == "sigmoid":
        weights = 1 / (1 + np.exp(-weights))
    order = np.argsort(-weights, axis=1, kind="stable")
    return np.take_along_axis(index, order, axis=1), np.take_along_axis(weights, order, axis=1) * rule.scale


def softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def within_groups(ranked: np.ndarray, by: str) -> np.ndarray:
    """Scores of DeepSeek's group-limited choice: of four groups of neighbours, two are left."""
    groups = ranked.reshape(len(ranked), 4, -1)
    worth = groups.max(axis=2) if by == "best" else np.sort(groups, axis=2)[:, :, -2:].sum(axis=2)
    left = np.zeros_like(worth, dtype=bool)
    np.put_along_axis(left, np.argsort(-worth, axis=1, kind="stable")[:, :2], True, axis=1)
    return np.where(left[:, :, None], groups, -np.inf).reshape(ranked.shape)


def sparsemixer(logits: np.ndarray, jitter: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Phi-MoE's two choices (arXiv 2409.12136): each the best that is left, weighted among those within reach of it."""
    rows = np.arange(len(logits))
    index, weights, left = [], [], logits.copy()
    for _ in range(2):
        best = left.argmax(axis=1)
        top = left[rows, best][:, None]
        far = (top - logits) / np.maximum(np.abs(logits), top) > 2 * jitter
        index.append(best)
        weights.append(softmax(np.where(far, -np.inf, left))[rows, best])
        left[rows, best] = -np.inf
    found, weighed = np.stack(index, axis=1), np.stack(weights, axis=1)
    order = np.argsort(-weighed, axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1), np.take_along_axis(weighed, order, axis=1)
