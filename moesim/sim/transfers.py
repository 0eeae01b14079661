"""A row per copy on the host-to-device link: the cache, the link and the engine, which note what they do.

Nothing else is different: a run whose copies are kept ends at the same nanosecond, but takes no compiled steps.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from moesim.hardware.keys import Keys
from moesim.sim.cache import FRESH, ExpertCache
from moesim.sim.engine import Engine, StepCosts
from moesim.sim.link import Link, Transfer
from moesim.sim.setup import Makers
from moesim.sim.work import LayerWork, Work

KINDS = ("demand", "prefetch", "kv")
DEMAND, PREFETCH, KV = range(len(KINDS))

FIELDS = (
    "step",
    "key",
    "class",
    "submitted_ns",
    "started_ns",
    "ended_ns",
    "room_ns",
    "link_ns",
    "bytes",
    "sent_bytes",
    "chunks",
    "sent_chunks",
    "promoted_ns",
    "cancelled",
    "staged",
    "wasted_bytes",
)
WIDTH = len(FIELDS)
AT = {name: place for place, name in enumerate(FIELDS)}
KEY, STARTED, ENDED, LINK_NS = AT["key"], AT["started_ns"], AT["ended_ns"], AT["link_ns"]
SENT_BYTES, SENT_CHUNKS, PROMOTED = AT["sent_bytes"], AT["sent_chunks"], AT["promoted_ns"]
CANCELLED, STAGED, WASTED = AT["cancelled"], AT["staged"], AT["wasted_bytes"]
TIMES = tuple(AT[name] for name in ("submitted_ns", "started_ns", "ended_ns"))

Row = tuple[int, ...]


class TransferLog:
    """Rows of FIELDS, one after another in 8 bytes a field, in the order in which copies took their room."""

    def __init__(self) -> None:
        self.cells = array("q")
        self.step = 0
        """whose row of the table of steps counts what starts now"""

    def __len__(self) -> int:
        return len(self.cells) // WIDTH

    def add(self, row: Row) -> int:
        """Where the row begins."""
        place = len(self.cells)
        self.cells.extend(row)
        return place

    def since(self, rows: int) -> list[Row]:
        """The rows after the first so many."""
        cells = self.cells[rows * WIDTH :]
        return [tuple(cells[at : at + WIDTH]) for at in range(0, len(cells), WIDTH)]

    def table(self, keys: Keys) -> dict[str, np.ndarray]:
        """Columns of the table of copies (docs/results.md)."""
        columns = dict(zip(FIELDS, np.array(self.cells, np.int64).reshape(-1, WIDTH).T, strict=True))
        layer, expert = _owners(keys)
        key, started = columns["key"], columns["started_ns"]
        found: dict[str, np.ndarray] = {"step": columns["step"].astype(np.int32), "key": key.astype(np.int32)}
        found |= {"layer": layer[key], "expert": expert[key]}
        found["class"] = np.array(KINDS, dtype=object)[columns["class"]]
        found |= {name: columns[name] for name in ("submitted_ns", "started_ns", "ended_ns")}
        found["line_ns"] = started - columns["submitted_ns"] - columns["room_ns"]
        found |= {name: columns[name] for name in ("room_ns", "link_ns", "bytes", "sent_bytes")}
        found |= {name: columns[name].astype(np.int32) for name in ("chunks", "sent_chunks")}
        found["promoted_ns"] = columns["promoted_ns"]
        found |= {name: columns[name].astype(bool) for name in ("cancelled", "staged")}
        return found | {"wasted_bytes": columns["wasted_bytes"]}


def _owners(keys: Keys) -> tuple[np.ndarray, np.ndarray]:
    """Layer and expert of each key, the first that it serves; -1 behind the last, for what is no key."""
    layer, expert = np.full((2, keys.count + 1), -1, dtype=np.int32)
    for at, row in reversed(list(enumerate(keys.table))):
        for number, key in reversed(list(enumerate(row))):
            layer[key], expert[key] = at, number
    return layer, expert


class Recorder:
    """Makes a machine whose copies are kept in `log`."""

    def __init__(self) -> None:
        self.log = TransferLog()
        self.makers = Makers(cache=self.cache, link=self.link, engine=self.engine)

    def cache(self, *args: Any, **kwargs: Any) -> ExpertCache:
        made = self._cache = RecordedCache(*args, **kwargs)
        return made

    def link(self, *args: Any, **kwargs: Any) -> Link:
        made = self._cache.link = RecordedLink(*args, **kwargs)
        made.log, made.rows, made.blocked_at = self.log, {}, {}
        return made

    def engine(self, *args: Any, **kwargs: Any) -> Engine:
        made = RecordedEngine(*args, **kwargs)
        made.log, made.copies = self.log, {}
        return made


class RecordedCache(ExpertCache):
    """Tells the link what becomes of what was prefetched."""

    link: RecordedLink

    def _gone(self, key: int) -> None:
        if self.state[key] == FRESH:
            self.link.note(key, WASTED, self.sizes[key])
        super()._gone(key)

    def cancelled(self, key: int, sent_bytes: int, over: bool) -> int:
        self.link.note(key, CANCELLED, 1)
        self.link.note(key, WASTED, sent_bytes)
        return super().cancelled(key, sent_bytes, over)


class RecordedLink(Link):
    """Keeps a row per copy, from when it has room."""

    log: TransferLog
    rows: dict[int, int]
    """where the row of each key's last copy begins"""
    blocked_at: dict[int, int]
    """since when a demand, by key, has found no room"""

    def note(self, key: int, field: int, value: int) -> None:
        """Of the last copy of a key; none where that was before the first."""
        self.log.cells[self.rows[key] + field] = value

    def demand(self, key: int, nbytes: int, at: int) -> None:
        moving = self.moving.get(key)
        if moving is not None and not moving.demanded:
            self.note(key, PROMOTED, at)
        super().demand(key, nbytes, at)

    def _start(self, transfer: Transfer) -> bool:
        key = transfer.key
        if not super()._start(transfer):
            self.blocked_at.setdefault(key, self.now)
            return False
        self._begin(transfer, KV if key < 0 else DEMAND, transfer.at, self.now - self.blocked_at.pop(key, self.now))
        return True

    def _start_planned(self) -> bool:
        planned = self.planned
        if not super()._start_planned():
            return False
        transfer = self.prefetches[-1]
        self._begin(transfer, PREFETCH, planned[transfer.key], 0)
        return True

    def _begin(self, transfer: Transfer, kind: int, submitted: int, room: int) -> None:
        key, size, chunks = transfer.key, transfer.nbytes, len(transfer.chunks)
        asked = self.log.step, max(key, -1), kind, submitted, -1, -1, room, 0
        self.rows[key] = self.log.add((*asked, size, 0, chunks, 0, -1, 0, int(key in self._staged()), 0))

    def _staged(self) -> Container[int]:
        staged: Container[int] = self.room.staged  # type: ignore[attr-defined]
        return staged

    def _send_all(self, head: Transfer, now: int) -> None:
        start, busy, chunks = max(self.ends[-1], now), self.busy_ns, len(head.chunks)
        super()._send_all(head, now)
        self._sent(head, start, head.end, self.busy_ns - busy, chunks)

    def _send_chunk(self, transfer: Transfer, now: int, line: deque[Transfer]) -> None:
        start, busy = max(self.ends[-1], now), self.busy_ns
        super()._send_chunk(transfer, now, line)
        self._sent(transfer, start, transfer.end, self.busy_ns - busy, 1)

    def _sent(self, transfer: Transfer, start: int, end: int, spent: int, chunks: int) -> None:
        """So many more chunks of a copy are submitted, and take from `start` to `end`."""
        cells, at = self.log.cells, self.rows[transfer.key]
        if cells[at + STARTED] < 0:
            cells[at + STARTED] = start
        cells[at + ENDED] = end
        cells[at + LINK_NS] += spent
        cells[at + SENT_CHUNKS] += chunks
        cells[at + SENT_BYTES] = min(transfer.nbytes, cells[at + SENT_CHUNKS] * self.chunk_bytes)


