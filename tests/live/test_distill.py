from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.live.distill import (  # noqa: E402
    Example,
    OverlapMeter,
    PublishedMeter,
    active_channels,
    batch_loss,
    domain_weights,
    soft_labels,
)
from moesim.live.experts import ExpertSet, watch_channels  # noqa: E402
from moesim.live.fit import Phase, fit  # noqa: E402
from moesim.live.router import RouterConfig, new_router  # noqa: E402
from moesim.live.stages import Stages  # noqa: E402


def test_labels_match_a_hand_computed_overlap():
    # Two layers of four channels; expert 0 has channels 0, 1 in both, expert 1 has 2, 3, expert 2 has 0, 3.
    layer = [[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 1]]
    masks = torch.tensor(layer, dtype=torch.bool)[:, None].expand(3, 2, 4)
    meter = OverlapMeter(ExpertSet(masks))
    meter.watch(0, torch.tensor([[[5.0, -4.0, 1.0, 0.5]]]))  # strongest: 0, 1 -> overlaps 2, 0, 1
    meter.watch(1, torch.tensor([[[0.0, 0.1, -9.0, 3.0]]]))  # strongest: 2, 3 -> overlaps 0, 2, 1
    overlaps = meter.read()
    assert overlaps.tolist() == [[[1.0, 1.0, 1.0]]]
    meter.watch(0, torch.tensor([[[5.0, -4.0, 1.0, 0.5]]]))
    meter.watch(1, torch.tensor([[[3.0, 2.0, -1.0, 0.0]]]))
    overlaps = meter.read()
    assert overlaps.tolist() == [[[2.0, 0.0, 1.0]]]
    assert soft_labels(overlaps)[0, 0].tolist() == pytest.approx([0.66524, 0.09003, 0.24473], abs=1e-5)


def test_reading_twice_is_refused():
    meter = OverlapMeter(ExpertSet(torch.ones(1, 1, 2, dtype=torch.bool)))
    with pytest.raises(RuntimeError, match="no forward pass"):
        meter.read()


def test_strongest_channels_of_a_token_are_by_magnitude():
    active = active_channels(torch.tensor([[3.0, -4.0, 0.0, 1.0, -2.0]]), 0.4)
    assert active.tolist() == [[True, True, False, False, False]]


def test_the_meter_agrees_with_a_direct_count(dense, experts):
    ids = torch.arange(3, 20)[None]
    kept = []
    meter = OverlapMeter(experts)
    with watch_channels(dense.model, meter.watch), watch_channels(dense.model, lambda layer, h: kept.append(h)):
        dense.model(ids)
    direct = torch.zeros(17, 5)
    for layer, h in enumerate(kept):
        for token in range(17):
            top = h[0, token].abs().topk(12).indices
            direct[token] += experts.masks[:, layer, top].sum(dim=1) / 3
    torch.testing.assert_close(meter.read()[0], direct)


def test_every_domain_weighs_the_same():
    def example(domain: int, tokens: int) -> Example:
        return Example(torch.zeros(tokens, dtype=torch.int64), torch.zeros(tokens, 2), domain)

    examples = [example(0, 30), example(1, 5), example(1, 5)]
    weights = domain_weights(examples)
    assert (weights[0] * 30).item() == pytest.approx((weights[1] * 10).item())


def test_padding_does_not_enter_the_loss(router):
    def example(seed: int, tokens: int) -> Example:
        random = torch.Generator().manual_seed(seed)
        return Example(
            torch.randint(0, 64, (tokens,), generator=random),
            soft_labels(3 * torch.rand(tokens, 5, generator=random)),
            0,
        )

    weights = torch.ones(1)
    one, two = example(0, 12), example(1, 4)
    together = batch_loss(router, [one, two], weights)
    apart = (12 * batch_loss(router, [one], weights) + 4 * batch_loss(router, [two], weights)) / 16
    torch.testing.assert_close(together, apart)


def test_training_learns_a_rule_and_repeats_exactly(tmp_path):
    # The expert is the parity of the token: a rule that the embedding alone can hold.
    random = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, 16, (24,), generator=random) for _ in range(12)]
    labels = [soft_labels(torch.stack([8.0 * (ids % 2 == 0), 8.0 * (ids % 2 == 1)], dim=1)) for ids in texts]
    examples = [Example(ids, target, 0) for ids, target in zip(texts, labels, strict=True)]

    def learn(name: str):
        router = new_router(
            RouterConfig(16, 2, width=16, heads=2, mlp=8), torch.randn(16, 16, generator=random.manual_seed(5)), 1
        )

        def loss_of(step: int):
            return batch_loss(router, examples[step % 3 :: 3], torch.ones(1))

        stages = Stages(tmp_path / name, {}, quiet=True)
        return router, fit(Phase("router", 36, 1e-2), dict(router.named_parameters()), loss_of, stages)

    router, history = learn("one")
    assert history[-1] < history[0] / 5
    hits = torch.cat([router(ids[None])[0].argmax(dim=-1) == ids % 2 for ids in texts])
    assert hits.float().mean() > 0.97
    assert learn("two")[1] == history


def test_the_published_target_by_hand():
    # Width 5 of 10: ends at ranks 4, 4, 3, 2, 1: the strongest channel counts 5, then 4, 3, 2, and 0 from the fifth on.
    masks = torch.zeros(2, 1, 10, dtype=torch.bool)
    masks[0, 0, :5] = masks[1, 0, 5:] = True
    meter = PublishedMeter(ExpertSet(masks))
    meter.watch(0, torch.tensor([[[9.0, 8.0, 0.0, 0.0, 0.0, 7.0, -20.0, 6.0, 0.0, 0.0]]]))
    share = torch.tensor([9.0, 5.0]) / 15 * 10
    expected = 0.75 * torch.tensor([0.75, 0.25]) + 0.25 * share.softmax(dim=-1)
    torch.testing.assert_close(meter.read()[0, 0], expected)
