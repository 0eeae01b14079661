from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.live.domains import DomainModel, expert_weights  # noqa: E402


def tokens(*shape: int, seed: int = 0):
    return torch.randint(2, 64, shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def routed(dense, router, experts):
    return DomainModel(dense.model, router, experts)


def test_without_a_choice_it_is_the_dense_model(dense, router, experts):
    ids = tokens(2, 15)
    before = dense.model(ids).logits
    routed = DomainModel(dense.model, router, experts)
    assert torch.equal(routed.dense(ids).logits, before)
    routed(ids)
    assert routed.switch.choice is None and torch.equal(routed.dense(ids).logits, before)


def test_an_expert_runs_its_slices_only(routed, experts):
    x = torch.randn(6, 16)
    ffn = routed.ffns[1]
    gate, up, down = expert_weights(routed.dense, experts, 3, 1)
    assert gate.shape == up.shape == (12, 16) and down.shape == (16, 12)
    sliced = (ffn.dense.act_fn(x @ gate.T) * (x @ up.T)) @ down.T
    with routed.routed(torch.full((1, 6), 3)):
        torch.testing.assert_close(ffn(x[None])[0], sliced)


def test_each_token_runs_its_own_expert(routed):
    ids, choice = tokens(1, 12), torch.zeros(1, 12, dtype=torch.int64)
    zero = routed(ids, choice=choice).logits
    choice[0, 8:] = 4
    mixed = routed(ids, choice=choice).logits
    torch.testing.assert_close(mixed[:, :8], zero[:, :8])
    assert not torch.allclose(mixed[:, 8:], zero[:, 8:])


def test_the_router_decides_unless_overruled(routed, router):
    ids = tokens(2, 12)
    chosen = router(ids).argmax(dim=-1)
    assert len(chosen.unique()) > 1
    assert torch.equal(routed(ids).logits, routed(ids, choice=chosen).logits)


def test_hooks_on_the_router_leave_outputs_bit_for_bit(routed, router):
    ids, seen = tokens(2, 20), []
    before = routed(ids).logits
    handle = router.register_forward_hook(lambda module, args, out: seen.append(out))
    assert torch.equal(routed(ids).logits, before) and seen[0].shape == (2, 20, 5)
    handle.remove()


def left_padded(prompts):
    longest = max(map(len, prompts))
    ids = torch.stack([torch.cat([torch.zeros(longest - len(p), dtype=torch.int64), p]) for p in prompts])
    mask = torch.stack([(torch.arange(longest) >= longest - len(p)).long() for p in prompts])
    return ids, mask


def test_decoding_in_steps_with_padding_is_the_whole_pass(routed):
    prompts = [tokens(7, seed=1), tokens(10, seed=2)]
    ids, mask = left_padded(prompts)
    first = routed(ids[:, :8], attention_mask=mask[:, :8], use_cache=True)
    last = routed(ids[:, 8:], attention_mask=mask, past_key_values=first.past_key_values, logits_to_keep=1)
    assert last.logits.shape[1] == 1
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(last.logits[row, -1], routed(prompt[None]).logits[0, -1], rtol=1e-3, atol=1e-4)


def test_rows_of_the_cache_go_on_alone_router_and_all(routed):
    ids = tokens(3, 9)
    cache = routed(ids[:, :8], use_cache=True).past_key_values
    assert len(cache.layers) == 3 + 1  # the router's keys and values are the last layer
    cache.batch_select_indices(torch.tensor([2, 0]))
    found = routed(ids[[2, 0], 8:], past_key_values=cache).logits
    torch.testing.assert_close(found, routed(ids[[2, 0]]).logits[:, 8:], rtol=1e-3, atol=1e-4)


def test_a_cache_made_from_the_configuration_serves_too(routed):
    from transformers import DynamicCache

    ids, cache = tokens(1, 9), DynamicCache(config=routed.config)
    routed(ids[:, :5], past_key_values=cache)
    found = routed(ids[:, 5:], past_key_values=cache).logits
    torch.testing.assert_close(found, routed(ids).logits[:, 5:], rtol=1e-3, atol=1e-4)
