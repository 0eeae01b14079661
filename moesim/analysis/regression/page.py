"""One HTML page that says what changed, which needs neither scripts nor a network; its figures as PNG."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from moesim.analysis.regression import figures, words
from moesim.analysis.regression.numbers import Change, Verdict
from moesim.analysis.regression.rules import meaning
from moesim.analysis.report import pictures
from moesim.analysis.report.asked import labelled
from moesim.analysis.report.configuration import yaml
from moesim.analysis.report.html import Html, join, tag
from moesim.analysis.report.page import SHEET
from moesim.files import write_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = Mapping[str, Mapping[str, Html]]
OWN = Path(__file__).with_name("regression.css")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the page is of: the regression file, the command that makes the page again, where baselines are."""

    file: str
    command: str
    baselines: str
    version: str


def draw(verdict: Verdict, folder: Path) -> dict[str, Html]:
    """Write the plots of an experiment into a folder; what the page has of them, by metric ("": of all metrics)."""
    import matplotlib

    found: dict[str, Html] = {}
    with matplotlib.rc_context(pictures.STYLE):
        if (whole := figures.overview(verdict)) is not None:
            found[""] = _drawn(whole, words.plot_of(verdict.name), folder)
        for metric, changes in verdict.changed().items():
            drawn = figures.closeup(verdict, metric, changes)
            found[metric] = _drawn(drawn, words.plot_of(verdict.name, metric), folder)
    return found


def _drawn(figure: Figure, name: str, folder: Path) -> Html:
    with write_aside(folder / name) as aside:
        figure.savefig(aside, format="png", dpi=150, metadata={"Software": None})
    return pictures.picture(name.removesuffix(".png"), figure, titled=False)


