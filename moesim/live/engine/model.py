"""The model that a live machine runs: layers, KV cache and tokens, with the routes that the trace says.

Weights are random, which takes no other time, or those of a real model. What a step computes is put into pieces for the
stream; experts read their weights from the slots of the cache and from nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from moesim.hardware.keys import Keys
from moesim.hardware.shape import ModelShape
from moesim.live.copies import HostPool, Slots
from moesim.live.engine.streams import Piece
from moesim.live.kernels import MOST_GROUPS, Batch, KVCache, Pieces, Prompt, Router, ffn, synchronize
from moesim.live.weights import ExpertForm, LayerWeights, RandomWeights, StepWeights, dtype_of
from moesim.sim.engine import ATTENTION, EXPERTS, GATE, REST, ROUTER
from moesim.sim.work import Part, rows_of
from moesim.sim.workload import Request
from moesim.trace.routing import RoutingTrace

if TYPE_CHECKING:
    from moesim.live.engine.real import Real

SHIFT = 997
"""numbers by which one expert's random weights are shifted against the next one's"""


@dataclass(frozen=True, slots=True)
class Weights:
    """Everything of a model; the experts' are in host memory, a row a key."""

    layers: tuple[LayerWeights, ...]
    step: StepWeights
    experts: HostPool
    real: Real | None = None
    """what they are of; None: random"""

    @classmethod
    def random(cls, shape: ModelShape, keys: Keys, device: torch.device, *, layerwise: bool, seed: int = 0) -> Weights:
        """Random ones. All experts are cut from one line of numbers, and no two are alike."""
        made, form = RandomWeights(shape, device, seed), ExpertForm.of(shape)
        line = torch.empty(form.weights + SHIFT * keys.count, dtype=made.dtype)
        line.normal_(0.0, shape.d_model**-0.5, generator=torch.Generator().manual_seed(seed))
        rows = torch.empty(keys.count, form.weights, dtype=made.dtype, pin_memory=device.type == "cuda")
        for key in range(keys.count):
            rows[key] = line[key * SHIFT : key * SHIFT + form.weights]
        layers = tuple(made.layer(gate=layerwise) for _ in range(shape.layers))
        return cls(layers, made.step(), HostPool(rows, device))


