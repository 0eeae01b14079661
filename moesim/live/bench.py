"""What `moesim profile` times: each piece of a layer and of a step as a call, with weights that are not in any cache.

A server goes through all layers before it comes to the same weights again. So a call takes other weights each time, of
a set that is several times as large as the device's last-level cache (as far as memory allows). One layer at a time:
the memory needed is that of the set, not of the model.
"""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from moesim.hardware.shape import ModelShape
from moesim.live.kernels import Batch, KVCache, Pieces, Prompt, Router
from moesim.live.points import split
from moesim.live.timing import Call
from moesim.live.weights import RandomWeights, attention_form, dtype_of, repeat_normal

T = TypeVar("T")
FLUSH = 4
"""times the last-level cache that weights are spread over"""
MOST_DECODES = 64
"""tokens that are taken to be one of each of so many requests; more are a prompt"""
MOST_COPIES = 1024
LAST_LEVEL = 32 * 2**20
"""bytes, where the machine does not say"""


@dataclass(frozen=True, slots=True)
class Room:
    """How many bytes of weights a bench may hold, and how many make a cache forget the first of them."""

    most: int
    flush: int

    def copies(self, nbytes: int, least: int = 1) -> int:
        """How many of something of `nbytes` there should be."""
        wanted = max(least, -(-self.flush // max(1, nbytes)) + 1)
        return max(least, min(wanted, self.most // max(1, nbytes), MOST_COPIES))


def room_of(device: torch.device, memory: int | None = None) -> Room:
    """Half of the memory that is free (or `memory`), and `FLUSH` times the last-level cache."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        last = getattr(torch.cuda.get_device_properties(device), "L2_cache_size", LAST_LEVEL)
    else:
        free, last = available_memory(), last_level_cache()
    return Room(memory or free // 2, FLUSH * last)


def available_memory() -> int:
    """Bytes that programs may still take on this host; 4 GiB where nobody says."""
    try:
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 * 2**30


def last_level_cache() -> int:
    """Bytes of the largest cache of the first CPU."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    found = [LAST_LEVEL]
    for path in glob.glob("/sys/devices/system/cpu/cpu0/cache/index*/size"):
        text = Path(path).read_text(encoding="ascii").strip()
        if text[:-1].isdigit() and text[-1] in units:
            found.append(int(text[:-1]) * units[text[-1]])
    return max(found[1:] or found)


class Bench:
    """Calls to be timed, by component and point (full arguments, see `points.real`).

    What a component needs is made when it is first asked for; `forget` gives it back.
    """

    def __init__(self, shape: ModelShape, device: torch.device, room: Room, seed: int = 0) -> None:
        self.shape, self.device, self.room = shape, device, room
        self.dtype = dtype_of(shape)
        self.random = RandomWeights(shape, device, seed)
        self._kept: dict[object, object] = {}

    def forget(self) -> None:
        """Give back the weights and caches that calls made so far hold."""
        self._kept.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def call(self, component: str, point: tuple[int, ...], *, grouped: bool = False) -> Call:
        """What runs the piece once."""
        if component == "experts":
            return (self.grouped if grouped else self.looped)(*point)
        made: Call = getattr(self, component)(*point)
        return made

    # -- attention -----------------------------------------------------------------------------------------------

    def attention_prefill(self, tokens: int, past: int) -> Call:
        return self._attention(Batch([Prompt(0, tokens, 0, past)], [], self.device), tokens + past, 1)

    def attention_decode(self, batch: int, context: int) -> Call:
        lengths = split(context, batch, -(-context // batch))
        decodes = [(slot, length - 1) for slot, length in enumerate(lengths)]
        return self._attention(Batch([], decodes, self.device), max(lengths), batch)

    def _attention(self, batch: Batch, length: int, slots: int) -> Call:
        """Attention over as much context, in other memory each time."""
        form = attention_form(self.shape)
        size = slots * length * self.shape.layer_kv_bytes
        caches = KVCache(self.shape, self.room.copies(size), slots, length, self.dtype, self.device)
        for tensor in {id(t): t for t in (*caches.keys, *caches.values)}.values():
            repeat_normal(tensor)
        pieces = self._pieces(8)
        queries = torch.randn(batch.tokens, form.heads, form.kv_dim, device=self.device).to(self.dtype)
        layers = len(caches.keys)
        return lambda number: pieces.attend(batch, queries, caches, number % layers)

    # -- the rest of a layer -------------------------------------------------------------------------------------

    def layer_rest(self, tokens: int) -> Call:
        batch, slots, length = self._batch(tokens)
        cache = KVCache(self.shape, 1, slots, length, self.dtype, self.device)
        layers = self._keep("layers", lambda: [self.random.layer(gate=False) for _ in range(self._layer_copies())])
        pieces, form = self._pieces(length), attention_form(self.shape)
        hidden = self._hidden(tokens)
        attended = torch.randn(tokens, form.heads * form.kv_dim, device=self.device).to(self.dtype)

        def run(number: int) -> Tensor:
            layer = layers[number % len(layers)]
            _, keys, values = pieces.project(layer, hidden, batch)
            cache.write(0, batch, keys, values)
            return pieces.output(layer, attended, hidden)[1]

        return run

    def gate(self, tokens: int) -> Call:
        pieces, normed = self._pieces(8), self._hidden(tokens)
        size = 2 * self.shape.experts * self.shape.d_model
        gates = self._keep(
            "gates",
            lambda: [
                self.random.matrix(self.shape.experts, self.shape.d_model) for _ in range(self.room.copies(size))
            ],
        )
        return lambda number: pieces.gate(gates[number % len(gates)], normed)

    def router(self, tokens: int) -> Call:
        batch, slots, length = self._batch(tokens)
        router = Router(self.shape, slots, length, self.device)
        ids = torch.arange(tokens, device=self.device) % self.shape.vocab
        return lambda number: router.route(ids, batch)

    # -- experts -------------------------------------------------------------------------------------------------

    def looped(self, tokens: int, active: int, largest: int) -> Call:
        pool, pieces = self._pool(active), self._pieces(8)
        counts = split(tokens, active, largest)
        normed, rows, shares = self._tokens_of(counts)
        out, buffers = torch.zeros_like(normed), list(pool)
        turns = len(buffers) // active

        def run(number: int) -> None:
            first = number % turns * active
            pieces.looped(normed, buffers[first : first + active], rows, shares, out)

        return run

    def grouped(self, tokens: int, active: int, largest: int) -> Call:
        pool, pieces = self._pool(active), self._pieces(8)
        counts = split(tokens, active, largest)
        normed, rows, shares = self._tokens_of(counts)
        out, every, weight = torch.zeros_like(normed), torch.cat(rows), torch.cat(shares)
        ends = []
        for start in range(0, len(pool) - active + 1, active):
            counted = [0] * start + counts + [0] * (len(pool) - start - active)
            ends.append(torch.tensor(counted, device=self.device).cumsum(0).to(torch.int32))
        return lambda number: pieces.grouped(normed, pool, ends[number % len(ends)], every, weight, out)

    def cpu_expert(self, tokens: int) -> Call:
        """One expert on the CPU, whatever the device is."""
        here = self if self.device.type == "cpu" else self._keep("cpu", self._on_cpu)
        return here.looped(tokens, 1, tokens)

    def _on_cpu(self) -> Bench:
        cpu = torch.device("cpu")
        return Bench(self.shape, cpu, room_of(cpu))

    # -- a step --------------------------------------------------------------------------------------------------

    def step_rest(self, tokens: int) -> Call:
        pieces, step = self._pieces(8), self._keep("step", self.random.step)
        ids = torch.arange(tokens, device=self.device) % self.shape.vocab
        return lambda number: pieces.sample(step, pieces.dense_layers(step, pieces.embed(step, ids)))

    # -- what they share -----------------------------------------------------------------------------------------

    def _keep(self, name: object, make: Callable[[], T]) -> T:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]  # type: ignore[return-value]

    def _pieces(self, length: int) -> Pieces:
        size = max(8, 1 << (length - 1).bit_length())
        return self._keep(("pieces", size), lambda: Pieces(self.shape, size, self.dtype, self.device))

    def _layer_copies(self) -> int:
        weights = self.shape.attention_weights + self.shape.shared_weights
        return self.room.copies(weights * self.dtype.itemsize)

    def _pool(self, active: int) -> Tensor:
        """Flat buffers of experts, two sets of active ones at least where there is room."""
        count = self.room.copies(self.shape.key_bytes, active)
        count = max(count, min(2 * active, self.room.most // self.shape.key_bytes))
        return self._keep(("experts", count), lambda: self.random.experts(count))

    def _batch(self, tokens: int) -> tuple[Batch, int, int]:
        """So many tokens as a step has them, with the KV slots and the length that they need."""
        if tokens > MOST_DECODES:
            return Batch([Prompt(0, tokens, 0, 0)], [], self.device), 1, tokens
        return Batch([], [(slot, 8) for slot in range(tokens)], self.device), tokens, 16

    def _hidden(self, tokens: int) -> Tensor:
        return torch.randn(tokens, self.shape.d_model, device=self.device).to(self.dtype)

    def _tokens_of(self, counts: list[int]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Hidden states, and which of them go to each expert: as many states as there are tokens behind the pairs."""
        tokens = max(*counts, -(-sum(counts) // self.shape.top_k)) if counts else 0
        rows, first = [], 0
        for count in counts:
            rows.append((torch.arange(count, device=self.device) + first) % tokens)
            first += count
        shares = [torch.ones(count, dtype=self.dtype, device=self.device) for count in counts]
        return self._hidden(tokens), rows, shares
