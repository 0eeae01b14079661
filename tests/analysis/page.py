"""Reads a report as a browser would: its elements, the numbers in it, and what is wrong with its form."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from moesim.analysis.report.html import VOID


@dataclass
class Element:
    """An element with its attributes and what is in it."""

    name: str
    attributes: dict[str, str]
    parent: Element | None = None
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def find(self, name: str) -> list[Element]:
        """All elements of a name in it, in order."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                found += [child] * (child.name == name) + child.find(name)
        return found

    def around(self, attribute: str) -> str:
        """The attribute of the nearest element around that has it."""
        at: Element | None = self
        while at is not None and attribute not in at.attributes:
            at = at.parent
        return "" if at is None else at.attributes[attribute]

    @property
    def prose(self) -> str:
        """Its text without numbers that say where they come from, names of policies, pictures and code."""
        left_out = ("data", "svg", "code", "title", "style", "abbr")
        if self.name in left_out or "policy" in self.attributes.get("class", ""):
            return ""
        return "".join(child if isinstance(child, str) else child.prose for child in self.children)


class Page(HTMLParser):
    """The tree of a page; `wrong` lists elements that are closed out of order, attributes and ids that come twice."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.at = Element("", {})
        self.wrong: list[str] = []
        self.ids: set[str] = set()
        self.references: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()
        if self.at is not self.root:
            self.wrong.append(f"<{self.at.name}> is never closed")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        if len(given) != len(attrs):
            self.wrong.append(f"<{tag}> has an attribute twice: {attrs}")
        self.attributes += [(tag, key, value) for key, value in given.items()]
        if given.get("id") in self.ids:
            self.wrong.append(f"id {given['id']} comes twice")
        self.ids |= {given["id"]} if "id" in given else set()
        self.references |= {value[1:] for key, value in given.items() if key == "href"}
        self.references |= {v.partition("url(#")[2].partition(")")[0] for v in given.values() if "url(#" in v}
        element = Element(tag, given, self.at)
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag != self.at.name or self.at.parent is None:
            self.wrong.append(f"</{tag}> closes <{self.at.name}>")
        else:
            self.at = self.at.parent

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)

    def find(self, name: str) -> list[Element]:
        return self.root.find(name)
