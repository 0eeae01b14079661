"""Passages of tokens cut from works: each starts where a unit of its text starts, and no two share text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from moesim.errors import InputError, Problem
from moesim.live.corpus import Split, Work

Encode = Callable[[str], list[int]]


@dataclass(frozen=True, slots=True)
class Passage:
    """Tokens of one text; `ids` is int32 [tokens]."""

    domain: str
    source: str
    licence: str
    split: Split
    ids: np.ndarray


@dataclass(slots=True)
class _Shelf:
    """A work being read: `at` is the next unused unit."""

    work: Work
    at: int

    def take(self, target: int, least: int, encode: Encode) -> list[int] | None:
        ids: list[int] = []
        end = self.at
        while end < len(self.work.units) and len(ids) < target:
            joint = self.work.joint if end > self.at else ""
            ids += encode(joint + self.work.units[end])
            end += 1
        if len(ids) < least:
            return None
        self.at = end
        return ids[:target]


@dataclass(slots=True)
class _Stock:
    """The shelves of one domain by source. Sources take turns, and so do the works of a source."""

    shelves: dict[str, list[_Shelf]]
    turn: int = 0
    seen: set[tuple[int, ...]] = field(default_factory=set)

    def take(self, target: int, least: int, encode: Encode) -> tuple[Work, list[int]] | None:
        names = list(self.shelves)
        for step in range(len(names)):
            shelves = self.shelves[names[(self.turn + step) % len(names)]]
            for _ in range(len(shelves)):
                shelf = shelves.pop(0)
                shelves.append(shelf)
                ids = shelf.take(target, least, encode)
                if ids is not None and tuple(ids) not in self.seen:
                    self.seen.add(tuple(ids))
                    self.turn += step + 1
                    return shelf.work, ids
        return None


def cut(
    works: Sequence[Work], encode: Encode, targets: Sequence[tuple[int, int]], seed: Sequence[int]
) -> list[Passage]:
    """One passage for each (target, least) of `targets`, in their order: `target` tokens, or what a work has left.

    All `works` are of one domain and split. Raises InputError where their text does not suffice.
    """
    random = np.random.default_rng(seed)
    stock = _stock(works, random)
    found: dict[int, Passage] = {}
    for index in sorted(range(len(targets)), key=lambda i: -targets[i][0]):  # long ones first: they are hard to place
        taken = stock.take(*targets[index], encode)
        if taken is None:
            text = f"text for {len(found)} of {len(targets)} passages only; ask for fewer, or for shorter ones"
            raise InputError(Problem(f"{works[0].domain}, {works[0].split}" if works else "corpus", text))
        work, ids = taken
        found[index] = Passage(work.domain, work.source, work.licence, work.split, np.array(ids, np.int32))
    return [found[index] for index in range(len(targets))]


def _stock(works: Sequence[Work], random: np.random.Generator) -> _Stock:
    shelves: dict[str, list[_Shelf]] = {}
    for index in random.permutation(len(works)):
        work = works[index]
        # Long works are entered somewhere inside, or every text would be a preface.
        start = int(random.integers(0, max(len(work.units) // 4 - 5, 1)))
        shelves.setdefault(work.source, []).append(_Shelf(work, start))
    return _Stock(dict(sorted(shelves.items())))


def lengths(count: int, short: tuple[int, int], long: tuple[int, int], seed: Sequence[int]) -> list[tuple[int, int]]:
    """`count` prompt lengths as (target, least): half of them short, half long, log-uniform within each."""
    random = np.random.default_rng(seed)
    ranges = [short if index % 2 else long for index in range(count)]
    return [(int(np.exp(random.uniform(np.log(low), np.log(high + 1)))), low) for low, high in ranges]


def output_lengths(count: int, mean: int, span: tuple[int, int], seed: Sequence[int]) -> np.ndarray:
    """int32 [count] output lengths: geometric from the least of `span`, cut at its most; about `mean` on average."""
    random = np.random.default_rng(seed)
    low, high = span
    return np.minimum(low - 1 + random.geometric(1 / max(mean - low + 1, 1), count), high).astype(np.int32)
