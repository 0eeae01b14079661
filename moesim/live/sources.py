"""Readers of the text files the experts are made from: each gives works, and a work is a list of natural units."""

from __future__ import annotations

import gzip
import html
import json
import re
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

Work = tuple[str, list[str]]  # name, units in reading order

SKIPPED = {"site-packages", "test", "tests", "__pycache__", "encodings", "pydoc_data", "idlelib", "lib2to3"}
GENESIS_ENCODING = {"portuguese": "utf-8", "swedish": "cp850"}


def python_library(_: Path) -> Iterator[Work]:
    """Modules of the running Python's standard library; a unit is a top-level block (two blank lines part them)."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if not SKIPPED & set(inside.parts):
            yield inside.as_posix(), _units(path.read_text(encoding="utf-8", errors="replace"), r"\n\n\n+")


def humaneval(path: Path) -> Iterator[Work]:
    """Programming problems with their solutions, one unit each; two works, as all languages have the same ones."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        units = [(row["prompt"] + row["canonical_solution"]).strip("\n") for row in map(json.loads, lines)]
    half = len(units) // 2
    yield "first half", units[:half]
    yield "second half", units[half:]


def gsm8k(path: Path) -> Iterator[Work]:
    """Word problems with worked answers, one unit each; the calculator marks <<...>> are left out."""
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    yield path.name, [f"Question: {row['question']}\nAnswer: " + re.sub(r"<<.*?>>", "", row["answer"]) for row in rows]


def schema_dialogues(path: Path) -> Iterator[Work]:
    """Task dialogues of DSTC8, one unit each."""
    dialogues = json.loads(path.read_text(encoding="utf-8"))
    yield path.name, ["\n".join(f"{t['speaker'].title()}: {t['utterance']}" for t in d["turns"]) for d in dialogues]


def task_dialogues(path: Path) -> Iterator[Work]:
    """Task dialogues of Taskmaster, one unit each."""
    dialogues = json.loads(path.read_text(encoding="utf-8"))
    yield path.name, ["\n".join(f"{t['speaker'].title()}: {t['text']}" for t in d["utterances"]) for d in dialogues]


def articles(path: Path) -> Iterator[Work]:
    """Articles of XQuAD: a unit is a paragraph, or the questions and answers about it."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        units = []
        for paragraph in article["paragraphs"]:
            asked = [f"Q: {qa['question']}\nA: {qa['answers'][0]['text']}" for qa in paragraph["qas"]]
            units += [paragraph["context"].strip("\ufeff"), "\n".join(asked)]
        yield article["title"], units


def speeches(path: Path) -> Iterator[Work]:
    """Speeches of an archive of text files; a unit is a paragraph."""
    for name, text in _archive(path, "latin-1"):
        yield name, _units(text, r"\n+")


def genesis(path: Path) -> Iterator[Work]:
    """Genesis in several languages; a unit is about a verse group (eight lines)."""
    for name, text in _archive(path, ""):
        lines = [line.strip() for line in html.unescape(text).splitlines() if line.strip()]
        yield name, ["\n".join(lines[at : at + 8]) for at in range(0, len(lines), 8)]


def plays(path: Path) -> Iterator[Work]:
    """Plays of an archive of XML files; a unit is one speech."""
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".xml"):
                root = ElementTree.fromstring(archive.read(name))
                yield Path(name).stem, ["\n".join(_speech(node)) for node in root.iter("SPEECH")]


def script(path: Path) -> Iterator[Work]:
    """One text file of a play; a unit is one speech."""
    yield path.name, _units(path.read_text(encoding="utf-8"), r"\n\n+")


def _speech(node: ElementTree.Element) -> list[str]:
    speakers = " and ".join("".join(s.itertext()).strip().title() for s in node.findall("SPEAKER"))
    return [f"{speakers}:", *("".join(line.itertext()).strip() for line in node.findall("LINE"))]


def _archive(path: Path, encoding: str) -> Iterator[tuple[str, str]]:
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            stem = Path(name).stem
            if name.endswith(".txt"):
                yield stem, archive.read(name).decode(encoding or GENESIS_ENCODING.get(stem, "latin-1"))


def _units(text: str, separator: str) -> list[str]:
    return [part.strip("\n") for part in re.split(separator, text) if part.strip()]
