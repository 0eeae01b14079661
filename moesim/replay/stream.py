"""A routing trace as a stream of layer events, each the unique keys that one layer of one step needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from moesim.trace.routing import RoutingTrace

BLOCK = 4_000_000
"""choices of experts that are put in order at once"""


@dataclass(frozen=True)
class Stream:
    """Layer events in order. Event `e` needs `keys[bounds[e]:bounds[e + 1]]`, ranked by use (position, slot).

    keys int32 [accesses], bounds int64 [events + 1], and per event: layers int32, steps int64 (counted over all
    sequences), output bool (a decode step, not a prompt), sequences int32.
    """

    keys: np.ndarray
    bounds: np.ndarray
    layers: np.ndarray
    steps: np.ndarray
    output: np.ndarray
    sequences: np.ndarray
    layer_count: int

    @property
    def accesses(self) -> int:
        return len(self.keys)

    @property
    def events(self) -> int:
        return len(self.bounds) - 1

    @cached_property
    def event_of(self) -> np.ndarray:
        """int64 [accesses]: the event of each access."""
        return np.repeat(np.arange(self.events), np.diff(self.bounds))

    @cached_property
    def numbers(self) -> np.ndarray:
        """int64 [events]: `step * layers + layer`, the time of an event as a policy's view counts it."""
        return self.steps * self.layer_count + self.layers

    @cached_property
    def next_access(self) -> np.ndarray:
        """int64 [accesses]: index of the next access to the same key; `accesses + key` where there is none."""
        order = np.argsort(self.keys, kind="stable")
        keys = self.keys[order]
        following = np.empty(self.accesses, dtype=np.int64)
        following[order] = self.accesses + keys.astype(np.int64)
        same = keys[1:] == keys[:-1]
        following[order[:-1][same]] = order[1:][same]
        return following

    @cached_property
    def first_access(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys that are used at all, and the index of the first access to each."""
        return np.unique(self.keys, return_index=True)

    def select(self, chosen: np.ndarray) -> Stream:
        """The events where `chosen` (bool [events]) holds."""
        if chosen.all():
            return self
        lengths = np.diff(self.bounds)
        return Stream(
            keys=self.keys[np.repeat(chosen, lengths)],
            bounds=np.concatenate([[0], np.cumsum(lengths[chosen])]).astype(np.int64),
            layers=self.layers[chosen],
            steps=self.steps[chosen],
            output=self.output[chosen],
            sequences=self.sequences[chosen],
            layer_count=self.layer_count,
        )

    def by_key(self) -> Stream:
        """The same accesses as one event each: key by key, as programs replay that know no layer events."""
        of = self.event_of
        return Stream(
            keys=self.keys,
            bounds=np.arange(self.accesses + 1, dtype=np.int64),
            layers=self.layers[of],
            steps=self.steps[of],
            output=self.output[of],
            sequences=self.sequences[of],
            layer_count=self.layer_count,
        )

    def of_each_layer(self) -> Iterator[tuple[int, Stream]]:
        """Each layer with its events, for caches that serve one layer."""
        for layer in range(self.layer_count):
            yield layer, self.select(self.layers == layer)

    def of_each_sequence(self) -> Iterator[Stream]:
        """The events of each sequence, for caches that start empty with each."""
        for sequence in np.unique(self.sequences).tolist():
            yield self.select(self.sequences == sequence)


def stream_of(
    trace: RoutingTrace, prompts: bool = True, sequences: int | None = None, rank: Literal["first", "last"] = "first"
) -> Stream:
    """Each sequence alone, in the trace's order: its prompt as one step, then a step for each output token.

    A layer event has each key once. `prompts` false leaves the prompt steps out (cold start); `sequences` takes only
    the first so many. Keys of an event are ranked by their first or their last use in it.
    """
    count = trace.sequences if sequences is None else min(sequences, trace.sequences)
    blocks = [_events(trace, first, last, prompts, rank) for first, last in _blocks(trace, count)]
    lengths, layers, steps, output, owner, keys = (np.concatenate(column) for column in zip(*blocks, strict=True))
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Stream(keys, bounds, layers, steps, output, owner, trace.meta.layers)


def output_rows(trace: RoutingTrace) -> np.ndarray:
    """bool [tokens]: which rows are output tokens."""
    position = np.arange(trace.tokens) - np.repeat(trace.offsets[:-1], trace.lengths)
    return position >= np.repeat(trace.prompt_tokens, trace.lengths)


def _blocks(trace: RoutingTrace, count: int) -> Iterator[tuple[int, int]]:
    """Runs of sequences, few enough that the arrays of one run stay small."""
    most = max(BLOCK // (trace.meta.layers * trace.meta.k), 1)
    first = 0
    while first < count:
        last = int(np.searchsorted(trace.offsets, trace.offsets[first] + most, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


def _events(trace: RoutingTrace, first: int, last: int, prompts: bool, rank: str) -> tuple[np.ndarray, ...]:
    """Of sequences `first` .. `last - 1`: lengths, layers, steps, output and sequence of the events, and their keys."""
    rows = np.arange(trace.offsets[first], trace.offsets[last])
    sequence = np.repeat(np.arange(first, last), trace.lengths[first:last])
    prompt = trace.prompt_tokens[sequence]
    position = rows - trace.offsets[sequence]
    output = position >= prompt
    # Steps before this sequence: a prompt and its output tokens each.
    before = np.cumsum(trace.output_tokens + 1) - (trace.output_tokens + 1)
    step = before[sequence] + np.where(output, position - prompt + 1, 0)
    if not prompts:
        rows, sequence, output, step = rows[output], sequence[output], output[output], step[output]
    layers, table = trace.meta.layers, trace.meta.key_table
    chosen = trace.experts[rows]  # [rows, R, k]
    keys = np.where(chosen >= 0, table[np.arange(layers)[:, None], chosen], -1)  # [rows, layers, k]
    event = np.broadcast_to((step[:, None] * layers + np.arange(layers))[:, :, None], keys.shape)
    index = np.flatnonzero(keys.reshape(-1) >= 0)
    event_of, key = event.reshape(-1)[index], keys.reshape(-1)[index]
    # Rows come by position and slots in order, so that the first of equal (event, key) is the first use.
    code = event_of * trace.meta.keys + key
    _, unique = np.unique(code if rank == "first" else code[::-1], return_index=True)
    unique = unique if rank == "first" else len(code) - 1 - unique
    order = unique[np.lexsort((unique, event_of[unique]))]
    event_of, key = event_of[order], key[order]
    row = index[order] // (layers * keys.shape[2])
    starts = np.flatnonzero(np.diff(event_of, prepend=-1))
    return (
        np.diff(np.append(starts, len(key))),
        (event_of[starts] % layers).astype(np.int32),
        event_of[starts] // layers,
        output[row[starts]],
        sequence[row[starts]].astype(np.int32),
        key.astype(np.int32),
    )
