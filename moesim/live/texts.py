"""The texts of a refactorization: training passages by domain, and held-out prompts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moesim.errors import InputError, Problem
from moesim.files import write_aside
from moesim.live.corpus import Split, Work
from moesim.live.passages import Encode, Passage, cut, lengths, output_lengths
from moesim.live.settings import RefactorConfig, Span

PIECE = 1500
SHRUNK = (1.0, 0.75, 0.5, 0.375, 0.25)


@dataclass(frozen=True, slots=True)
class Texts:
    """Domains, training passages by domain, and held-out prompts (domains take turns)."""

    domains: tuple[str, ...]
    train: tuple[tuple[Passage, ...], ...]
    prompts: tuple[Passage, ...]

    def digest(self) -> str:
        """sha256 of all token ids."""
        found = hashlib.sha256()
        for passage in (*(p for domain in self.train for p in domain), *self.prompts):
            found.update(len(passage.ids).to_bytes(4, "little") + passage.ids.tobytes())
        return found.hexdigest()

    def held_out(self, domain: int, count: int) -> list[Passage]:
        """The `count` longest prompts of a domain."""
        mine = [passage for passage in self.prompts if passage.domain == self.domains[domain]]
        return sorted(mine, key=lambda passage: -len(passage.ids))[:count]


def choose_texts(works: Sequence[Work], domains: Sequence[str], encode: Encode, config: RefactorConfig) -> Texts:
    """Training passages and prompts of every domain. Raises InputError naming all domains with too little text."""
    least, most = config.train_length
    train, prompts = [], []
    problems: list[Problem] = []
    for index, domain in enumerate(domains):
        try:
            mine = _of(works, domain, "train")
            train.append(tuple(cut(mine, encode, [(most, least)] * config.train, (config.seed, index, 0))))
        except InputError as error:
            problems += error.problems
        try:
            prompts.append(_prompts(_of(works, domain, "held-out"), encode, config, index))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    in_turns = tuple(passage for turn in zip(*prompts, strict=True) for passage in turn)
    return Texts(tuple(domains), tuple(train), in_turns)


def _prompts(works: list[Work], encode: Encode, config: RefactorConfig, index: int) -> list[Passage]:
    """Half short, half long; where a domain has too little text its long ones are shorter."""
    for part in SHRUNK:
        long: Span = (max(round(part * config.long[0]), 1), max(round(part * config.long[1]), 1))
        sizes = lengths(config.prompts, config.short, long, (config.seed, index, 1))
        try:
            return cut(works, encode, sizes, (config.seed, index, 2))
        except InputError:
            if part == SHRUNK[-1]:
                raise
    raise AssertionError("the last part returns or raises")


def _of(works: Sequence[Work], domain: str, split: Split) -> list[Work]:
    return [work for work in works if work.domain == domain and work.split == split]


# ---- a user's own texts


def read_texts(path: Path) -> tuple[list[Work], tuple[str, ...]]:
    """Works and domains of a JSONL file: "text" and "domain" a line, and optionally "split", "source", "licence".

    Lines of one domain, source and split are one work, in their order. Without a split every fifth line of a domain
    is held out. Raises InputError naming every bad line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(str(path), f"cannot be read as UTF-8 text ({error})")) from error
    units: dict[tuple[str, str, str, Split], list[str]] = {}
    seen: dict[str, int] = {}
    problems = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _row(line)
        except ValueError as error:
            problems.append(Problem(f"{path}, line {number}", str(error)))
            continue
        domain = row["domain"]
        seen[domain] = seen.get(domain, 0) + 1
        drawn = "train" if seen[domain] % 5 else "held-out"
        split: Split = "train" if row.get("split", drawn) == "train" else "held-out"
        key = (domain, row.get("source", path.name), row.get("licence", "not stated"), split)
        units.setdefault(key, []).extend(_pieces(row["text"]))
    if len(seen) < 2 and not problems:
        problems.append(Problem(str(path), f"has {len(seen)} domains; experts need at least 2"))
    if problems:
        raise InputError(problems)
    works = [Work(d, s, licence, split, s, tuple(parts), "\n\n") for (d, s, licence, split), parts in units.items()]
    return works, tuple(seen)


def _row(line: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON ({error})") from error
    needed = [row.get(name) for name in ("text", "domain")] if isinstance(row, dict) else [None]
    if not all(isinstance(value, str) and value for value in needed):
        raise ValueError('must be an object with non-empty strings "text" and "domain"')
    if not all(isinstance(value, str) for value in row.values()):
        raise ValueError("holds a value that is no string")
    if any("\ud800" <= letter <= "\udfff" for value in row.values() for letter in value):
        raise ValueError("holds half of a surrogate pair, which is no text")
    if row.get("split", "train") not in ("train", "held-out"):
        raise ValueError(f'split is {row["split"]!r}; it must be "train" or "held-out"')
    return row


def _pieces(text: str) -> Iterator[str]:
    for part in filter(str.strip, text.split("\n\n")):
        yield from (part[at : at + PIECE] for at in range(0, len(part), PIECE))


# ---- prompts for a capture


def write_prompts(path: Path, texts: Texts, config: RefactorConfig) -> None:
    """The held-out prompts as JSONL, one object a line: ids, where they come from, and tokens to generate."""
    outputs = output_lengths(len(texts.prompts), config.output_mean, config.output, (config.seed, 3))
    with write_aside(path) as aside, open(aside, "w", encoding="utf-8") as file:
        for passage, output in zip(texts.prompts, outputs.tolist(), strict=True):
            row = {
                "ids": passage.ids.tolist(),
                "domain": passage.domain,
                "source": passage.source,
                "licence": passage.licence,
                "split": passage.split,
                "output": output,
            }
            file.write(json.dumps(row) + "\n")
