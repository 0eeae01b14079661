"""Prompts: a JSONL file with one object a line, and what a capture needs to know of each (docs/capture.md)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from moesim.errors import InputError, Problem, unknown
from moesim.files import write_aside

CONTINUATIONS = "continuations.jsonl"
EXPECTED = 'expected JSONL, one prompt a line: {"text": "..."} or {"ids": [...]}'
WORDS = ("domain", "source", "licence", "split", "continuation_by")
KEYS = ("text", "ids", *WORDS, "output", "continuation_ids")
SHOWN = 40  # mistakes that are told before the rest is only counted


@dataclass(frozen=True, slots=True)
class Prompt:
    """One sequence to capture: `ids` int32 [tokens], then at most `output` tokens, or those of `continuation`."""

    ids: np.ndarray
    output: int
    continuation: np.ndarray | None = None
    domain: str = "all"
    source: str = ""
    licence: str = ""
    split: str = ""
    continuation_by: str = ""
    line: int = 0

    @property
    def tokens(self) -> int:
        """Tokens of the prompt and at most of its output."""
        return len(self.ids) + self.output


@dataclass(frozen=True, slots=True)
class Limits:
    """What the model can take: ids below `vocabulary`, sequences of at most `longest` tokens (None: any)."""

    vocabulary: int
    longest: int | None = None


def read_prompts(
    path: Path, encode: Callable[[str], list[int]] | None, limits: Limits, *, output: int, first: int | None = None
) -> list[Prompt]:
    """The prompts of a file (of its `first` lines). `output` holds where a line does not say how many tokens to add.

    Raises InputError naming every wrong line.
    """
    problems: list[Problem] = []
    found: list[Prompt] = []
    for number, text in _lines(path):
        if first is not None and len(found) + len(problems) >= first:
            break
        place = f"{path}:{number}"
        entry, wrong = _entry(text)
        wrong = wrong or _entry_problems(entry)
        if not wrong:
            prompt, wrong = _prompt(entry, encode, limits, output, number)
            if prompt is not None:
                found.append(prompt)
        problems += [Problem(place, what) for what in wrong]
    if not found and not problems:
        problems.append(Problem(str(path), f"holds no prompts; {EXPECTED}"))
    if problems:
        rest = len(problems) - SHOWN
        more = [Problem(str(path), f"and {rest} more mistakes")] if rest > 0 else []
        raise InputError(problems[:SHOWN] + more)
    return found


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> None:
    """Write prompts as ids, with their continuations where they have one."""
    with write_aside(path) as aside, open(aside, "w", encoding="utf-8") as file:
        for prompt in prompts:
            entry: dict[str, Any] = {"ids": prompt.ids.tolist()}
            entry |= {word: getattr(prompt, word) for word in WORDS if getattr(prompt, word)}
            if prompt.continuation is None:
                entry["output"] = prompt.output
            else:
                entry["continuation_ids"] = prompt.continuation.tolist()
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def forced(prompts: Sequence[Prompt], path: Path, limits: Limits, first: int | None = None) -> list[Prompt]:
    """`prompts` with the continuations of another capture: its work folder, or a file of prompts with continuations.

    Raises InputError naming every sequence that is missing there or is another.
    """
    file = path / CONTINUATIONS if path.is_dir() else path
    others = read_prompts(file, None, limits, output=0, first=first)
    problems = []
    if len(others) != len(prompts):
        problems.append(Problem(str(file), f"has {len(others)} sequences; there are {len(prompts)} prompts"))
    for mine, other in zip(prompts, others, strict=False):
        place = f"{file}:{other.line}"
        if other.continuation is None:
            problems.append(Problem(place, "has no continuation_ids"))
        elif not np.array_equal(mine.ids, other.ids):
            problems.append(Problem(place, f"continues another prompt than line {mine.line} of the prompts"))
    if problems:
        raise InputError(problems[:SHOWN])
    return [
        replace(mine, continuation=other.continuation, output=other.output, continuation_by=other.continuation_by)
        for mine, other in zip(prompts, others, strict=True)
    ]


def digest(prompts: Iterable[Prompt]) -> str:
    """sha256 of everything in the prompts that decides a capture."""
    found = hashlib.sha256()
    for prompt in prompts:
        words = [prompt.output, *(getattr(prompt, word) for word in WORDS), prompt.continuation is not None]
        found.update(json.dumps(words).encode())
        for ids in (prompt.ids, prompt.continuation):
            found.update(b"none" if ids is None else len(ids).to_bytes(4, "little") + ids.tobytes())
    return found.hexdigest()


# ---- lines


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise InputError(Problem(str(path), f"{what}; {EXPECTED}"))
    try:
        data = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be read ({error.strerror}); {EXPECTED}")) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(Problem(f"{path}:{line}", f"is not UTF-8; {EXPECTED}")) from error
    for number, text in enumerate(data.split("\n"), 1):
        if text.strip():
            yield number, text


def _entry(text: str) -> tuple[dict[str, Any], list[str]]:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {}, [f"is not JSON ({error}); is the file truncated?"]
    if not isinstance(entry, dict):
        return {}, [f"holds {json.dumps(entry)[:40]}; {EXPECTED}"]
    return entry, []


def _entry_problems(entry: dict[str, Any]) -> list[str]:
    wrong = [unknown("key", key, KEYS) for key in entry if key not in KEYS]
    given = [key for key in ("text", "ids") if key in entry]
    if len(given) != 1:
        wrong.append(f"has {' and '.join(given) or 'neither text nor ids'}; expected one of text and ids")
    for key in ("text", *WORDS):
        if key in entry and not isinstance(entry[key], str):
            wrong.append(f"{key} is {json.dumps(entry[key])[:40]}; expected a string")
        elif key in entry and any("\ud800" <= letter <= "\udfff" for letter in entry[key]):
            wrong.append(f"{key} is {json.dumps(entry[key])[:40]}; it has half of a surrogate pair, which is no text")
    if entry.get("domain") == "":
        wrong.append("domain is empty; expected a name, or no domain")
    for key in ("ids", "continuation_ids"):
        if key in entry and not _are_ids(entry[key]):
            wrong.append(f"{key} is {json.dumps(entry[key])[:40]}; expected a list of token ids, whole numbers from 0")
    if "output" in entry and not (_is_count(entry["output"])):
        wrong.append(f"output is {json.dumps(entry['output'])[:40]}; expected a whole number of tokens from 0")
    return wrong


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _are_ids(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_count, value))


def _prompt(
    entry: dict[str, Any], encode: Callable[[str], list[int]] | None, limits: Limits, output: int, line: int
) -> tuple[Prompt | None, list[str]]:
    if "text" in entry and encode is None:
        return None, ["has text, but there is no tokenizer here; give ids"]
    ids = np.array(entry["ids"] if encode is None or "ids" in entry else encode(entry["text"]), np.int64)
    continuation = entry.get("continuation_ids")
    follow = None if continuation is None else np.array(continuation, np.int64)
    wrong = []
    if not len(ids):
        wrong.append("has no tokens; expected at least one")
    for name, values in (("ids", ids), ("continuation_ids", follow)):
        if values is not None and len(values) and values.max() >= limits.vocabulary:
            wrong.append(f"{name} has token {values.max()}; the model's vocabulary ends at {limits.vocabulary - 1}")
    asked = entry.get("output", output if follow is None else len(follow))
    if follow is not None and asked != len(follow):
        wrong.append(f"output is {asked}, but continuation_ids has {len(follow)} tokens")
    if limits.longest is not None and len(ids) + asked > limits.longest:
        wrong.append(f"{len(ids)} + {asked} tokens are too long; the model takes {limits.longest}")
    if wrong:
        return None, wrong
    words = {word: entry[word] for word in WORDS if word in entry}
    kept = None if follow is None else follow.astype(np.int32)
    return Prompt(ids.astype(np.int32), asked, kept, **words, line=line), []