class RecordedEngine(Engine):
    """Says which step it is, and keeps the copies of a layer event that repeats with what else it does."""

    log: TransferLog
    copies: dict[tuple[tuple[int, ...], tuple[int, ...], int], list[tuple[int, Row]]]
    """of each situation: the rank of the key, and its row, with times from the instant of the gate"""

    def run(self, step: int, work: Work, costs: StepCosts, start: int, laters: Sequence[np.ndarray]) -> int:
        self.log.step = step
        end = super().run(step, work, costs, start, laters)
        self.log.step = step + 1
        return end

    def _repeat(self, keys: tuple[int, ...], work: LayerWork, states: tuple[int, ...], now: int) -> None:
        situation = (work.tokens, states, now - self.stream)
        known = situation in self._patterns
        if known:
            for rank, row in self.copies[situation]:
                self.log.add(_placed(row, now, self.log.step, keys[rank]))
        before = len(self.log)
        super()._repeat(keys, work, states, now)
        if not known:
            ranks = {key: rank for rank, key in enumerate(keys)}
            self.copies[situation] = [(ranks[row[KEY]], _placed(row, -now, 0, 0)) for row in self.log.since(before)]
            if not self._patterns:
                self.copies.clear()


def _placed(row: Row, by: int, step: int, key: int) -> Row:
    """A row at another time, of another step and key."""
    moved = list(row)
    for place in TIMES:
        moved[place] += by
    moved[0], moved[KEY] = step, key
    return tuple(moved)
