"""Sizes of experts and of the rest, against arithmetic and against published sizes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moesim.errors import InputError
from moesim.hardware.shape import ModelShape, load_shape, shipped_shapes

# name -> config.json fields, and (expert weights, MoE layers, experts, top-k, shared width) as published.
CONFIGS: dict[str, tuple[dict[str, Any], tuple[int, int, int, int, int]]] = {
    "Mixtral-8x7B": (
        dict(model_type="mixtral", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_local_experts=8,
             num_experts_per_tok=2, num_attention_heads=32, num_key_value_heads=8, vocab_size=32000),
        (176_160_768, 32, 8, 2, 0),
    ),
    "Phi-3.5-MoE": (
        dict(model_type="phimoe", hidden_size=4096, intermediate_size=6400, num_hidden_layers=32, num_local_experts=16,
             num_experts_per_tok=2, num_attention_heads=32, num_key_value_heads=8, vocab_size=32064),
        (78_643_200, 32, 16, 2, 0),
    ),
    "Qwen1.5-MoE-A2.7B": (
        dict(model_type="qwen2_moe", hidden_size=2048, intermediate_size=5632, moe_intermediate_size=1408,
             shared_expert_intermediate_size=5632, num_hidden_layers=24, num_experts=60, num_experts_per_tok=4,
             num_attention_heads=16, num_key_value_heads=16, vocab_size=151936, decoder_sparse_step=1,
             mlp_only_layers=[]),
        (8_650_752, 24, 60, 4, 5632),
    ),
    "DeepSeek-V2-Lite": (
        dict(model_type="deepseek_v2", hidden_size=2048, intermediate_size=10944, moe_intermediate_size=1408,
             num_hidden_layers=27, n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6,
             first_k_dense_replace=1, moe_layer_freq=1, num_attention_heads=16, num_key_value_heads=16,
             vocab_size=102400, kv_lora_rank=512, q_lora_rank=None, qk_rope_head_dim=64, qk_nope_head_dim=128,
             v_head_dim=128),
        (8_650_752, 26, 64, 6, 2816),
    ),
    "DeepSeek-MoE-16B": (
        dict(model_type="deepseek", hidden_size=2048, intermediate_size=10944, moe_intermediate_size=1408,
             num_hidden_layers=28, n_routed_experts=64, n_shared_experts=2, num_experts_per_tok=6,
             first_k_dense_replace=1, moe_layer_freq=1, num_attention_heads=16, num_key_value_heads=16,
             vocab_size=102400),
        (8_650_752, 27, 64, 6, 2816),
    ),
    "OLMoE-1B-7B": (
        dict(model_type="olmoe", hidden_size=2048, intermediate_size=1024, num_hidden_layers=16, num_experts=64,
             num_experts_per_tok=8, num_attention_heads=16, num_key_value_heads=16, vocab_size=50304),
        (6_291_456, 16, 64, 8, 0),
    ),
    "Qwen3-30B-A3B": (
        dict(model_type="qwen3_moe", hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768,
             num_hidden_layers=48, num_experts=128, num_experts_per_tok=8, num_attention_heads=32,
             num_key_value_heads=4, head_dim=128, vocab_size=151936, decoder_sparse_step=1, mlp_only_layers=[]),
        (4_718_592, 48, 128, 8, 0),
    ),
    "gpt-oss-120b": (
        dict(model_type="gpt_oss", hidden_size=2880, intermediate_size=2880, num_hidden_layers=36,
             num_local_experts=128, experts_per_token=4, num_attention_heads=64, num_key_value_heads=8, head_dim=64,
             vocab_size=201088),
        (24_883_200, 36, 128, 4, 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ["Mixtral-8x7B", "DeepSeek-V2-Lite", "Qwen3-30B-A3B"])
def test_shipped_shapes_are_those_of_the_config(name: str) -> None:
    shape = load_shape(name.lower())
    assert shape.model_copy(update={"name": name, "source": ""}) == ModelShape.from_hf_config(
        CONFIGS[name][0], name=name, source=""
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_hugging_face_sizes_are_the_published_ones(name: str) -> None:
    config, (weights, layers, experts, top_k, shared) = CONFIGS[name]
    shape = ModelShape.from_hf_config(config, name=name)
    assert shape.key_bytes == 2 * weights
    assert (shape.name, shape.layers, shape.experts, shape.top_k) == (name, layers, experts, top_k)
    assert shape.shared_expert_width == shared
    assert shape.keys == layers * experts


# Total parameters as the models' makers round them, in 10^9.
@pytest.mark.parametrize(
    ("name", "total"),
    [("Mixtral-8x7B", 46.7), ("Qwen1.5-MoE-A2.7B", 14.3), ("DeepSeek-V2-Lite", 15.7), ("DeepSeek-MoE-16B", 16.4),
     ("OLMoE-1B-7B", 6.9), ("Qwen3-30B-A3B", 30.5)],
)  # fmt: skip
def test_everything_together_is_the_published_model(name: str, total: float) -> None:
    shape = ModelShape.from_hf_config(CONFIGS[name][0])
    weights = (shape.keys * shape.key_bytes + shape.static_bytes) / 2 / 1e9
    assert weights == pytest.approx(total, rel=0.005)


def test_mxfp4_expert_of_gpt_oss() -> None:
    shape = ModelShape.from_hf_config(CONFIGS["gpt-oss-120b"][0], expert_bits=4.25)
    assert shape.key_bytes == 13_219_200


def test_latent_attention_of_deepseek_keeps_576_values_a_token() -> None:
    shape = ModelShape.from_hf_config(CONFIGS["DeepSeek-V2-Lite"][0])
    assert shape.kv_bytes_per_token == 27 * (512 + 64) * 2


def test_mlp_only_layers_and_sparse_steps_are_dense() -> None:
    config = CONFIGS["Qwen3-30B-A3B"][0] | {"mlp_only_layers": [0, 1], "decoder_sparse_step": 2}
    shape = ModelShape.from_hf_config(config)
    assert (shape.layers, shape.dense_layers, shape.dense_width) == (23, 25, 6144)  # odd layers but layer 1


def test_layers_may_be_listed_one_by_one() -> None:
    config = CONFIGS["DeepSeek-MoE-16B"][0] | {"moe_layer_freq": [0, 0] + [1] * 26}
    assert ModelShape.from_hf_config(config).dense_layers == 2
    with pytest.raises(InputError, match="moe_layer_freq lists 3 layers"):
        ModelShape.from_hf_config(config | {"moe_layer_freq": [0, 1, 1]})


def test_llama_key_is_135_megabytes() -> None:
    shape = load_shape("llama-2-7b-readme")
    assert shape.key_bytes == 3 * 4096 * 5504 * 2 == 135_266_304
    assert load_shape("llama-2-7b-readme-int4").key_bytes == 35_930_112
    assert shape.keys == 224
    assert shape.kv_bytes_per_token == 32 * 2 * 4096 * 2


def test_read_me_parameters_are_those_of_its_table_3() -> None:
    shape = load_shape("llama-2-7b-readme")
    others = shape.static_bytes - shape.router_bytes
    assert (others + shape.layers * shape.key_bytes) / 2 / 1e9 == pytest.approx(4.57, abs=0.01)
    assert (others + shape.keys * shape.key_bytes) / 2 / 1e9 == pytest.approx(17.56, abs=0.01)
    assert shape.router_bytes / 2 == pytest.approx(18.0e6, rel=0.003)


def test_smollm2_parameters_are_those_of_the_dense_model() -> None:
    shape = load_shape("smollm2-135m-readme")
    assert shape.key_bytes == 3 * 576 * 768 * 2
    dense = shape.static_bytes - shape.router_bytes + 2 * shape.layers * shape.key_bytes
    assert dense / 2 == 134_515_008


@pytest.mark.parametrize("name", ["llama-2-7b-{}-int4", "llama-2-7b-{}-int4-30-layers", "smollm2-135m-{}"])
def test_the_layer_wise_twin_is_the_same_dense_model(name: str) -> None:
    """Attention and embeddings are the same; shared channels and experts are the dense FFN's, half of them active."""
    domains, twin = load_shape(name.format("readme")), load_shape(name.format("fine-grained"))
    others = [shape.static_bytes - shape.router_bytes - shape.layers * shape.shared_bytes for shape in (domains, twin)]
    assert others[0] == others[1]
    width = twin.shared_expert_width + twin.experts * twin.expert_width
    assert width == 2 * domains.expert_width
    assert abs(twin.shared_expert_width + twin.top_k * twin.expert_width - domains.expert_width) <= 2
    assert twin.layers * (twin.shared_bytes + twin.experts * twin.key_bytes) == 2 * domains.layers * domains.key_bytes
    assert twin.router_bytes == 2 * twin.layers * twin.d_model * twin.experts