class Places:
    """Places for requests in a KV cache. One that has none gets the lowest that is free, as long as there are any."""

    def __init__(self, count: int) -> None:
        self.of: dict[int, int] = {}
        self._free = list(range(count - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._free)

    def take(self, request: int) -> int:
        """Its place. Raises IndexError where none is free."""
        if request not in self.of:
            self.of[request] = self._free.pop()
        return self.of[request]

    def leave(self, request: int) -> None:
        if request in self.of:
            self._free.append(self.of.pop(request))

    def grow(self, by: int) -> None:
        """So many more."""
        count = len(self.of) + len(self._free)
        self._free = [*range(count + by - 1, count - 1, -1), *self._free]


def grow(cache: KVCache, places: int) -> None:
    """So many more places."""
    for tensors in {id(kept): kept for kept in (cache.keys, cache.values)}.values():
        for layer, tensor in enumerate(tensors):
            tensors[layer] = torch.cat([tensor, tensor.new_zeros(places, *tensor.shape[1:])])
            synchronize(tensor.device)


def spans(slots: Sequence[int], most: int) -> list[slice]:
    """Slots in ascending order, cut into parts that lie within `most` slots of the pool each."""
    starts = [0]
    for at, slot in enumerate(slots):
        if slot - slots[starts[-1]] >= most:
            starts.append(at)
    return [slice(first, end) for first, end in zip(starts, [*starts[1:], len(slots)], strict=True)]


@dataclass(frozen=True, slots=True)
class Routed:
    """Routes of a layer's tokens, sorted by expert: rows int64 [pairs] and shares [pairs]; `of`: each expert's."""

    rows: Tensor
    shares: Tensor
    of: dict[int, slice]


class Tokens:
    """Token ids of the requests: prompts, random if there are no real ones, then what is sampled."""

    def __init__(self, vocab: int, seed: int, real: Real | None) -> None:
        self._vocab, self._seed, self._real = vocab, seed, real
        self._ids: dict[int, list[int]] = {}

    def of(self, request: Request) -> list[int]:
        """All that is known of a request."""
        if request.number not in self._ids and self._real is not None:
            self._ids[request.number] = self._real.ids(request.captured)
        elif request.number not in self._ids:
            random = np.random.default_rng([self._seed, request.number])
            self._ids[request.number] = random.integers(self._vocab, size=request.prompt).tolist()
        return self._ids[request.number]

    def forget(self, request: int) -> None:
        self._ids.pop(request, None)


class LiveModel:
    """Runs one step at a time: `begin`, then the pieces of its layers, then `sample` and `read`."""

    def __init__(
        self,
        shape: ModelShape,
        weights: Weights,
        keys: Keys,
        slots: Slots,
        device: torch.device,
        *,
        requests: int,
        length: int,
        router: Router | None,
        grouped: bool,
        seed: int,
    ) -> None:
        """`requests`: places in the KV cache, and more when they are needed; `length`: tokens of each."""
        self.shape, self.weights, self.keys, self.slots, self.device = shape, weights, keys, slots, device
        self.dtype, self.grouped, self.router = dtype_of(shape), grouped, router
        real = weights.real
        if real is None:
            self.pieces = Pieces(shape, length, self.dtype, device)
        else:
            self.pieces = Pieces(shape, length, self.dtype, device, rope_base=real.rope_base, eps=real.eps)
        self.cache = KVCache(shape, shape.layers, requests, length, self.dtype, device)
        self.places, self.routed_places = Places(requests), Places(requests)
        self.tokens = Tokens(shape.vocab, seed, real)
        self._expert_of = [{key: expert for expert, key in enumerate(row)} for row in keys.table]

    # -- before and after a step ---------------------------------------------------------------------------------

    def begin(
        self,
        parts: Sequence[Part],
        requests: Sequence[Request],
        trace: RoutingTrace,
        yielding: Sequence[Request],
        continuing: Sequence[tuple[Request, int]],
    ) -> None:
        """A step of these parts starts; `requests` has them by number."""
        ordered = [*(p for p in parts if p.prefill), *(p for p in parts if not p.prefill)]
        self._make_room([part.request for part in parts])
        prompts, decodes, ids, last, first = [], [], [], {}, 0
        for part in ordered:
            place = self.places.take(part.request)
            if part.prefill:
                prompts.append(Prompt(first, part.tokens, place, part.start))
            else:
                decodes.append((place, part.start))
            ids += self.tokens.of(requests[part.request])[part.start : part.start + part.tokens]
            first += part.tokens
            last[part.request] = first - 1
        self.batch = Batch(prompts, decodes, self.device)
        self.ids = torch.tensor(ids, device=self.device)
        self.yielding, self.continuing = list(yielding), list(continuing)
        self.sampled_rows = torch.tensor([last[request.number] for request in yielding], device=self.device)
        at = [(int(trace.offsets[requests[p.request].sequence]) + p.start, p.tokens) for p in ordered]
        self._chosen, self._gate_weights = rows_of(trace.experts, at), rows_of(trace.weights, at)
        self._routed: tuple[int, Routed | None] = -1, None
        self._ran: list[int] = []

    def _make_room(self, requests: Sequence[int]) -> None:
        """Places for those that have none; the stream is idle."""
        lacking = sum(request not in self.places.of for request in requests) - len(self.places)
        if lacking > 0:
            self.places.grow(more := max(lacking, len(self.places.of)))
            grow(self.cache, more)

    def place_in_router(self, request: int, at_rest: AbstractContextManager[object]) -> int:
        """Its place in the router's cache; the stream is idle, and so is the router `at_rest`."""
        assert self.router is not None
        if request not in self.routed_places.of and not len(self.routed_places):
            self.routed_places.grow(more := len(self.routed_places.of))
            with at_rest:
                grow(self.router.cache, more)
        return self.routed_places.take(request)

    def read(self, part: int) -> None:
        """The result of the kernel of that part comes back to the host."""
        if part == GATE:
            self.gated[0].cpu()
        elif part == REST:
            self._read_tokens()
        elif part == ROUTER:
            self.next_routes = self.routed.cpu().numpy()
            """experts [requests that go on, k] of the tokens that were sampled"""

    def _read_tokens(self) -> None:
        """The sampled tokens are appended, and the requests that are answered leave."""
        going_on = {request.number for request, _ in self.continuing}
        tokens = self.sampled.tolist() if self.yielding else []
        for request, token in zip(self.yielding, tokens, strict=True):
            if request.number in going_on:
                self.tokens.of(request).append(token)
            else:
                self.leave(request.number)
                self.tokens.forget(request.number)
                self.routed_places.leave(request.number)

    def leave(self, request: int) -> None:
        """A request's keys and values are not needed any more, or it was preempted."""
        self.places.leave(request)

    # -- pieces --------------------------------------------------------------------------------------------------

    def attention(self, layer: int) -> list[Piece]:
        """Attention of a layer and what stands before and behind it; before the first layer the embedding."""
        pieces, weights = self.pieces, self.weights.layers[layer]

        def embed() -> None:
            self.hidden = pieces.dense_layers(self.weights.step, pieces.embed(self.weights.step, self.ids))

        def project() -> None:
            self.queries, keys, values = pieces.project(weights, self.hidden, self.batch)
            self.cache.write(layer, self.batch, keys, values)

        def attend() -> None:
            self.attended = pieces.attend(self.batch, self.queries, self.cache, layer)

        def output() -> None:
            self.hidden, self.normed = pieces.output(weights, self.attended, self.hidden)

        first: list[Piece] = [(REST, embed)] if layer == 0 else []
        return [*first, (REST, project), (ATTENTION, attend), (REST, output)]

    def gate(self, layer: int) -> list[Piece]:
        """A layer-wise gate; what it chooses is read back and not used, since the trace has chosen."""
        weight = self.weights.layers[layer].gate
        assert weight is not None

        def choose() -> None:
            self.gated = self.pieces.gate(weight, self.normed)

        return [(GATE, choose)]

    def experts(self, layer: int, group: Sequence[int], slot_of: Callable[[int], int]) -> list[Piece]:
        """The experts of these keys, from the slots in which they are."""
        routed, expert_of = self.routes(layer), self._expert_of[layer]
        ordered = sorted(group, key=slot_of) if self.grouped else list(group)
        slots = [slot_of(key) for key in ordered]
        places = [routed.of[expert_of[key]] for key in ordered]
        if self.grouped:
            return [(EXPERTS, self._grouped(slots[part], places[part], routed)) for part in spans(slots, MOST_GROUPS)]
        buffers = [self.slots.rows[slot] for slot in slots]
        rows, shares = [routed.rows[at] for at in places], [routed.shares[at] for at in places]
        return [(EXPERTS, lambda: self.pieces.looped(self.normed, buffers, rows, shares, self.hidden))]

    def _grouped(self, slots: Sequence[int], places: Sequence[slice], routed: Routed) -> Callable[[], None]:
        """A grouped product over the part of the pool from the first to the last of `slots`, which ascend."""
        pool = self.slots.rows[slots[0] : slots[-1] + 1]
        count = np.zeros(len(pool), dtype=np.int32)
        count[np.array(slots) - slots[0]] = [at.stop - at.start for at in places]
        ends = self._put(count.cumsum(dtype=np.int32))
        index = self._put(np.concatenate([np.arange(at.start, at.stop) for at in places]))

        def run() -> None:
            rows, shares = routed.rows[index], routed.shares[index]
            self.pieces.grouped(self.normed, pool, ends, rows, shares, self.hidden)

        return run

    def sample(self) -> list[Piece]:
        """The next token of each request that gets one."""

        def run() -> None:
            if len(self.sampled_rows):
                self.sampled = self.pieces.sample(self.weights.step, self.hidden[self.sampled_rows])

        return [(REST, run)]

    def route(self) -> list[Piece]:
        """The decoupled router for the tokens that were sampled and go on."""
        router = self.router
        assert router is not None
        ids = torch.tensor([self.tokens.of(request)[at] for request, at in self.continuing], device=self.device)
        places = [(self.routed_places.of[request.number], at) for request, at in self.continuing]
        batch = Batch([], places, self.device)

        def run() -> None:
            self.routed = router.route(ids, batch)[0]

        return [(ROUTER, run)]

    # -- routes --------------------------------------------------------------------------------------------------

    def routes(self, layer: int) -> Routed:
        """Of the step's tokens in a layer, as the trace has them."""
        decision = layer if self._chosen.shape[1] > 1 else 0
        known, routed = self._routed
        if routed is None or known != decision:
            routed = self._routes(self._chosen[:, decision], self._gate_weights[:, decision])
            self._routed = decision, routed
        return routed

    def _routes(self, chosen: np.ndarray, weights: np.ndarray) -> Routed:
        there = chosen >= 0
        shares = np.where(there, weights, 0).astype(np.float32)
        total = shares.sum(axis=1, keepdims=True)
        shares = np.where(total > 0, shares, there)
        shares /= np.maximum(shares.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        flat = chosen.ravel()
        order = np.argsort(flat, kind="stable")[int((flat < 0).sum()) :]
        experts, starts = np.unique(flat[order], return_index=True)
        ends = [*starts[1:].tolist(), len(order)]
        of = {int(e): slice(int(start), end) for e, start, end in zip(experts, starts, ends, strict=True)}
        return Routed(self._put(order // chosen.shape[1]), self._put(shares.ravel()[order]).to(self.dtype), of)

    def _put(self, values: np.ndarray) -> Tensor:
        """On the device, without the host's waiting for it."""
        made = torch.from_numpy(values)
        return made if self.device.type == "cpu" else made.pin_memory().to(self.device, non_blocking=True)

    # -- check ---------------------------------------------------------------------------------------------------

    def keep(self) -> list[Piece]:
        """Remember what the experts of a layer start from (`--check`)."""

        def run() -> None:
            self._before = self.hidden.clone()

        return [(EXPERTS, run)]

    def compare(self, layer: int) -> list[Piece]:
        """Whether the layer's experts gave what the full weights on the host give (`--check`)."""
        routed = self.routes(layer)

        def run() -> None:
            expected, form = self._before.float(), self.pieces.expert
            for expert, at in routed.of.items():
                weights = self.weights.experts.rows[self.keys.table[layer][expert]].to(self.device)
                inward, down = form.views(weights)
                found = ffn(self.normed[routed.rows[at]], inward, down) * routed.shares[at][:, None]
                expected.index_add_(0, routed.rows[at], found.float())
            close = 1e-4 if self.dtype == torch.float32 else 5e-2
            off = (expected - self.hidden.float()).abs().max().item()
            if not off <= close * max(1.0, expected.abs().max().item()):
                raise AssertionError(f"layer {layer}: its experts are off by {off} from what the full weights give")

        return [(EXPERTS, run)]

    def same(self, key: int, slot: int) -> None:
        """Whether a slot holds the key's weights, every byte (`--check`); run by the stream."""
        if not torch.equal(self.slots.rows[slot].cpu(), self.weights.experts.rows[key]):
            raise AssertionError(f"key {key} is not in slot {slot}, from which its kernel reads")
