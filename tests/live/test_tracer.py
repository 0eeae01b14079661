"""What is recorded is what was chosen, in real architectures, and nothing of it changes what the model gives."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")
pytest.importorskip("transformers", reason="needs the live extra (transformers)")

from moesim.errors import InputError  # noqa: E402
from moesim.live.structure import find_blocks, router_block  # noqa: E402
from moesim.live.tracer import RoutingTracer  # noqa: E402
from tests.live.architectures import ARCHITECTURES, LOCAL, chosen, inputs_of_gates, small  # noqa: E402

TOKENS = 11


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request):
    """(architecture, model, ids of two sequences, its MoE blocks as they are found)."""
    architecture = ARCHITECTURES[request.param]
    model = small(architecture.config, architecture.given)
    ids = torch.randint(2, 64, (2, TOKENS), generator=torch.Generator().manual_seed(3))
    return architecture, model, ids, find_blocks(model, request.param)


def trace(model, ids, blocks, **given):
    """(logits, routing of each sequence) of one traced pass."""
    with RoutingTracer(blocks, **given) as tracer:
        tracer.expect(range(len(ids)), ids.shape[1])
        logits = model(input_ids=ids, use_cache=False).logits
        tracer.collect()
    return logits, [tracer.take(row) for row in range(len(ids))]


def test_the_choice_is_what_the_gates_definition_gives(case):
    architecture, model, ids, blocks = case
    assert len(blocks) == architecture.layers
    _, routed = trace(model, ids, blocks, top=4, distances=3, ahead=4)
    truth = inputs_of_gates(model, ids)
    assert len(truth) == architecture.layers
    for layer, (block, x) in enumerate(truth):
        experts, weights = (part.reshape(2, TOKENS, -1) for part in chosen(architecture, block, x))
        for row, routing in enumerate(routed):
            assert routing.experts[:, layer].tolist() == experts[row].tolist()
            np.testing.assert_allclose(routing.weights[:, layer], weights[row], atol=2e-3, rtol=2e-3)


def test_predictions_are_what_later_gates_choose_on_this_layers_input(case):
    architecture, model, ids, blocks = case
    _, routed = trace(model, ids, blocks, top=4, distances=3, ahead=4)
    truth = inputs_of_gates(model, ids)
    k = blocks[0].k
    for distance in (1, 2, 3):
        for layer, (_, x) in enumerate(truth):
            found = np.stack([routing.predicted[distance][:, layer] for routing in routed])
            assert found.shape == (2, TOKENS, 4)
            if layer + distance >= len(truth):
                assert (found == -1).all()
                continue
            experts, _ = chosen(architecture, truth[layer + distance][0], x)
            assert found[:, :, :k].reshape(-1, k).tolist() == experts.tolist()
            assert all(len(set(line)) == 4 for line in found.reshape(-1, 4).tolist())


def test_the_output_is_the_same_bit_for_bit_and_no_hook_is_left(case):
    _, model, ids, blocks = case
    before = model(input_ids=ids, use_cache=False).logits
    for given in ({}, {"top": 4}, {"top": 4, "distances": 3, "ahead": 4}):
        after, _ = trace(model, ids, blocks, **given)
        assert torch.equal(before, after)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.equal(before, model(input_ids=ids, use_cache=False).logits)


def test_only_sequences_that_are_wanted_in_full_are_kept_in_full(case):
    _, model, ids, blocks = case
    _, whole = trace(model, ids, blocks, top=4, distances=2, ahead=3)
    _, some = trace(model, ids, blocks, top=4, distances=2, ahead=3, full=lambda number: number == 1)
    assert some[0].top_experts is None and some[0].predicted == {}
    assert all(np.array_equal(a, b) for a, b in zip(some[1].arrays().values(), whole[1].arrays().values(), strict=True))
    assert np.array_equal(some[0].experts, whole[0].experts)


def test_probabilities_are_those_of_the_gates_logits():
    model = small("MixtralConfig", LOCAL)
    ids = torch.arange(2, 9)[None]
    blocks = find_blocks(model, "m")
    _, (routing,) = trace(model, ids, blocks, top=4)
    for layer, (block, x) in enumerate(inputs_of_gates(model, ids)):
        logits = torch.from_numpy(x) @ block.gate.weight.double().T
        best = logits.softmax(dim=-1).topk(4, dim=-1)
        assert routing.top_experts[:, layer].tolist() == best.indices.tolist()
        np.testing.assert_allclose(routing.top_weights[:, layer], best.values, atol=1e-3)


# ---- other forms of blocks


class Listed(torch.nn.Module):
    """A block as models with code of their own have it: a linear gate and a list of experts, called one by one."""

    def __init__(self, limited: bool = False) -> None:
        super().__init__()
        self.gate = torch.nn.Linear(16, 8, bias=False)
        self.experts = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(8))
        self.limited = limited

    def forward(self, x):
        flat = x.reshape(-1, 16)
        scores = self.gate(flat).softmax(dim=-1)
        if self.limited:  # a choice that the logits do not tell
            scores = scores.roll(1, dims=-1)
        weights, index = scores.topk(2, dim=-1)
        out = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            token, place = torch.where(index == number)
            if len(token):
                out[token] += expert(flat[token]) * weights[token, place, None]
        self.index, self.weights = index, weights
        return out.view_as(x)


def with_blocks(make):
    model = small("LlamaConfig", {})
    for layer in model.model.layers:
        layer.mlp = make().requires_grad_(False)
        layer.mlp.gate.weight.normal_(0, 0.5)
    return model


def test_experts_in_a_list_are_traced_by_the_gates_best():
    model = with_blocks(Listed)
    blocks = find_blocks(model, "m")
    assert [block.form for block in blocks] == ["counted"] * 4 and blocks[0].k == 2
    ids = torch.arange(2, 22)[None]
    before = model(input_ids=ids, use_cache=False).logits
    after, (routing,) = trace(model, ids, blocks, top=4, distances=1, ahead=4)
    assert torch.equal(before, after)
    for layer, block in enumerate(model.model.layers):
        assert routing.experts[:, layer].tolist() == block.mlp.index.tolist()
        np.testing.assert_allclose(routing.weights[:, layer], block.mlp.weights, atol=1e-3)


def test_a_list_whose_choice_the_gate_does_not_explain_is_refused():
    model = with_blocks(lambda: Listed(limited=True))
    with pytest.raises(InputError) as told:
        find_blocks(model, "m")
    text = str(told.value)
    assert "m: has no MoE block that can be traced: looked for a module with experts" in text
    assert "m: model.layers.0.mlp.experts: 8 experts and a gate, but what a token chose cannot be seen" in text
    assert "Linear gives float32 [7, 8]" in text


def test_a_dense_model_is_refused():
    with pytest.raises(InputError, match=r"m: has no MoE block: looked for .* Of a dense model --text-only"):
        find_blocks(small("LlamaConfig", {}), "m")


def test_an_architecture_whose_experts_are_not_given_a_choice_is_refused():
    model = small("JetMoeConfig", {**LOCAL, "kv_channels": 4})
    with pytest.raises(InputError) as told:
        find_blocks(model, "JetMoE")
    assert "JetMoE: has no MoE block that can be traced" in str(told.value)
    assert "JetMoE: model.layers.0.mlp.input_linear: " in str(told.value)


def test_experts_without_weights_are_nobodys():
    """LongCat has experts that only pass a token on: nothing of them is loaded."""
    given = {"n_routed_experts": 8, "zero_expert_num": 4, "moe_topk": 3, "num_layers": 2, "expert_ffn_hidden_size": 8}
    latent = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4}
    heads = {"num_key_value_heads": 4, "head_dim": 4, "ffn_hidden_size": 16}
    model = small("LongcatFlashConfig", {**given, **latent, **heads})
    blocks = find_blocks(model, "m")
    assert {block.experts for block in blocks} == {8}
    seen = []
    for layer in model.model.layers:
        layer.mlp.experts.register_forward_pre_hook(lambda module, args: seen.append(args[1].clone()))
    _, (routing,) = trace(model, torch.arange(2, 42)[None], blocks, top=6, distances=1, ahead=6)
    for layer, index in enumerate(seen):
        real = [sorted(e for e in line if e < 8) for line in index.tolist()]
        assert [sorted(e for e in line if e >= 0) for line in routing.experts[:, layer].tolist()] == real
        assert any(len(line) < 3 for line in real)  # or this test would show nothing
        assert (routing.weights[:, layer][routing.experts[:, layer] < 0] == 0).all()
    assert routing.top_experts.max() < 8 and routing.predicted[1].max() < 8


def test_a_router_apart_from_the_backbone_is_traced(router):
    ids = torch.randint(2, 64, (2, 9), generator=torch.Generator().manual_seed(1))
    with RoutingTracer([router_block(router, 5, 1)], top=3) as tracer:
        tracer.expect([4, 7], 9)
        logits = router(ids)
        tracer.collect()
    for place, row in enumerate((4, 7)):
        routing = tracer.take(row)
        best = logits[place].softmax(dim=-1).topk(3, dim=-1)
        assert routing.experts.tolist() == best.indices[:, None, :1].tolist()
        assert routing.weights.tolist() == best.values[:, None, :1].half().tolist()
        assert routing.top_experts.tolist() == best.indices[:, None].tolist()


def test_a_pass_that_nobody_expects_is_refused():
    model = small("MixtralConfig", LOCAL)
    with RoutingTracer(find_blocks(model, "m"), top=4), pytest.raises(RuntimeError, match="expect"):
        model(input_ids=torch.arange(2, 9)[None])