def test_every_shipped_shape_says_where_it_is_from() -> None:
    assert len(shipped_shapes()) == 11
    for name in shipped_shapes():
        shape = load_shape(name)
        assert shape.name == name
        assert shape.source


def test_wrong_name_lists_what_exists_and_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'llama-2-7b-readme'") as caught:
        load_shape("llama-2-7b-readm")
    assert all(name in str(caught.value) for name in shipped_shapes())


def test_config_json_takes_its_name_from_the_folder(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "mixtral" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(CONFIGS["Mixtral-8x7B"][0]))
    assert load_shape(path).name == "mixtral"


def test_dense_and_encoder_decoder_configs_are_refused_with_every_reason() -> None:
    with pytest.raises(InputError) as caught:
        ModelShape.from_hf_config({"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": "4"})
    texts = [problem.text for problem in caught.value.problems]
    assert any(text.startswith("vocab_size is missing") for text in texts)
    assert any(text.startswith("has no experts") for text in texts)
    assert any("num_attention_heads must be an integer (it is '4')" in text for text in texts)
    with pytest.raises(InputError, match="encoder-decoder"):
        ModelShape.from_hf_config({"is_encoder_decoder": True})
    for key in ("text_config", "interleave_moe_layer_step", "expert_layer_period"):
        with pytest.raises(InputError, match=r"write its shape as a \.yaml file"):
            ModelShape.from_hf_config(CONFIGS["Mixtral-8x7B"][0] | {key: 1})


