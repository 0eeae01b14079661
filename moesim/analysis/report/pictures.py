"""The figures as inline SVG: text as text, colours that a dark page replaces, no names that two figures share."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from moesim.analysis import plots
from moesim.analysis.configurations import Configuration
from moesim.analysis.naming import Set
from moesim.analysis.report.asked import labelled
from moesim.analysis.report.html import Html, tag

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = plots.STYLE | {
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # the style sheet names fonts of the same width beside it
}
CAPTIONS = 0.75  # inches that titles and notes take, which stand in the caption
INKS = {
    "#000000": "ink",
    "#444444": "soft",
    "#e5e5e5": "grid",
    "#cccccc": "grid",
    "#dddddd": "idle",
    "#ffffff": "paper",
    "#0072b2": "blue",
    "#56b4e9": "sky",
    "#009e73": "green",
    "#d55e00": "vermilion",
    "#7f4f24": "brown",
    "#5e3c99": "violet",
    "#1b7837": "forest",
    "#762a83": "plum",
    "#b2182b": "crimson",
}
"""colours that look otherwise on a dark page: names of the style sheet's variables"""


def across(found: dict[Set, list[Configuration]]) -> Html | None:
    """The figure of all sets beside each other."""
    return next(_drawn(iter([plots.across(found)])), None) if len(found) > 1 else None


def over_loads(configurations: Sequence[Configuration]) -> list[Html]:
    """The figures against the load, and of the largest load that was found."""
    return list(_drawn(plots.over_loads(configurations), titled=True))


def along_memory(found: dict[Set, list[Configuration]]) -> list[Html]:
    """The figures against sizes of memory."""
    return list(_drawn(plots.along_memory(found), titled=True))


def of_set(key: Set, keys: Sequence[Set], members: Sequence[Configuration]) -> list[Html]:
    """The figures of one set."""
    return list(_drawn(plots.of_set(key, keys, members)))


def _drawn(figures: Iterator[tuple[str, Figure | None, str]], titled: bool = False) -> Iterator[Html]:
    import matplotlib

    with matplotlib.rc_context(STYLE):
        for name, figure, _ in figures:
            if figure is not None:
                yield picture(name, figure, titled)


def picture(name: str, figure: Figure, titled: bool) -> Html:
    """A figure with its caption; what it says of itself in its label is the caption, in place of titles and notes."""
    title, below, *more = str(figure.get_label()).split("\n")
    figure.suptitle("", in_layout=False)
    figure.supxlabel("", in_layout=False)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height - CAPTIONS)
    said = " ".join(f"{text[:1].upper()}{text[1:]}." for text in (below, *more))
    caption = tag("figcaption", *[tag("b", title), ". "] * titled, *labelled(said))
    return tag("figure", caption, tag("div", inline(figure, name, f"{title}: {below}"), class_="scroll"))


def inline(figure: Figure, name: str, title: str) -> Html:
    """The figure as an `<svg>` element that scales, `name` in front of its ids."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    text = buffer.getvalue()
    body = text[text.index("<defs>") : text.rindex("</svg>")]
    width, height = figure.get_size_inches() * 72
    attributes: dict[str, Any] = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "role": "img", "aria-label": title}
    return tag("svg", Html(_slim(_unshared(body, name))), style=f"--width:{width:.0f}", **attributes)


def _unshared(body: str, name: str) -> str:
    """Ids that nothing refers to leave, the others get the figure's name."""
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))

    def kept(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in used else ""

    body = re.sub(r' id="([^"]+)"', kept, body)
    return re.sub(r'(xlink:href="#|url\(#)', lambda match: f"{match[1].removeprefix('xlink:')}{name}-", body)


def _slim(body: str) -> str:
    """Hundredths of a point are enough; the page's colours and fonts; no white space between elements."""
    body = re.sub(r"<style.*?</style>|<!--.*?-->|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"(\d\.\d\d)\d+", r"\1", body)
    body = re.sub(r"#[0-9a-f]{6}\b", lambda match: f"var(--{INKS[match[0]]})" if match[0] in INKS else match[0], body)
    body = body.replace("; font-family: 'DejaVu Sans', sans-serif", "")
    body = re.sub(r' transform="rotate\(-0 [^"]*"', "", body)
    return re.sub(r"\s*\n\s*", " ", body).replace("> <", "><")
