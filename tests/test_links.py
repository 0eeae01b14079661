"""Every link between files of the repository, in any Markdown file: the file is there, and so is the heading."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[1]
LEFT_OUT = {"results", "site", "build", "dist", "node_modules"}


def markdown_files() -> list[Path]:
    """Those of the repository, and not those that runs and tools write."""
    found = [path.relative_to(ROOT) for path in ROOT.rglob("*.md")]
    return sorted(p for p in found if not LEFT_OUT & set(p.parts) and not any(part[0] == "." for part in p.parts))


@cache
def tokens(path: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8"))


@cache
def anchors(path: Path) -> set[str]:
    """Of the headings of a file, as code hosts make them."""
    found: set[str] = set()
    parsed = tokens(path)
    for at, token in enumerate(parsed):
        if token.type == "heading_open":
            inside = parsed[at + 1].children or []
            text = "".join(part.content for part in inside if part.type in ("text", "code_inline"))
            slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
            found.add(next(name for name in numbered(slug) if name not in found))
    return found


def numbered(slug: str) -> Iterator[str]:
    yield slug
    for number in range(1, 1000):
        yield f"{slug}-{number}"


def links(path: Path) -> list[str]:
    """Where the links and pictures of a file lead."""
    inline = [part for token in tokens(path) for part in token.children or ()]
    found = [part.attrGet("href") or part.attrGet("src") for part in inline if part.type in ("link_open", "image")]
    return [str(target) for target in found if target]


def wrong(path: Path) -> list[str]:
    """Links that lead nowhere, and what is wrong with them."""
    found = []
    for target in links(path):
        name, _, anchor = target.partition("#")
        if re.match(r"\w+:", name):
            continue
        there = path.parent / name if name else path
        if name.startswith("/"):
            found.append(f"{target}: is absolute")
        elif not there.exists():
            found.append(f"{target}: there is no such file")
        elif anchor and there.suffix == ".md" and anchor not in anchors(there):
            found.append(f"{target}: no such heading; there is {', '.join(sorted(anchors(there)))}")
    return found


def test_there_is_markdown() -> None:
    names = {str(path) for path in markdown_files()}
    assert {"README.md", "docs/index.md", "experiments/README.md", "traces/README.md"} <= names
    assert sum(len(links(ROOT / name)) for name in names) > 100


@pytest.mark.parametrize("name", markdown_files(), ids=str)
def test_links_lead_somewhere(name: Path) -> None:
    assert not wrong(ROOT / name)


def test_what_is_wrong_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One, two\n\n## A `b_c` - d\n\n## One, two\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[ok](other.md) [ok](other.md#one-two) [ok](other.md#a-b_c---d) [ok](other.md#one-two-1) [ok](#here)\n"
        "[ok](https://example.org/x#y) `[code](nothing.md)`\n\n```\n[code](nothing.md)\n```\n\n"
        "| [a](nothing.md) |\n| --- |\n| ![b](no.png) |\n\n[c](other.md#three) [d](#there) [e](/other.md)\n"
    )
    assert [text.split(":")[0] for text in wrong(page)] == [
        "nothing.md", "no.png", "other.md#three", "#there", "/other.md"
    ]  # fmt: skip
