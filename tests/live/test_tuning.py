from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.live.deltas import LowRank, reach_of  # noqa: E402
from moesim.live.head_loss import CHUNK, head_loss  # noqa: E402
from moesim.live.tuning import LanguageLoss, order, padded  # noqa: E402


def test_a_new_delta_changes_nothing_and_experts_reach_their_own_ranks():
    reach = reach_of(3, 2, 1)
    assert reach.tolist() == [[1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 1, 1, 0, 0], [1, 0, 0, 0, 0, 1, 1]]
    delta = LowRank(4, 5, 7)
    x, choice = torch.randn(6, 4), torch.tensor([0, 0, 2, 2, 2, 0])
    assert not delta(x, reach[choice]).any()
    torch.nn.init.normal_(delta.up)
    delta(x, reach[choice]).sum().backward()
    touched = delta.down.grad.abs().sum(dim=1) > 0
    assert touched.tolist() == [True, True, True, False, False, True, True]
    by_hand = sum(delta.up[:, r : r + 1] @ delta.down[r : r + 1] @ x[0] for r in (0, 1, 2))
    torch.testing.assert_close(delta(x, reach[choice])[0], by_hand)


@pytest.mark.parametrize("tokens", [3, CHUNK + 5])
def test_the_loss_in_chunks_is_cross_entropy(tokens):
    random = torch.Generator().manual_seed(0)
    weight, target = torch.randn(50, 8, generator=random), torch.randint(0, 50, (tokens,), generator=random)
    one, two = (torch.randn(tokens, 8, generator=random.manual_seed(1)).requires_grad_(True) for _ in range(2))
    mine = head_loss(one, weight, target)
    usual = torch.nn.functional.cross_entropy(two @ weight.T, target)
    torch.testing.assert_close(mine, usual)
    (3 * mine).backward()
    (3 * usual).backward()
    torch.testing.assert_close(one.grad, two.grad)


def test_the_language_loss_is_the_models_and_padding_does_not_enter(dense):
    texts = [torch.arange(3, 20), torch.arange(30, 37)]
    loss = LanguageLoss(dense.model, "float32")
    apart = [loss(*padded([text], dense.model.device)) for text in texts]
    torch.testing.assert_close(apart[0], dense.model(texts[0][None], labels=texts[0][None]).loss)
    together = loss(*padded(texts, dense.model.device))
    torch.testing.assert_close(together, (16 * apart[0] + 6 * apart[1]) / 22)


def test_each_pass_sees_every_text_once():
    seen = [order(10, 3, step, (0, 1)) for step in range(6)]
    assert all(len(batch) == 3 for batch in seen)
    one, two = ([index for batch in part for index in batch] for part in (seen[:3], seen[3:]))
    assert len(set(one)) == len(set(two)) == 9 and one != two
    assert order(10, 3, 4, (0, 1)) == seen[4]
    assert sorted(order(2, 5, 0, (0, 1))) == [0, 1]
