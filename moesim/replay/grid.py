"""Every policy at every size in every scope, over one trace: the rows of `moesim cache`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from moesim.errors import InputError, Problem
from moesim.replay.capacity import Capacity
from moesim.replay.drive import hits_of
from moesim.replay.players import Player, Pooled
from moesim.replay.stream import Stream, stream_of
from moesim.trace.meta import RoutingMeta
from moesim.trace.routing import RoutingTrace

NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Settings:
    """How to replay (docs/cache.md).

    `room`: `strict` never holds more than the capacity after an event, `event` never less than the event's own keys.
    `order`: `event` or `key` by key. `start`: `warm` replays prompts too, `cold` output tokens only. `between`
    sequences the cache is kept or `reset`. `sequences`: only the first so many. `bypass`: whether policies are asked to
    admit a key, as in a server with staging slots. `rank`: recency within an event goes by a key's `first` use in it,
    as in the simulator, or by its `last`.
    """

    scopes: tuple[str, ...] = ("global", "layer")
    rooms: tuple[str, ...] = ("strict",)
    order: Literal["event", "key"] = "event"
    start: Literal["warm", "cold"] = "warm"
    between: Literal["keep", "reset"] = "keep"
    sequences: int | None = None
    seed: int = 0
    bypass: bool = False
    rank: Literal["first", "last"] = "first"

    def fitting(self, meta: RoutingMeta, capacities: Sequence[Capacity]) -> list[Capacity]:
        """Those that can be in every scope and room."""
        places = [(scope, room == "strict") for scope in self.scopes for room in self.rooms]
        return [c for c in capacities if not any(c.problem(meta, *place) for place in places)]


@dataclass(frozen=True, slots=True)
class Cell:
    """One replay: who, in which scope and room, with how much."""

    player: Player
    scope: str
    room: str
    capacity: Capacity


@dataclass(slots=True)
class Row:
    """What one replay came to; bytes are of the keys that were loaded, `peak_bytes` the most held after an event.

    Where the capacity counts experts, all keys are taken to be of one size, and peak is in experts.
    """

    policy: str
    scope: str
    room: str
    capacity: str
    amount: int
    counted: bool
    oracle: bool
    peak: int
    prompt_accesses: int
    prompt_hits: int
    prompt_loaded_bytes: int
    decode_accesses: int
    decode_hits: int
    decode_loaded_bytes: int
    decode_tokens: int
    gap_captured: float = field(default=NAN)

    @property
    def decode_hit_pct(self) -> float:
        return percent(self.decode_hits, self.decode_accesses)

    @property
    def prompt_hit_pct(self) -> float:
        return percent(self.prompt_hits, self.prompt_accesses)

    @property
    def misses_per_token(self) -> float:
        """Decode misses per output token, in keys."""
        return (self.decode_accesses - self.decode_hits) / self.decode_tokens if self.decode_tokens else NAN

    @property
    def bytes_per_token(self) -> float:
        """Bytes loaded per output token."""
        return self.decode_loaded_bytes / self.decode_tokens if self.decode_tokens else NAN


def percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else NAN


def replay(
    trace: RoutingTrace, players: Sequence[Player], capacities: Sequence[Capacity], settings: Settings
) -> list[Row]:
    """A row per policy, scope, room and capacity. Raises InputError with everything that cannot be played."""
    cells = list(_cells(players, capacities, settings))
    if problems := _problems(trace.meta, cells, settings):
        raise InputError(problems)
    stream = stream_of(trace, settings.start == "warm", settings.sequences, settings.rank)
    if settings.order == "key":
        stream = stream.by_key()
    if not stream.accesses:
        what = "output tokens, and a cold start leaves the prompts out" if settings.start == "cold" else "accesses"
        raise InputError(Problem("", f"there is nothing to replay: the trace has no {what}"))
    ground = Ground(trace.meta, stream, settings)
    rows = [ground.row(cell) for cell in cells]
    _add_gaps(rows)
    return rows


class Ground:
    """A stream cut into the pools and pieces that caches serve one by one."""

    def __init__(self, meta: RoutingMeta, stream: Stream, settings: Settings) -> None:
        self.meta, self.stream, self.settings = meta, stream, settings
        self.real_sizes = meta.key_sizes
        self._pieces: dict[str, list[tuple[int, Stream]]] = {}
        self.output = stream.output[stream.event_of]
        self.tokens = len(np.unique(stream.steps[stream.output]))

    def row(self, cell: Cell) -> Row:
        """Replay one cell."""
        amount = cell.capacity.amount(self.meta)
        sizes = [1] * self.meta.keys if cell.capacity.counted else self.real_sizes.tolist()
        each = amount // (self.meta.layers if cell.scope == "layer" else 1)
        totals = np.zeros((2, 3), dtype=np.int64)
        peaks: dict[int, int] = {}
        for pool, piece in self.pieces(cell.scope):
            outcome = cell.player.play(piece, sizes, each, cell.room == "strict", self._pooled(cell.scope, pool))
            totals += self._counts(piece, hits_of(outcome))
            peaks[pool] = max(peaks.get(pool, 0), outcome.peak)
        (prompt, prompt_hits, prompt_bytes), (decode, decode_hits, decode_bytes) = totals.tolist()
        return Row(
            policy=cell.player.label,
            scope=cell.scope,
            room=cell.room,
            capacity=cell.capacity.text,
            amount=amount,
            counted=cell.capacity.counted,
            oracle=cell.player.oracle,
            peak=sum(peaks.values()),
            prompt_accesses=prompt,
            prompt_hits=prompt_hits,
            prompt_loaded_bytes=prompt_bytes,
            decode_accesses=decode,
            decode_hits=decode_hits,
            decode_loaded_bytes=decode_bytes,
            decode_tokens=self.tokens,
        )

    def pieces(self, scope: str) -> list[tuple[int, Stream]]:
        """(pool, events) of each cache that starts empty."""
        if scope not in self._pieces:
            pools = [(0, self.stream)] if scope == "global" else list(self.stream.of_each_layer())
            if self.settings.between == "reset":
                pools = [(pool, piece) for pool, whole in pools for piece in whole.of_each_sequence()]
            self._pieces[scope] = [(pool, piece) for pool, piece in pools if piece.events]
        return self._pieces[scope]

    def _pooled(self, scope: str, pool: int) -> Pooled:
        experts = self.meta.experts
        keys = range(self.meta.keys) if scope == "global" else range(pool * experts, (pool + 1) * experts)
        return Pooled(keys, experts, self.settings.seed + pool, self.settings.bypass)

    def _counts(self, piece: Stream, hits: np.ndarray) -> np.ndarray:
        """int64 [2 (prompt, decode), 3 (accesses, hits, bytes loaded)]"""
        output = piece.output[piece.event_of]
        loaded = np.where(hits, 0, self.real_sizes[piece.keys])
        return np.array([[w.sum(), (hits & w).sum(), loaded[w].sum()] for w in (~output, output)], dtype=np.int64)


def _cells(players: Sequence[Player], capacities: Sequence[Capacity], settings: Settings) -> Iterator[Cell]:
    for room in settings.rooms:
        for player in players:
            for scope in (player.scope,) if player.scope else settings.scopes:
                for capacity in capacities:
                    yield Cell(player, scope, room, capacity)


def _problems(meta: RoutingMeta, cells: Sequence[Cell], settings: Settings) -> list[Problem]:
    found = [Problem("--policies", p) for c in cells if (p := c.player.problem(meta))]
    found += [Problem("--sizes", p) for c in cells if (p := c.capacity.problem(meta, c.scope, c.room == "strict"))]
    if meta.key_map is not None and any(cell.scope == "layer" for cell in cells):
        found.append(Problem("--scope", "layer: layers of this model share keys, so that the scope must be global"))
    return list(dict.fromkeys(found))


def _add_gaps(rows: Sequence[Row]) -> None:
    """Gap captured: (hits - LRU's) / (MIN's - LRU's) in decode, everything else being equal."""
    hits = {(r.policy, r.scope, r.room, r.capacity): r.decode_hits for r in rows}
    for row in rows:
        lru, best = (hits.get((name, row.scope, row.room, row.capacity)) for name in ("lru", "min"))
        if lru is not None and best is not None and best > lru:
            row.gap_captured = (row.decode_hits - lru) / (best - lru)