def test_latent_attention_without_its_sizes_is_refused() -> None:
    config = {k: v for k, v in CONFIGS["DeepSeek-V2-Lite"][0].items() if k != "v_head_dim"}
    with pytest.raises(InputError, match="v_head_dim is missing"):
        ModelShape.from_hf_config(config)


@pytest.mark.parametrize("text", ["", "- 1", "layers: [", "{"])
def test_a_file_that_is_no_shape_is_refused(tmp_path, text: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "shape.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="model shape"):
        load_shape(path)


def test_all_wrong_fields_are_named_at_once(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "mine.yaml"
    path.write_text("layers: -1\nd_model: 64\nexpert_width: 64\nexperts: 4\nheads: 4\nkv_heads: 4\nhead_dim: 16\n"
                    "vocab: many\nwidth: 3\n")  # fmt: skip
    with pytest.raises(InputError) as caught:
        load_shape(path)
    places = {problem.place.rsplit(": ")[-1] for problem in caught.value.problems}
    assert places == {"layers", "vocab", "width", "top_k"}


def test_experts_that_cannot_be_are_refused() -> None:
    config = CONFIGS["Mixtral-8x7B"][0]
    with pytest.raises(InputError, match="top_k is 9, but there are 8 experts"):
        ModelShape.from_hf_config(config | {"num_experts_per_tok": 9})
