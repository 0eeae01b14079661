"""The report of a results folder: one HTML page that needs nothing else, neither scripts nor a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moesim.analysis import measured, plots
from moesim.analysis.configurations import Configuration, oracle_is_no_bound, read
from moesim.analysis.layout import DOT
from moesim.analysis.naming import Set, distinctions, heading, sets, usual_words
from moesim.analysis.report import asked, configuration, pictures, tables, words
from moesim.analysis.report.html import Html, join, tag
from moesim.analysis.report.words import Group

SHEET = Path(__file__).with_name("report.css")
OPEN = 60
"""rows of a table that is not folded"""


def render(results: Any) -> str:
    """The page of some results, which have `summary`, `resolved` (of resolved.yaml) and `record` (of run.json)."""
    configurations = read(results.summary)
    found = sets(configurations)
    title = results.resolved["points"][0]["experiment"]["name"]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · moesim report"),
        tag("style", Html(SHEET.read_text(encoding="utf-8"))),
    )
    body = tag("body", tag("main", *_parts(configurations, found, results)))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _parts(configurations: Sequence[Configuration], found: dict[Set, list[Configuration]], results: Any) -> list[Html]:
    resolved: Mapping[str, Any] = results.resolved
    points = resolved["points"]
    titles = {key: DOT.join(distinctions(key, list(found))) for key in found}
    groups = {key: words.groups_of(members) for key, members in found.items()}
    alone = sets(plots.by_themselves(configurations))
    in_short = _in_short(titles, groups)
    sections = {"in-short": ("In short", in_short)} if in_short else {}
    if sum(map(len, groups.values())) > 1:
        one_load = {key: members for key, members in alone.items() if not any(g.largest for g in groups[key])}
        table = tables.overview({titles[key]: groups[key] for key in found})
        sections["overview"] = ("Overview", [table, *filter(None, [pictures.across(one_load)])])
    if over_loads := pictures.over_loads(configurations):
        sections["loads"] = ("Over the load", over_loads)
    if along_memory := pictures.along_memory(alone):
        sections["memory"] = ("Over memory", along_memory)
    for number, (key, members) in enumerate(found.items(), 1):
        name = titles[key] or "Policies"
        drawn = pictures.of_set(key, list(found), members) if key in alone else []
        folded = len(configurations) > OPEN
        sections[f"set-{number}"] = (name, _set(key, list(found), groups[key], drawn, folded))
    sections["what"] = ("What it is of", [asked.facts(configurations, points), *_notes(configurations, list(found))])
    sections["marks"] = ("How to read it", [_marks()])
    sections["configuration"] = ("Resolved configuration", [configuration.shown(resolved)])
    return [
        asked.head(points, results.record, len(results.summary)),
        *filter(None, [asked.warning(configurations)]),
        *(tag("p", text, class_="warning") for text in measured.warnings(configurations)),
        _contents(sections) if len(found) > 1 else Html(),
        *(tag("section", tag("h2", title), *content, id=name) for name, (title, content) in sections.items()),
    ]


def _contents(sections: Mapping[str, tuple[str, Any]]) -> Html:
    links = (tag("li", tag("a", title, href=f"#{name}")) for name, (title, _) in sections.items())
    return tag("nav", tag("ul", *links), aria_label="contents")


def _in_short(titles: Mapping[Set, str], groups: Mapping[Set, list[Group]]) -> list[Html]:
    said = [words.of_set(title, groups[key]) for key, title in titles.items()]
    lines = [line for line in said if line is not None]
    everything = words.in_short([group for members in groups.values() for group in members])
    return [*everything, *([tag("ul", *lines, class_="findings")] if lines else [])]


def _set(
    key: Set, keys: Sequence[Set], groups: Sequence[Group], drawn: Sequence[Html], fold: bool
) -> list[Html]:
    """Words, figures and the table of a set; the table is folded where the page would be too long to read."""
    members = [c for group in groups for c in group.members]
    more = [word for word in heading(key, keys) if word not in distinctions(key, keys)]
    more += ["an oracle is not a bound here"] * oracle_is_no_bound(members)
    note = [tag("p", DOT.join(more), class_="made")] if more else []
    most = max(len(c.units) for c in members)
    caption = f"Means over {most} replications, with 95 % intervals." if most > 1 else "One replication: no intervals."
    table = tables.of_set(groups, caption)
    parts = [*note, *(words.of_group(group) for group in groups), *_reversals(groups)]
    summary = tag("summary", f"Table: all {len(members)} configurations")
    shown = tag("details", summary, table, class_="table", open=not fold)
    return [*parts, *drawn, shown]


def _reversals(groups: Sequence[Group]) -> list[Html]:
    found = [line for group in groups for line in words.reversals(group)]
    if not found:
        return []
    return [tag("p", "Fewer misses and yet more time, both shown by paired intervals:"), tag("ul", *found)]


def _notes(configurations: Sequence[Configuration], keys: Sequence[Set]) -> list[Html]:
    lines = "\n".join(measured.notes(configurations)).replace("\n  ", " ").split("\n")  # indented ones go on
    notes = [note for note in (*lines, usual_words(keys)) if note]
    return [tag("p", f"{note[:1].upper()}{note[1:]}.") for note in notes]


def _marks() -> Html:
    return tag("dl", *(join(tag("dt", mark), tag("dd", meaning)) for mark, meaning in tables.MARKS), class_="facts")
