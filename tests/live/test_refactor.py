from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.live.generate import Sampler, generate, left_padded  # noqa: E402
from moesim.live.refactor import DecodeState, RoutedModel, expert_weights  # noqa: E402
from moesim.live.tracer import RoutingTracer  # noqa: E402


def tokens(*shape: int, seed: int = 0):
    return torch.randint(2, 64, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def routed(dense, router, experts):
    return RoutedModel(dense.model, router, experts)


def test_dense_mode_is_the_dense_model(routed, dense):
    ids = tokens(2, 15)
    routed.apply_experts = False
    assert torch.equal(routed(ids), dense.model(ids, attention_mask=torch.ones_like(ids)).logits)


def test_an_expert_runs_its_slices_only(routed, dense, experts):
    x = torch.randn(6, 16)
    mlp = dense.model.model.layers[1].mlp
    gate, up, down = expert_weights(dense.model, experts, 3, 1)
    assert gate.shape == up.shape == (12, 16) and down.shape == (16, 12)
    sliced = (mlp.act_fn(x @ gate.T) * (x @ up.T)) @ down.T
    with routed._channels(torch.full((1, 6), 3)):
        masked = mlp(x[None])[0]
    torch.testing.assert_close(masked, sliced)


def test_each_token_runs_its_own_expert(routed):
    ids, choice = tokens(1, 12), torch.zeros(1, 12, dtype=torch.int64)
    zero = routed(ids, choice=choice)
    choice[0, 8:] = 4
    mixed = routed(ids, choice=choice)
    torch.testing.assert_close(mixed[:, :8], zero[:, :8])
    assert not torch.allclose(mixed[:, 8:], zero[:, 8:])


def test_the_router_decides_unless_overruled(routed, router):
    ids = tokens(2, 12)
    assert torch.equal(routed(ids), routed(ids, choice=router(ids).argmax(dim=-1)))


def test_tracing_leaves_outputs_bit_identical_and_no_hook_behind(routed, router):
    ids = tokens(2, 20)
    for routed.apply_experts in (True, False):
        before = routed(ids)
        with RoutingTracer([router], top=3) as tracer:
            tracer.expect([0, 1], torch.ones(2, 20, dtype=torch.bool))
            assert torch.equal(routed(ids), before)
        routed(ids)
        experts, weights = tracer.of(1)
        assert experts.shape == weights.shape == (20, 1, 3)
        expected = router(ids)[1].softmax(dim=-1).topk(3, dim=-1)
        assert experts[:, 0].tolist() == expected.indices.tolist()
        assert weights[:, 0].tolist() == expected.values.half().tolist()


def test_tracing_records_a_gate_per_layer():
    gates = [torch.nn.Linear(4, 6), torch.nn.Linear(4, 6)]
    x = torch.randn(2, 3, 4)
    with RoutingTracer(gates, top=2) as tracer:
        tracer.expect([5, 7], torch.tensor([[False, True, True], [True, True, True]]))
        flat = [gate(x.flatten(0, 1)) for gate in gates]  # gates of MoE blocks see flattened tokens
    experts, _ = tracer.of(5)
    assert experts.shape == (2, 2, 2)
    for layer in range(2):
        assert experts[:, layer].tolist() == flat[layer].view(2, 3, 6)[0, 1:].topk(2, dim=-1).indices.tolist()
    assert tracer.of(7)[0].shape == (3, 2, 2) and tracer.of(6)[0].shape == (0, 2, 2)


def test_a_pass_that_nobody_expects_is_refused(router):
    with RoutingTracer([router], top=1), pytest.raises(RuntimeError, match="expect"):
        router(tokens(1, 3))


def continue_all(model, router, prompts, outputs, seed=0):
    sampler = Sampler(1.0, (0, 1), torch.Generator().manual_seed(seed))
    with RoutingTracer([router], top=2) as tracer:
        texts = generate(model, prompts, outputs, sampler, tracer)
    return texts, [tracer.of(row)[0] for row in range(len(prompts))]


def test_generation_routes_every_prompt_and_output_token_once(routed, router):
    prompts = [tokens(size, seed=size) for size in (9, 4, 13, 4)]
    outputs = [5, 1, 12, 7]
    for routed.apply_experts in (False, True):
        texts, chosen = continue_all(routed, router, prompts, outputs)
        assert [len(text) for text in texts] == outputs
        for prompt, text, choice in zip(prompts, texts, chosen, strict=True):
            assert not set(text.tolist()) & {0, 1}
            whole = torch.cat([prompt, torch.from_numpy(text).long()])
            # The router is causal, so its choices while decoding are those of one pass over the finished text.
            assert choice[:, 0, 0].tolist() == router(whole[None])[0].argmax(dim=-1).tolist()


def test_generation_repeats_with_its_seed(routed, router):
    prompts = [tokens(6, seed=1), tokens(8, seed=2)]
    one, two, other = (continue_all(routed, router, prompts, [20, 9], seed)[0] for seed in (3, 3, 4))
    assert [t.tolist() for t in one] == [t.tolist() for t in two] != [t.tolist() for t in other]


def test_decoding_in_steps_is_the_whole_pass(routed):
    routed.apply_experts = True
    prompts = [tokens(7, seed=1), tokens(10, seed=2)]
    ids, valid = left_padded(prompts)
    state = DecodeState.new()
    routed(ids[:, :8], valid[:, :8], state)
    last = routed(ids[:, 8:], valid[:, 8:], state)
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(last[row, -1], routed(prompt[None])[0, -1], rtol=1e-3, atol=1e-4)
