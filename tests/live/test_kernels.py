"""The pieces of a layer do what a plain model does."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from moesim.errors import InputError  # noqa: E402
from moesim.hardware.shape import ModelShape, load_shape  # noqa: E402
from moesim.live.kernels import Batch, KVCache, Pieces, Prompt, Router, ffn  # noqa: E402
from moesim.live.weights import ExpertForm, RandomWeights, attention_form, dtype_of  # noqa: E402

CPU = torch.device("cpu")


def shape(**changes) -> ModelShape:
    sizes = dict(
        name="tiny", layers=2, d_model=16, expert_width=8, experts=4, top_k=2, heads=4, kv_heads=2, head_dim=4,
        vocab=32, dense_bits=32, expert_bits=32, kv_bits=32,
    )  # fmt: skip
    return ModelShape(**(sizes | changes))


def forward(pieces: Pieces, weights, cache: KVCache, batch: Batch, hidden):
    queries, keys, values = pieces.project(weights, hidden, batch)
    cache.write(0, batch, keys, values)
    return pieces.output(weights, pieces.attend(batch, queries, cache, 0), hidden)


@pytest.mark.parametrize("changes", [{}, {"kv_heads": 4}, {"shared_expert_width": 6}, {"kv_values": 6}])
def test_chunks_and_decodes_of_two_requests_are_the_whole_sequences(changes) -> None:
    model = shape(**changes)
    random = RandomWeights(model, CPU)
    weights, pieces = random.layer(gate=False), Pieces(model, 16, torch.float32, CPU)
    one, two = torch.randn(7, 16), torch.randn(5, 16)
    empty = lambda slots: KVCache(model, 1, slots, 16, torch.float32, CPU)  # noqa: E731
    whole = [forward(pieces, weights, empty(1), Batch([Prompt(0, len(x), 0, 0)], [], CPU), x) for x in (one, two)]
    cache = empty(3)
    steps = [
        (Batch([Prompt(0, 4, 2, 0), Prompt(4, 3, 0, 0)], [], CPU), torch.cat([one[:4], two[:3]])),
        (Batch([Prompt(0, 2, 2, 4)], [(0, 3)], CPU), torch.cat([one[4:6], two[3:4]])),
        (Batch([], [(2, 6), (0, 4)], CPU), torch.cat([one[6:], two[4:]])),
    ]
    got = [forward(pieces, weights, cache, batch, hidden) for batch, hidden in steps]
    for number in (0, 1):  # hidden and normed
        a, b, c = (step[number] for step in got)
        torch.testing.assert_close(torch.cat([a[:4], b[:2], c[:1]]), whole[0][number])
        torch.testing.assert_close(torch.cat([a[4:], b[2:], c[1:]]), whole[1][number])


@pytest.mark.parametrize("changes", [{}, {"kv_values": 6}])
def test_padded_decodes_are_those_one_by_one(changes) -> None:
    model = shape(**changes)
    form, pieces = attention_form(model), Pieces(model, 16, torch.float32, CPU)
    cache = KVCache(model, 1, 3, 16, torch.float32, CPU)
    for tensor in {id(t): t for t in (cache.keys[0], cache.values[0])}.values():
        tensor.normal_()
    batch = Batch([], [(2, 9), (0, 3), (1, 0)], CPU)
    queries = torch.randn(3, form.heads, form.kv_dim)
    alone = pieces.attend(batch, queries, cache, 0)
    behind = torch.arange(batch.longest)[None] > batch.places[:, None]
    batch.padding = torch.zeros(behind.shape).masked_fill_(behind, -torch.inf)
    torch.testing.assert_close(pieces.attend(batch, queries, cache, 0), alone)


@pytest.mark.parametrize("matrices", [3, 2])
def test_looped_and_grouped_experts_are_a_plain_sum(matrices) -> None:
    model = shape(expert_matrices=matrices)
    pool, pieces = RandomWeights(model, CPU).experts(4), Pieces(model, 4, torch.float32, CPU)
    assert pool.element_size() * pool.shape[1] == model.key_bytes
    normed = torch.randn(5, 16)
    chosen, shares = torch.tensor([[0, 2], [2, 3], [0, 3], [2, 0], [3, 2]]), torch.rand(5, 2)
    form, expected = ExpertForm.of(model), torch.zeros(5, 16)
    for token in range(5):
        for slot in range(2):
            out = ffn(normed[token : token + 1], *form.views(pool[chosen[token, slot]]))
            expected[token] += out[0] * shares[token, slot]
    groups = [(chosen == expert).nonzero(as_tuple=True) for expert in (0, 2, 3)]
    looped, grouped = torch.zeros(5, 16), torch.zeros(5, 16)
    rows, parts = [row for row, _ in groups], [shares[row, slot] for row, slot in groups]
    pieces.looped(normed, [pool[0], pool[2], pool[3]], rows, parts, looped)
    torch.testing.assert_close(looped, expected)
    ends = torch.tensor([3, 3, 7, 10], dtype=torch.int32)  # expert 1 has none
    pieces.grouped(normed, pool, ends, torch.cat(rows), torch.cat(parts), grouped)
    torch.testing.assert_close(grouped, expected)


def test_the_gate_names_the_best_and_shares_add_up() -> None:
    pieces = Pieces(shape(), 4, torch.float32, CPU)
    chosen, shares = pieces.gate(torch.eye(4, 16), torch.tensor([[0.0, 3.0, 1.0, 2.0, *[0.0] * 12]]))
    assert chosen.tolist() == [[1, 3]]
    assert shares.sum().item() == pytest.approx(1)


def test_a_router_in_pieces_routes_as_one_in_a_prompt() -> None:
    router = Router(shape(), 2, 8, CPU)
    ids = torch.tensor([3, 1, 4, 1, 5])
    whole, _ = router.route(ids, Batch([Prompt(0, 5, 0, 0)], [], CPU))
    first, _ = router.route(ids[:4], Batch([Prompt(0, 4, 1, 0)], [], CPU))
    last, _ = router.route(ids[4:], Batch([], [(1, 4)], CPU))
    assert torch.cat([first, last]).tolist() == whole.tolist()


def test_weights_are_the_bytes_of_the_shape() -> None:
    model = load_shape("smollm2-135m-readme").model_copy(update={"vocab": 64})
    random = RandomWeights(model, CPU)
    layer, step = random.layer(gate=False), random.step()
    attention = layer.inward.nbytes + layer.outward.nbytes
    assert attention == 2 * model.attention_weights
    assert random.experts(1).nbytes == model.key_bytes
    assert step.head is step.embedding


def test_what_no_product_takes_is_refused_whole() -> None:
    with pytest.raises(InputError) as error:
        dtype_of(shape(expert_bits=4.25, kv_bits=8, expert_matrices=4))
    assert [p.place for p in error.value.problems] == ["tiny: expert_bits", "tiny: kv_bits", "tiny: expert_matrices"]
