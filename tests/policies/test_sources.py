"""Every shipped policy's docstring says where its rule comes from: paper and section, or that there is none."""

from __future__ import annotations

import inspect
import re

import pytest

from moesim import policy
from moesim.policy.catalogue import description, entries, source

CITED = re.compile(r"\b(sections? \d|Algorithm \d|figure \d|no section|section not known)")
SHIPPED = [(kind, name) for kind in policy.KINDS for name in policy.names(kind)]


def unplaced(text: str) -> list[str]:
    """The sources among `text` (between semicolons) that name neither a section nor that there is none."""
    parts = re.split(r";(?![^(]*\))", text)
    return [part.strip() for part in parts if not CITED.search(part)]


def test_a_source_without_its_section_is_found() -> None:
    assert unplaced("Fate (2502.12224)") == ["Fate (2502.12224)"]
    assert unplaced("HOBBIT (2411.01433), section 3.4; QMoE (2310.16795)") == ["QMoE (2310.16795)"]
    assert unplaced("") == [""]
    assert unplaced("Yang et al., SOSP 2023, Algorithm 1; libCacheSim (code, no section; as of 2024)") == []


@pytest.mark.parametrize(("kind", "name"), SHIPPED, ids=lambda word: word)
def test_the_docstring_names_paper_and_section(kind: str, name: str) -> None:
    cls = policy.find(kind, name)
    last = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[-1]
    assert last.startswith("Source: ") and last.endswith(".")
    said = " ".join(last.removeprefix("Source: ").split()).removesuffix(".")
    assert unplaced(said) == []
    assert source(cls) == said and "source" not in vars(cls), "said once, in the docstring"
    assert description(cls) and "Source:" not in description(cls)


def test_none_is_left_out() -> None:
    found, problems = entries()
    assert not problems and [(entry.kind, entry.name) for entry in found] == SHIPPED
    assert len(SHIPPED) >= 43 and all(entry.source for entry in found)


def test_a_policy_of_the_user_may_say_it_either_way() -> None:
    class Attribute(policy.CachePolicy):
        """Evict something."""

        source = "ours"

    class Paragraph(policy.CachePolicy):
        """Evict something.

        Source: a paper,
        section 2.
        """

    class Neither(policy.CachePolicy):
        """Evict something. The Source: none."""

    assert [source(cls) for cls in (Attribute, Paragraph, Neither)] == ["ours", "a paper, section 2", ""]
    assert description(Paragraph) == "Evict something."
