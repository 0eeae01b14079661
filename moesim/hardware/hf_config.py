"""Model shapes from Hugging Face `config.json` files of mixture-of-experts models.

The families differ in the names of the same sizes, and in which layers hold experts. Read here: Mixtral, Phi-MoE,
Qwen2-MoE, Qwen3-MoE, OLMoE, DeepSeek (v1, v2 with latent attention), GraniteMoE, gpt-oss, and what follows their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moesim.errors import InputError, Problem

EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
TOP_K = ("num_experts_per_tok", "experts_per_token", "num_experts_per_token", "moe_topk")
NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
# Layouts that are not read here; taking them for a plain one would give wrong sizes.
FOREIGN = {
    "text_config": "holds several models; give its text_config as a file of its own",
    "interleave_moe_layer_step": "interleaves dense layers in a way that is not read here (Llama 4)",
    "expert_layer_period": "mixes other layers with attention, which is not read here (Jamba)",
}
LATENT = ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim")


def shape_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a ModelShape. Raises InputError that names every size the config lacks."""
    place = str(config.get("_name_or_path") or "config.json")
    problems = [Problem(place, text) for text in _lacks(config)]
    if problems:
        raise InputError(problems)
    dense = dense_layers(config)
    moe_layers = config["num_hidden_layers"] - dense
    experts = first(config, EXPERTS)
    heads = config["num_attention_heads"]
    return {
        "name": str(config.get("_name_or_path") or config.get("model_type") or "config").rstrip("/").split("/")[-1],
        "layers": moe_layers,
        "d_model": config["hidden_size"],
        "expert_width": config.get("moe_intermediate_size") or config["intermediate_size"],
        "experts": experts,
        "top_k": first(config, TOP_K),
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": config.get("head_dim") or config["hidden_size"] // heads,
        "vocab": config["vocab_size"],
        "shared_expert_width": shared_width(config),
        "dense_layers": dense,
        "dense_width": config["intermediate_size"] if dense else 0,
        "tied_embeddings": bool(config.get("tie_word_embeddings", False)),
        "router_bytes": 2 * moe_layers * config["hidden_size"] * experts,
        "source": f"Hugging Face config.json, model_type {config.get('model_type', 'not given')}",
        **latent_attention(config),
    }


def first(config: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The value of the first of `names` that the config gives, or None."""
    return next((config[name] for name in names if config.get(name) is not None), None)


def _lacks(config: Mapping[str, Any]) -> list[str]:
    foreign = [text for name, text in FOREIGN.items() if config.get(name) is not None]
    if config.get("is_encoder_decoder"):
        foreign.append("is an encoder-decoder model; only decoders can be read")
    if foreign:
        return [f"{text}; or write its shape as a .yaml file" for text in foreign]
    needed = NEEDED + (LATENT if config.get("kv_lora_rank") else ())
    texts = [f"{name} is missing" for name in needed if config.get(name) is None]
    if first(config, EXPERTS) is None:
        texts.append(f"has no experts: expected one of {', '.join(EXPERTS)}")
    if first(config, TOP_K) is None:
        texts.append(f"does not say how many experts a token takes: expected one of {', '.join(TOP_K)}")
    if config.get("moe_intermediate_size") is None and config.get("intermediate_size") is None:
        texts.append("does not say how wide an expert is: expected moe_intermediate_size or intermediate_size")
    listed = config.get("moe_layer_freq")
    if isinstance(listed, list) and len(listed) != config.get("num_hidden_layers"):
        texts.append(f"moe_layer_freq lists {len(listed)} layers, and num_hidden_layers another number")
    wrong = [name for name in (*needed, *EXPERTS, *TOP_K) if not isinstance(config.get(name, 1), int | None)]
    return texts + [f"{name} must be an integer (it is {config[name]!r})" for name in wrong]


def dense_layers(config: Mapping[str, Any]) -> int:
    """How many layers hold no experts (DeepSeek `first_k_dense_replace`, Qwen `mlp_only_layers`, sparse steps)."""
    layers = range(config["num_hidden_layers"])
    leading = config.get("first_k_dense_replace") or 0
    every = config.get("moe_layer_freq") or 1
    chosen = every if isinstance(every, list) else [i % every == 0 for i in layers]
    step = config.get("decoder_sparse_step") or 1
    listed = set(config.get("mlp_only_layers") or ())
    sparse = [i for i in layers if i >= leading and chosen[i] and (i + 1) % step == 0 and i not in listed]
    return len(layers) - len(sparse)


def shared_width(config: Mapping[str, Any]) -> int:
    """Width of a layer's shared experts taken together, 0 where there are none."""
    given = config.get("shared_expert_intermediate_size") or config.get("shared_intermediate_size")
    count = config.get("n_shared_experts") or config.get("num_shared_experts") or 0
    return given or count * (config.get("moe_intermediate_size") or 0)


def latent_attention(config: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of DeepSeek's multi-head latent attention (arXiv 2405.04434, section 2.1); {} for other attentions."""
    rank = config.get("kv_lora_rank")
    if not rank:
        return {}
    d, heads = config["hidden_size"], config["num_attention_heads"]
    rope, nope, value = (config[name] for name in LATENT)
    query_rank = config.get("q_lora_rank")
    width = heads * (nope + rope)
    query = query_rank * (d + width) if query_rank else d * width
    compressed = d * (rank + rope) + rank * heads * (nope + value)
    return {
        "head_dim": nope + rope,
        "attention_parameters": query + compressed + heads * value * d,
        "kv_values": rank + rope,
    }
