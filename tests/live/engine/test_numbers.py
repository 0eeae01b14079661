"""What a live engine computes, in batches, chunks and slots, is what the model computes for each request alone."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

import numpy as np  # noqa: E402

from moesim.live.engine.machine import Options  # noqa: E402
from moesim.live.engine.model import LiveModel, spans  # noqa: E402
from moesim.live.kernels import Batch, KVCache, Pieces, Prompt, ffn  # noqa: E402
from moesim.sim.workload import Request  # noqa: E402
from tests.live.engine.small import both, inputs_of, weights  # noqa: E402

LAYERS, EXPERTS, CPU = 3, 4, torch.device("cpu")


def sequences(router: str, k: int) -> list[Any]:
    random = np.random.default_rng(3)

    def tokens(count: int) -> list[Any]:
        rows = 1 if router == "decoupled" else LAYERS
        chosen = [[random.permutation(EXPERTS)[:k].tolist() for _ in range(rows)] for _ in range(count)]
        return [c[0] if rows == 1 else c for c in chosen]

    return [(tokens(prompt), tokens(output)) for prompt, output in ((5, 4), (1, 6), (9, 3), (3, 5))]


def alone(inputs: Any, request: Request, ids: list[int]) -> list[int]:
    """The likeliest token after each position of a request, by a plain pass over all of it."""
    model, full = inputs.shape, weights(LAYERS, EXPERTS, inputs.trace.meta.router)
    pieces, count = Pieces(model, len(ids), torch.float32, CPU), len(ids)
    batch = Batch([Prompt(0, count, 0, 0)], [], CPU)
    hidden = full.step.embedding[torch.tensor(ids)]
    first = int(inputs.trace.offsets[request.sequence])
    for layer, of_layer in enumerate(full.layers):
        queries, keys, values = pieces.project(of_layer, hidden, batch)
        cache = KVCache(model, 1, 1, count, torch.float32, CPU)
        cache.write(0, batch, keys, values)
        hidden, normed = pieces.output(of_layer, pieces.attend(batch, queries, cache, 0), hidden)
        for row in range(count):
            decision = layer if inputs.trace.experts.shape[1] > 1 else 0
            chosen = inputs.trace.experts[first + row, decision].tolist()
            shares = inputs.trace.weights[first + row, decision].astype(np.float32)
            for expert, share in zip(chosen, shares / shares.sum(), strict=True):
                buffer = full.experts.rows[layer * EXPERTS + expert]
                hidden[row] += float(share) * ffn(normed[row], *pieces.expert.views(buffer))
    return pieces.sample(full.step, hidden).tolist()


@pytest.mark.parametrize("router", ["decoupled", "layerwise"])
@pytest.mark.parametrize(
    ("k", "start", "grouped"), [(1, "eager", False), (2, "index", False), (2, "barrier", True), (2, "eager", 2)]
)
def test_every_token_is_that_of_the_request_alone(
    monkeypatch: pytest.MonkeyPatch, router: str, k: int, start: str, grouped: int
) -> None:
    if grouped > 1:  # slots of one product
        monkeypatch.setattr("moesim.live.engine.model.MOST_GROUPS", grouped)
    said: dict[int, list[int]] = {}
    of: dict[int, tuple[Request, list[int]]] = {}
    right = LiveModel._read_tokens

    def read(self: LiveModel) -> None:
        for request, token in zip(self.yielding, self.sampled.tolist() if self.yielding else (), strict=True):
            said.setdefault(request.number, []).append(token)
            of[request.number] = request, self.tokens.of(request)
        right(self)

    monkeypatch.setattr(LiveModel, "_read_tokens", read)
    made = sequences(router, k)
    size = sum(len(p) + len(o) for p, o in made), 1 if router == "decoupled" else LAYERS, k
    shares = np.random.default_rng(5).uniform(0.1, 1, size)
    inputs = inputs_of(made, layers=LAYERS, experts=EXPERTS, router=router, k=k, weights=shares)
    _, executed = both(
        inputs,
        options=Options(grouped=bool(grouped)),
        schedule="frozen",
        traffic={"kind": "all", "requests": 4},
        scheduler={"batch": "chunked-prefill", "max_requests": 3, "max_tokens": 5},
        memory={"slots": 3, "kv": {"blocks": 9, "block_tokens": 2} if start == "index" else None},
        prefetch="next-layer" if router == "decoupled" else "none",
        machine={"chunk_bytes": 100, "expert_start": start},
    )
    assert executed.counters["requests_finished"] == len(said) == 4
    assert (executed.counters.get("preemptions_recompute", 0) > 0) == (start == "index")
    for number, tokens in said.items():
        request, ids = of[number]
        assert len(tokens) == request.output
        assert alone(inputs, request, ids)[request.prompt - 1 :] == tokens


def test_a_grouped_product_takes_as_many_slots_as_a_kernel_allows() -> None:
    assert spans([4], 1) == [slice(0, 1)]
    assert spans([0, 3, 4, 9, 12], 4) == [slice(0, 2), slice(2, 3), slice(3, 5)]
    assert spans(list(range(0, 1664, 26)), 1023) == [slice(0, 40), slice(40, 64)]
