"""The page and the plots of a comparison: what is on them, and whether a browser takes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import pytest

from moesim.analysis import plots
from moesim.analysis.regression import figures, page, words
from moesim.analysis.regression.numbers import Verdict, failed, judge
from moesim.analysis.regression.rules import EXACT, Rule
from tests.analysis.page import Page
from tests.analysis.test_regression import grid, numbers, verdict
from tests.analysis.test_report_browser import ASK, BROWSER, FRAMES, browse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ASKED = page.Asked("regression.yaml", "moesim regress", "baselines", "0.1.0")


def red() -> Verdict:
    found = verdict(grid(lru_layer=15, lru_global=18), grid())
    labels = ("ESTIMATED (table t, a device)", "routing: a <model>, shape: s")
    return judge(found.name, "<b>escaped</b> & whole", found.rules, found.now or grid(), found.before, labels)


def many(points: int, moved: int) -> Verdict:
    """So many points, the last of which moved."""
    before = numbers({f"cache=c{n}": {"miss_keys": 100 + n, "same": 7} for n in range(points)})
    after = {n: 100 + n + (n >= points - moved) * (1 + n) for n in range(points)}
    now = numbers({f"cache=c{n}": {"miss_keys": after[n], "same": 7} for n in range(points)})
    return verdict(now, before, miss_keys="exact", same="exact")


def text_of(figure: Figure) -> str:
    """All that is written in a figure."""
    found = [t.get_text() for t in figure.findobj(matplotlib.text.Text)]
    return "\n".join(t for t in found if t)


def rendered(folder: Path, *verdicts: Verdict) -> str:
    return page.render(verdicts, {v.name: page.draw(v, folder) for v in verdicts}, ASKED)


def test_the_sheet_marks_what_changed_and_names_what_is_constant() -> None:
    figure = figures.overview(many(6, 2))
    assert figure is not None
    text = text_of(figure)
    assert "miss_keys\n2 changed" in text and "then and now: same 7" in text
    (panel,) = [p for p in figure.axes if p.get_title()]
    named = {str(line.get_label()): line for line in panel.lines}
    marks = {label: list(line.get_ydata()) for label, line in named.items() if not label.startswith("_")}
    assert marks == {"as its baseline": [0, 1, 2, 3], "baseline": [4, 5], "now, more than the baseline": [4, 5]}
    assert [t.get_text() for t in panel.get_yticklabels()] == [f"c{n}" for n in range(6)]


def test_too_many_points_leave_those_that_changed() -> None:
    figure = figures.overview(many(80, 3))
    assert figure is not None
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert len(names) == figures.MOST_POINTS and names[-3:] == ["c77", "c78", "c79"] and "c0" in names
    assert "60 of 80 configurations" in text_of(figure)


def test_there_is_no_sheet_of_nothing() -> None:
    assert figures.overview(verdict(grid(), None)) is None


def test_where_all_is_constant_it_is_drawn_nevertheless() -> None:
    figure = figures.overview(verdict(numbers({"a": {"same": 1}}), numbers({"a": {"same": 1}}), same="exact"))
    assert figure is not None and [p.get_title() for p in figure.axes] == ["same\n "]


def test_close_up_the_largest_change_is_first_and_both_values_are_written() -> None:
    found = verdict(grid(lru_layer=15, lru_global=18), grid())
    text = text_of(figures.closeup(found, "miss_keys", found.changed()["miss_keys"]))
    assert text.index("10 → 15 (+50 %)") < text.index("20 → 18 (-10 %)")
    assert "misses: experts that were not there" in text and "longer ones cut" not in text


def test_a_change_that_would_dwarf_the_others_is_cut_and_said_to_be() -> None:
    found = verdict(grid(lru_layer=1000, lru_global=21), grid())
    figure = figures.closeup(found, "miss_keys", found.changed()["miss_keys"])
    widths = [patch.get_width() for patch in figure.axes[1].patches]
    assert widths == [figures.LONGEST, pytest.approx(5)] and "longer ones cut" in text_of(figure)


def test_times_and_bytes_have_units() -> None:
    assert figures.scale_of("span_ns") == (1e-6, "ms") and figures.scale_of("demand_bytes") == (1e-9, "GB")
    assert figures.scale_of("ns_per_output_token") == (1e-6, "ms") and figures.scale_of("attainment") == (1.0, "")


def test_every_plot_is_written_and_drawn_on_the_page(tmp_path: Path) -> None:
    found = red()
    text = rendered(tmp_path, found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guard-miss_keys.png", "guard.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
    assert len(Page(text).find("svg")) == 2


def test_equal_verdicts_give_equal_bytes(tmp_path: Path) -> None:
    one, other = (rendered(tmp_path / name, red()) for name in ("a", "b"))
    assert one == other
    assert all((tmp_path / "b" / p.name).read_bytes() == p.read_bytes() for p in (tmp_path / "a").iterdir())


@pytest.mark.parametrize("what", ["red", "same", "failed", "new"])
def test_the_page_is_well_formed_and_asks_nothing_of_a_network(what: str, tmp_path: Path) -> None:
    verdicts = {
        "red": (red(), verdict(numbers({"a": {"x": 1}}), numbers({"a": {"x": 1}}), x="exact")),
        "same": (verdict(grid(), grid()),),
        "failed": (failed("guard", "", {"miss_keys": EXACT}, grid(), "ValueError: <no>", "at line <3>"),),
        "new": (verdict(grid(), None),),
    }[what]
    read = Page(rendered(tmp_path, *verdicts[:1]))
    assert not read.wrong and read.references <= read.ids
    assert not {name for name, _, _ in read.attributes} & {"script", "img", "link", "iframe"}
    assert not [value for _, key, value in read.attributes if key in ("src", "href") and not value.startswith("#")]
    title = read.find("title")[0].text
    assert title.startswith("same" if what == "same" else "CHANGED")
    assert read.find("h1")[0].text == words.headline(verdicts[:1])
    assert ("What to do" in read.root.text) is (what != "same")
    updated = [code.text for code in read.find("code") if code.text.endswith("regress --update")]
    assert bool(updated) is (what in ("red", "new")), "an update of runs that fail writes nothing"
    assert ("give other numbers than were committed" in read.root.text) is (what == "red")
    assert all(section.children[1:] for section in read.find("section")), "no heading of nothing"


def test_the_page_says_what_happened_where_and_of_what(tmp_path: Path) -> None:
    read = Page(rendered(tmp_path, red()))
    text = " ".join(read.root.text.split())
    for said in (
        "2 of 4 numbers changed in 1 of 1 experiment",
        "All that changed is in the 2 runs with cache lru, and in no other",
        "Misses: experts that were not there when their layer needed them",
        "<b>escaped</b> & whole",
        "moesim regress --update",
        "ESTIMATED",
        "It passes if: equal.",
    ):
        assert said in text, said
    (table,) = [t for t in read.find("table") if "baseline" in t.text]
    cells = [[cell.text for cell in row.find("td")] for row in table.find("tr")[1:]]
    assert cells == [["10", "15", "+50 %"], ["20", "18", "-10 %"]]


def test_an_interval_is_in_the_table(tmp_path: Path) -> None:
    before, now = ({"p": {"span_ns": values}} for values in ([100, 200, 300], [111, 209, 310]))
    found = judge("guard", "", {"span_ns": Rule("interval")}, numbers(now), numbers(before))
    text = rendered(tmp_path, found)
    assert "95 % interval" in text and re.search(r"\+\d\.\d % to \+\d\.\d %", text)


@pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome on the path")
def test_in_a_browser_nothing_sticks_out_narrow_and_wide(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(rendered(tmp_path / "plots", red(), many(60, 30)), encoding="utf-8")
    (tmp_path / "ask.html").write_text(ASK % FRAMES, encoding="utf-8")
    done = browse(tmp_path / "ask.html", "--allow-file-access-from-files", "--dump-dom", "--virtual-time-budget=5000")
    found = re.search(r"<title>([^<]*)</title>", done.stdout)
    assert found and found[1] == "0 0 0, 0 0 0", "per width: page beyond the window, elements beyond the page, requests"
    assert "CONSOLE" not in done.stderr


def test_the_plots_look_as_others_do() -> None:
    assert page.pictures.STYLE["font.size"] == plots.STYLE["font.size"]
