"""Seven domains of text, equally weighted; training and held-out texts come from different works."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from moesim.errors import InputError, Problem
from moesim.live import sources

Split = Literal["train", "held-out"]
DOMAINS = ("code", "maths", "dialogue", "literature", "speeches", "encyclopedia", "other languages")
EXPECTED = "expected the folder of development data that SOURCES.md lists"


@dataclass(frozen=True, slots=True)
class Work:
    """One text: `units` are its natural parts in order (paragraphs, problems, dialogues), joined by `joint`."""

    domain: str
    source: str
    licence: str
    split: Split
    name: str
    units: tuple[str, ...]
    joint: str


@dataclass(frozen=True, slots=True)
class Source:
    """One file (or the standard library) and how its works are split; `split` gets a work's name and index."""

    domain: str
    name: str
    licence: str
    file: str
    read: Callable[[Path], Iterator[sources.Work]]
    split: Callable[[str, int], Split | None]
    joint: str = "\n\n"


def _always(split: Split) -> Callable[[str, int], Split]:
    return lambda name, index: split


def _by_name(name: str, index: int) -> Split:
    return "held-out" if zlib.crc32(name.split("/")[0].encode()) % 2 else "train"


def _before(year: str) -> Callable[[str, int], Split]:
    return lambda name, index: "train" if name[:4] < year else "held-out"


def _named(train: Iterable[str], held: Iterable[str]) -> Callable[[str, int], Split | None]:
    known: dict[str, Split] = {**dict.fromkeys(train, "train"), **dict.fromkeys(held, "held-out")}
    return lambda name, index: known.get(name)


def _articles(name: str, index: int) -> Split:
    return "train" if index < 24 else "held-out"


def _table() -> Iterator[Source]:
    yield Source("code", "Python standard library", "PSF-2.0", "", sources.python_library, _by_name, "\n\n\n")
    for language in ("java", "js", "python", "cpp", "go", "rust"):
        learn = language in ("java", "js", "python")
        split = _named(("first half",), ()) if learn else _named((), ("second half",))
        file = f"humaneval_x/humaneval_{language}.jsonl.gz"
        yield Source("code", f"HumanEval-X {language}", "Apache-2.0", file, sources.humaneval, split)
    yield Source("maths", "GSM8K train", "MIT", "gsm8k/train.jsonl", sources.gsm8k, _always("train"))
    yield Source("maths", "GSM8K test", "MIT", "gsm8k/test.jsonl", sources.gsm8k, _always("held-out"))
    for number in (1, 2, 3, 4):
        split = _always("train" if number < 4 else "held-out")
        file = f"dstc8_sgd/dialogues_00{number}.json"
        yield Source("dialogue", f"DSTC8 SGD dev {number}", "CC-BY-SA-4.0", file, sources.schema_dialogues, split)
    file = "taskmaster4/data_07.json"
    yield Source("dialogue", "Taskmaster-4", "CC-BY-4.0", file, sources.task_dialogues, _always("held-out"))
    file = "tinyshakespeare/input.txt"
    yield Source("literature", "Tiny Shakespeare", "public domain", file, sources.script, _always("train"))
    # Romeo and Juliet is left out: Tiny Shakespeare holds it already.
    chosen = _named(("a_and_c", "j_caesar", "merchant"), ("dream", "hamlet", "macbeth", "othello"))
    file = "nltk_public_domain/shakespeare.zip"
    yield Source("literature", "Shakespeare plays (NLTK)", "public domain", file, sources.plays, chosen)
    file = "nltk_public_domain/state_union.zip"
    yield Source("speeches", "State of the Union (NLTK)", "public domain", file, sources.speeches, _before("1990"))
    file = "nltk_public_domain/inaugural.zip"
    yield Source("speeches", "Inaugural addresses (NLTK)", "public domain", file, sources.speeches, _before("1937"))
    file = "xquad/xquad.en.json"
    yield Source("encyclopedia", "XQuAD en", "CC-BY-SA-4.0", file, sources.articles, _articles)
    for code in ("de", "es", "ru", "zh"):
        file = f"xquad/xquad.{code}.json"
        yield Source("other languages", f"XQuAD {code}", "CC-BY-SA-4.0", file, sources.articles, _articles)
    chosen = _named(("finnish", "french"), ("german", "portuguese", "swedish"))
    file = "nltk_public_domain/genesis.zip"
    yield Source("other languages", "Genesis (NLTK)", "public domain", file, sources.genesis, chosen, "\n")


def load_works(data: Path) -> list[Work]:
    """All works of all domains. Raises InputError naming every missing or unreadable file."""
    if not data.is_dir():
        raise InputError(Problem(str(data), f"there is no such folder; {EXPECTED}"))
    works: list[Work] = []
    table = list(_table())
    missing = [data / source.file for source in table if not (data / source.file).exists()]
    problems = [Problem(str(path), f"there is no such file; {EXPECTED}") for path in missing]
    for source in () if problems else table:
        try:
            works += _works(source, data)
        except (OSError, ValueError, KeyError) as error:
            problems.append(Problem(str(data / source.file), f"cannot be read ({error}); {EXPECTED}"))
    if problems:
        raise InputError(problems)
    return works


def _works(source: Source, data: Path) -> Iterator[Work]:
    for index, (name, units) in enumerate(source.read(data / source.file)):
        split = source.split(name, index)
        if split and units:
            yield Work(source.domain, source.name, source.licence, split, name, tuple(units), source.joint)
