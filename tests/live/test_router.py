from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from transformers.cache_utils import DynamicLayer  # noqa: E402

from moesim.live.router import PreGatingRouter, RouterConfig, new_router, rotate  # noqa: E402


def tokens(*shape: int, seed: int = 0):
    return torch.randint(0, 64, shape, generator=torch.Generator().manual_seed(seed))


def test_a_later_token_never_changes_an_earlier_choice(router):
    ids = tokens(1, 30)
    whole = router(ids)
    for at in range(1, 30):
        changed = ids.clone()
        changed[0, at:] = (ids[0, at:] + 7) % 64
        logits = router(changed)
        torch.testing.assert_close(logits[:, :at], whole[:, :at], rtol=0, atol=1e-5)
        assert not torch.allclose(logits[:, at], whole[:, at])


def test_it_remembers_what_came_before(router):
    one, two = tokens(1, 10), tokens(1, 10)
    two[0, 0] = (two[0, 0] + 1) % 64
    assert not torch.allclose(router(one)[0, -1], router(two)[0, -1])


def places(start: int, end: int, rows: int):
    return torch.arange(start, end).expand(rows, -1)


def test_decoding_with_a_cache_gives_the_same_choices(router):
    ids, cache = tokens(3, 20), DynamicLayer()
    parts = [router(ids[:, :12], cache=cache)]
    parts += [router(ids[:, at : at + 1], cache=cache, position=places(at, at + 1, 3)) for at in range(12, 20)]
    torch.testing.assert_close(torch.cat(parts, dim=1), router(ids))


def test_padding_on_the_left_does_not_count(router):
    ids = tokens(1, 9)
    padded = torch.cat([tokens(1, 4, seed=9), ids], dim=1)
    valid = torch.tensor([[False] * 4 + [True] * 9])
    logits = router(padded, valid)
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[:, 4:], router(ids))


def test_selected_rows_go_on_alone(router):
    ids, cache = tokens(3, 8), DynamicLayer()
    router(ids[:, :7], cache=cache)
    cache.batch_select_indices(torch.tensor([2, 0]))
    last = router(ids[[2, 0], 7:], cache=cache, position=places(7, 8, 2))
    torch.testing.assert_close(last, router(ids)[[2, 0], 7:])


def test_rotation_depends_on_differences_only():
    q, k = torch.randn(1, 1, 1, 8), torch.randn(1, 1, 1, 8)

    def score(at: int, back: int) -> float:
        return (rotate(q, torch.tensor([[at]]), 1e4) * rotate(k, torch.tensor([[at - back]]), 1e4)).sum().item()

    assert score(5, 2) == pytest.approx(score(900, 2), abs=1e-4)
    assert score(5, 2) != pytest.approx(score(5, 3), abs=1e-4)
    assert rotate(q, torch.tensor([[7]]), 1e4).norm().item() == pytest.approx(q.norm().item())


def test_the_embedding_starts_from_the_model():
    embedding = torch.randn(64, 20)
    router = new_router(RouterConfig(64, 3, width=16, heads=2, mlp=8), embedding, seed=3)
    assert torch.equal(router.embedding.weight, embedding[:, :16])
    wider = new_router(RouterConfig(64, 3, width=32, heads=2, mlp=8), embedding, seed=3)
    assert torch.equal(wider.embedding.weight[:, :20], embedding)


def test_the_size_of_read_me():
    router = PreGatingRouter(RouterConfig(vocabulary=32000, experts=7))
    count = sum(values.numel() for values in router.parameters())
    assert count == pytest.approx(18.0e6, rel=0.02)  # Table 1: 18.0M
