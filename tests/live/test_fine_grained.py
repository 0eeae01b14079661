from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.live.deltas import LayerDeltas  # noqa: E402
from moesim.live.fine_grained import (  # noqa: E402
    SHARED,
    FineGrainedBlock,
    Gate,
    Partition,
    TuningFFN,
    balanced_assignment,
    balanced_clusters,
    energy_shares,
    part_layer,
    widths,
)
from moesim.live.fine_grained_job import captured, fit_gate  # noqa: E402


@pytest.mark.parametrize(
    ("channels", "experts", "shared", "expected"),
    [(1536, 8, 1 / 3, (512, 128)), (11008, 8, 1 / 3, (3672, 917)), (24, 4, 0.0, (0, 6)), (25, 4, 0.3, (9, 4))],
)
def test_widths_leave_nothing_over(channels, experts, shared, expected):
    found = widths(channels, experts, shared)
    assert found == expected and found[0] + experts * found[1] == channels


def planted(groups: int = 4, size: int = 6, tokens: int = 400, seed: int = 0):
    """(inputs [tokens, groups + 3], contributions [tokens, groups * size], group of each column)."""
    random = np.random.default_rng(seed)
    active = random.integers(0, groups, tokens)
    inputs = np.eye(groups + 3)[active] + 0.1 * random.normal(size=(tokens, groups + 3))
    group = random.permutation(np.repeat(np.arange(groups), size))
    contribution = 0.2 * random.random((tokens, groups * size)) + (active[:, None] == group) * (
        1 + random.random((tokens, groups * size))
    )
    return inputs.astype(np.float32), contribution.astype(np.float32), group


def test_planted_clusters_are_found_and_the_gate_names_them():
    inputs, contribution, group = planted()
    members = balanced_clusters(contribution, 4, seed=3)
    assert sorted(np.bincount(members).tolist()) == [6] * 4
    pairs = {(int(g), int(m)) for g, m in zip(group, members, strict=True)}
    assert len(pairs) == 4  # one cluster for each group
    shares = energy_shares(contribution, members, 4)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    gate = fit_gate(torch.from_numpy(inputs), torch.from_numpy(shares), 150, 0)
    chosen = (torch.from_numpy(inputs) @ gate.T).argmax(dim=1).numpy()
    assert (chosen == shares.argmax(axis=1)).mean() > 0.99
    mine, best, chance = captured(torch.from_numpy(inputs), gate, shares, 1)
    assert best >= mine > 0.98 * best > 2 * chance == 0.5


def test_the_strongest_channels_are_shared_and_the_rest_is_parted_evenly():
    contribution = planted()[1]
    strong = np.concatenate([contribution, 9 + np.random.default_rng(0).random((400, 8))], axis=1)
    owner = part_layer(strong, 4, 0.25, seed=1)
    assert (owner[24:] == SHARED).all() and (owner[:24] != SHARED).all()
    assert np.bincount(owner[:24]).tolist() == [6] * 4


def test_assignment_is_balanced_and_nearly_the_best():
    scipy = pytest.importorskip("scipy.optimize")
    value = np.random.default_rng(0).normal(size=(120, 6))
    found = balanced_assignment(value, 20)
    assert np.bincount(found).tolist() == [20] * 6
    rows, columns = scipy.linear_sum_assignment(-np.repeat(value, 20, axis=1))
    best = value[rows, columns // 20].sum()
    assert value[np.arange(120), found].sum() > 0.97 * best
    assert np.bincount(balanced_assignment(np.ones((6, 3)), 2)).tolist() == [2, 2, 2]


@pytest.fixture
def parted(dense):
    owner = np.array([SHARED] * 8 + [0, 1, 2, 3] * 4, np.int16)
    return dense.model.model.layers[1].mlp, Partition(np.stack([owner] * 3))


def gate_of(k: int, scale: float = 0.0) -> Gate:
    random = torch.Generator().manual_seed(1)
    return Gate(torch.randn(4, 16, generator=random), torch.full((4,), scale), k)


@torch.no_grad()
def test_all_experts_together_are_the_dense_ffn(parted):
    mlp, partition = parted
    x = torch.randn(2, 5, 16)
    torch.testing.assert_close(FineGrainedBlock(mlp, partition, 1, gate_of(4))(x), mlp(x))
    assert (partition.experts, partition.width, partition.shared_width) == (4, 4, 8)
    assert partition.key_bytes(16) == 3 * 4 * 16 * 2


@torch.no_grad()
def test_a_token_runs_the_shared_and_its_k_experts_weighted(parted):
    mlp, partition = parted
    block, x = FineGrainedBlock(mlp, partition, 1, gate_of(2, 0.7)), torch.randn(1, 7, 16)
    logits, weights, chosen = block.gate(x[0])
    assert logits.shape == (7, 4) and weights.shape == chosen.shape == (7, 2)
    p = logits.softmax(dim=-1).gather(1, chosen)
    torch.testing.assert_close(weights, 1 + 0.7 * p)
    inner = mlp.act_fn(mlp.gate_proj(x[0])) * mlp.up_proj(x[0])
    for token in range(7):
        kept = torch.from_numpy((partition.owner[1] == SHARED).astype(np.float32))
        for weight, expert in zip(weights[token], chosen[token].tolist(), strict=True):
            kept = kept + weight * torch.from_numpy((partition.owner[1] == expert).astype(np.float32))
        torch.testing.assert_close(block(x)[0, token], mlp.down_proj(inner[token] * kept))


def test_the_form_that_is_tuned_is_the_block_with_merged_deltas(parted):
    mlp, partition = parted
    deltas = LayerDeltas(16, 24, 2, torch.Generator().manual_seed(0))
    for part in deltas.values():
        torch.nn.init.normal_(part.up, std=0.2)
    tuning, x = TuningFFN(mlp, partition, 1, gate_of(2, 0.3), deltas), torch.randn(2, 5, 16)
    found = tuning(x)
    found.square().sum().backward()
    assert tuning.gate.weight.grad.any() and tuning.gate.scale.grad.any() and deltas["down_proj"].down.grad.any()
    assert mlp.gate_proj.weight.grad is None  # frozen
    with torch.no_grad():
        for name, part in deltas.items():
            getattr(mlp, name).weight += part.up @ part.down
        torch.testing.assert_close(FineGrainedBlock(mlp, partition, 1, gate_of(2, 0.3))(x), found)