def render(verdicts: Sequence[Verdict], drawn: Drawn, asked: Asked) -> str:
    """The page. `drawn`: experiment -> what `draw` gave."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{'same' if _passed(verdicts) else 'CHANGED'} · moesim regress"),
        tag("style", Html("\n".join(sheet.read_text(encoding="utf-8") for sheet in (SHEET, OWN)))),
    )
    body = tag("body", tag("main", *_parts(verdicts, drawn, asked)))
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _passed(verdicts: Iterable[Verdict]) -> bool:
    return all(verdict.passed for verdict in verdicts)


def _parts(verdicts: Sequence[Verdict], drawn: Drawn, asked: Asked) -> list[Html]:
    red = [verdict for verdict in verdicts if not verdict.passed]
    ordered = [*red, *(verdict for verdict in verdicts if verdict.passed)]
    sections = [_section("In short", "in-short", _table(verdicts), _in_short(red))]
    if red:
        sections.append(_section("What to do", "to-do", _to_do(red, asked)))
    for verdict in ordered:
        content = _experiment(verdict, drawn.get(verdict.name, {}))
        sections.append(_section(verdict.name, f"of-{verdict.name}", *content))
    sections += [_section("What is compared", "metrics", _metrics(verdicts))]
    if facts := _facts(verdicts):
        sections.append(_section("What it is of", "what", *facts))
    return [_head(verdicts, asked), *sections]


def _section(title: str, name: str, *content: Html) -> Html:
    return tag("section", tag("h2", title), *content, id=name)


def _head(verdicts: Sequence[Verdict], asked: Asked) -> Html:
    passed = _passed(verdicts)
    return tag(
        "header",
        tag("p", "moesim · regress", class_="kind"),
        tag("h1", words.headline(verdicts)),
        tag("p", _note(verdicts), class_=f"verdict {'same' if passed else 'changed'}"),
        tag("p", f"{asked.file} against the baselines in {asked.baselines} · moesim {asked.version}", class_="made"),
        tag("pre", tag("code", "$ ", asked.command), class_="command"),
    )


def _note(verdicts: Sequence[Verdict]) -> str:
    """What red or green means here."""
    if _passed(verdicts):
        return "Every number is what it was when somebody looked at it last."
    if any(verdict.changes for verdict in verdicts):
        return "The same experiments, run with the program as it is now, give other numbers than were committed."
    if any(verdict.failed for verdict in verdicts):
        return "Runs failed, so that there are no numbers to compare with those that were committed."
    return "What is committed is not of the runs that are made now; no number that both have has changed."


def _in_short(red: Sequence[Verdict]) -> Html:
    """A few lines for each experiment that differs; what moved in which run stands in its section."""
    items = []
    for verdict in red:
        notes = [tag("li", _nice(line)) for line in words.notes_of(verdict)]
        said = f": {words.in_all(verdict)}. " if verdict.changes else ""
        found = [join(tag("code", m), " ", _nice(words.moved(some))) for m, some in verdict.changed().items()]
        metrics = [join(*found, between=", "), Html(".")] if found else []
        name = tag("a", verdict.name, href=f"#of-{verdict.name}")
        items.append(tag("li", name, said, *metrics, *[tag("ul", *notes)] * bool(notes)))
    return tag("ul", *items, class_="findings") if items else Html()


def _table(verdicts: Sequence[Verdict]) -> Html:
    heads = ("experiment", "runs", "metrics", "numbers compared", "changed", "other differences", "result")
    rows = []
    for v in verdicts:
        numbers = len(v.compared) * len(v.metrics)
        cells = [len(v.now.runs) if v.now else 0, len(v.rules), numbers, len(v.changes), len(v.notes)]
        word, look = ("same", "measured") if v.passed else ("CHANGED", "estimated")  # green and red of the style sheet
        badge = tag("strong", word, class_=f"label {look}")
        name = tag("th", tag("a", v.name, href=f"#of-{v.name}"), scope="row")
        rows.append(tag("tr", name, *(tag("td", f"{cell:,}") for cell in cells), tag("td", badge)))
    head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in heads)))
    return tag("div", tag("table", head, tag("tbody", *rows)), class_="scroll")


def _to_do(red: Sequence[Verdict], asked: Asked) -> Html:
    meant = join(
        "If the change is meant: run ",
        tag("code", f"{asked.command} --update"),
        f", look at the diff of {asked.baselines} and commit it with what caused it. The numbers as they are now lie "
        "beside this page, in the folder ",
        tag("code", "now"),
        "; copied over the baselines they do the same.",
    )
    other = (
        "If it is not meant: what the runs that changed have in common says where to look. A single policy: its file. "
        "Every run: the simulator, or an input (a changed trace or cost table is named above)."
    )
    broken = join(
        "Where the runs failed, the end of the traceback is below, under the experiment's name: a policy's file or the "
        "simulator. Mend that first; ",
        tag("code", "--update"),
        " writes nothing while runs fail.",
    )
    items = [broken] * any(v.failed for v in red)
    items += [join(other)] * any(v.changes for v in red) + [meant] * all(not v.failed for v in red)
    return tag("ul", *(tag("li", item) for item in items))


def _experiment(verdict: Verdict, drawn: Mapping[str, Html]) -> list[Html]:
    about = [tag("p", verdict.about)] if verdict.about else []
    notes = [tag("ul", *(tag("li", _nice(line)) for line in words.notes_of(verdict)))] if verdict.notes else []
    failed = [tag("pre", tag("code", verdict.trace))] if verdict.trace else []
    parts = [*about, *notes, *failed]
    if verdict.passed and verdict.compared:
        size = f"{len(verdict.compared):,} runs, {len(verdict.metrics)} metrics"
        parts.append(tag("p", f"{size}: all as their baselines."))
    if (whole := drawn.get("")) is not None:
        summary = tag("summary", "Every metric of every run")
        parts.append(tag("details", summary, whole, open=bool(verdict.changes)))
    for metric, changes in verdict.changed().items():
        told = tag("p", tag("code", metric), " ", _nice(words.of_metric(verdict, metric, changes)), ".")
        parts += [tag("h3", metric), tag("p", _sentence(meaning(metric))), told, drawn.get(metric, Html())]
        parts.append(_numbers(verdict, metric, changes))
    return parts


def _nice(text: str) -> str:
    """Arrows, and no line break between a number and its percent sign."""
    return text.replace("->", "→").replace(" %", "\N{NO-BREAK SPACE}%")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _numbers(verdict: Verdict, metric: str, changes: Sequence[Change]) -> Html:
    """Every number that changed in a metric."""
    rows = []
    for change in changes:
        less = change.after < change.before
        cells = [tag("td", words.number(change.before)), tag("td", words.number(change.after))]
        cells.append(tag("td", words.percent(change.relative), class_="fewer" if less else "greater"))
        if verdict.rules[metric].kind == "interval":
            cells.append(tag("td", f"{words.percent(change.low)} to {words.percent(change.high)}"))
        rows.append(tag("tr", tag("th", words.run_words(change.run, verdict), scope="row"), *cells))
    heads = ["run", "baseline", "now", "change"] + ["95 % interval"] * (verdict.rules[metric].kind == "interval")
    head = tag("thead", tag("tr", *(tag("th", text, scope="col") for text in heads)))
    table = tag("div", tag("table", head, tag("tbody", *rows)), class_="scroll")
    summary = tag("summary", f"Numbers: {metric}, {len(changes):,} changed")
    return tag("details", summary, table, class_="table")


def _metrics(verdicts: Sequence[Verdict]) -> Html:
    rules: dict[str, dict[str, None]] = {}
    for verdict in verdicts:
        for metric, rule in verdict.rules.items():
            rules.setdefault(metric, {})[rule.words] = None
    pairs = (
        join(tag("dt", tag("code", m)), tag("dd", f"{_sentence(meaning(m))} It passes if: {'; or '.join(found)}."))
        for m, found in rules.items()
    )
    return tag("dl", *pairs, class_="facts")


def _facts(verdicts: Sequence[Verdict]) -> list[Html]:
    """Labels, inputs with their digests, settings."""
    labels = dict.fromkeys(label for verdict in verdicts for label in verdict.labels)
    pairs = [join(tag("dt", "label"), *(tag("dd", *labelled(label)) for label in labels))] if labels else []
    digests = dict.fromkeys(pair for v in verdicts if v.now for pair in v.now.inputs.items())
    if digests:
        shown = (tag("dd", name, " ", tag("code", digest[:12])) for name, digest in digests)
        pairs.append(join(tag("dt", "inputs, sha256"), *shown))
    folded = [
        tag("details", tag("summary", f"Settings of {v.name}"), tag("pre", tag("code", yaml(dict(v.now.settings)))))
        for v in verdicts
        if v.now
    ]
    return [*([tag("dl", *pairs, class_="facts")] if pairs else ()), *folded]
