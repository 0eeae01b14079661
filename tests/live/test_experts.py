from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.live.experts import (  # noqa: E402
    ExpertSet,
    build_experts,
    channel_strength,
    strongest,
    watch_channels,
)


def test_masks_are_exactly_the_strongest_half():
    strengths = torch.rand(7, 4, 30, generator=torch.Generator().manual_seed(0))
    masks = build_experts(strengths, 0.5).masks
    assert (masks.sum(dim=-1) == 15).all()
    inside = torch.where(masks, strengths, torch.inf).amin(dim=-1)
    outside = torch.where(masks, -torch.inf, strengths).amax(dim=-1)
    assert (inside > outside).all()


def test_ties_keep_the_width_and_the_first_channels():
    assert strongest(torch.ones(2, 6), 0.5).tolist() == [[True] * 3 + [False] * 3] * 2
    assert strongest(torch.zeros(1, 8), 0.25).sum() == 2


def test_permanent_channels_are_those_of_all_masks_and_stay_in_each():
    masks = torch.tensor([[[1, 1, 0, 0]], [[1, 0, 1, 0]], [[1, 0, 0, 1]]], dtype=torch.bool)
    experts = ExpertSet(masks)
    assert experts.permanent.tolist() == [[True, False, False, False]]
    assert [experts.channels(expert, 0).tolist() for expert in range(3)] == [[0, 1], [0, 2], [0, 3]]
    assert experts.width == 2
    assert experts.key_bytes(d_model=10) == 3 * 2 * 10 * 2


def test_strength_is_the_mean_magnitude_of_the_down_projection_input(dense):
    texts = [torch.arange(2, 12), torch.arange(20, 25)]
    strength = channel_strength(dense.model, texts)
    mlp, kept = dense.model.model.layers[1].mlp, []

    def keep(module, args):
        kept.append(args[0][0])

    handle = mlp.register_forward_pre_hook(keep)
    with torch.no_grad():
        for ids in texts:
            dense.model(ids[None])
    handle.remove()
    x = torch.cat(kept)
    by_hand = (mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)).abs().mean(dim=0)
    assert strength.shape == (3, 24)
    torch.testing.assert_close(strength[1].float(), by_hand)


def test_watching_leaves_the_output_bit_for_bit_and_no_hook_behind(dense):
    ids = torch.arange(2, 40)[None]
    before = dense.model(ids).logits
    seen = []
    with watch_channels(dense.model, lambda layer, h: seen.append((layer, tuple(h.shape)))):
        during = dense.model(ids).logits
    assert torch.equal(before, during)
    assert seen == [(layer, (1, 38, 24)) for layer in range(3)]
    dense.model(ids)
    assert len(seen) == 3
