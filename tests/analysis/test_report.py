"""The report: every number in it is the summary's, its words follow from intervals, and it needs nothing else."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import moesim
from moesim.analysis import gap
from moesim.analysis.report import asked, configuration, render
from moesim.summary import cell, read_csv, to_csv
from tests.analysis import factory
from tests.analysis.page import Element, Page
from tests.tiny import tiny

Rows = list[tuple[str, str, object, str, list[float], list[float]]]
SETTINGS = {"name": "made-up", "question": "Is <b> & co. safe?", "steps": 10, "warmup_steps": 2, "schedule": "frozen"}
RECORD = {
    "command": ["/some/where/bin/moesim", "run", "a b.yaml"],
    "begun": "2031-05-06T07:08:09+00:00",
    "wall": {"simulation_s": 12.3},
    "versions": {"moesim": "9.9"},
}


@dataclass
class Made:
    """What a report is rendered from."""

    summary: pd.DataFrame
    resolved: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=lambda: RECORD)

    def __post_init__(self) -> None:
        point = {"labels": {}, "experiment": SETTINGS | {"replications": len(self.summary), "seed": 1}}
        self.resolved = self.resolved or {"inputs": {"trace": {"t": "0" * 64}}, "points": [point]}


def made(rows: Rows, **columns: object) -> Made:
    return Made(gap.add_gaps(factory.plain(rows, **columns)))


@pytest.fixture(scope="module")
def several() -> Made:
    """Two cases, two memory sizes, four replications, as they are read from a file."""
    frame = factory.summary(slots=(3, 5))
    return Made(read_csv(to_csv(frame.to_dict("records"))))


@pytest.fixture(scope="module")
def text(several: Made) -> str:
    return render(several)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


# -- every number ------------------------------------------------------------------------------------------------------


def verify(page: Page, summary: pd.DataFrame) -> int:
    """Hold each number of a page against the summary, worked out in another way than the report does; their count."""
    rows = summary.set_index("run")
    numbers = page.find("data")
    for number in numbers:
        value = float(number.attributes["value"])
        check_text(number, value)
        what, _, column = number.attributes["data-of"].partition(" ")
        if what != "count":
            runs = [int(run) for run in number.around("data-runs").split()]
            base = [int(run) for run in number.around("data-base").split()]
            CHECKS[what](value, rows.loc[runs], rows.loc[base] if base else None, column)
    return len(numbers)


def check_text(number: Element, value: float) -> None:
    """The text is the value, rounded to the decimals that it has."""
    text = number.text.replace("−", "-").replace(",", "")
    decimals = len(text.partition(".")[2])
    shown = value * float(number.attributes.get("data-scale", 1))
    assert abs(float(text) - shown) <= 0.5 * 10**-decimals * (1 + 1e-9), number


def mean(value: float, runs: pd.DataFrame, base: pd.DataFrame | None, column: str) -> None:
    values = units(runs, column)
    assert value == math.fsum(values) / len(values)


def half(value: float, runs: pd.DataFrame, base: pd.DataFrame | None, column: str) -> None:
    values = units(runs, column)
    sigmas = stats.t.ppf(0.975, len(values) - 1)
    assert math.isclose(value, sigmas * stats.sem(values), rel_tol=1e-9, abs_tol=1e-12)


def constant(value: float, runs: pd.DataFrame, base: pd.DataFrame | None, column: str) -> None:
    assert set(runs[column]) == {value}


def relative(value: float, runs: pd.DataFrame, base: pd.DataFrame | None, column: str) -> None:
    ours, theirs = pairs(runs, base, column)
    assert math.isclose(value, ours.mean() / theirs.mean() - 1, rel_tol=1e-9, abs_tol=1e-12)


def limit(value: float, runs: pd.DataFrame, base: pd.DataFrame | None, column: str) -> None:
    """Fieller's limits are the ratios at which a test of ours - (1 + value) theirs = 0 is just not significant."""
    ours, theirs = pairs(runs, base, column)
    test = stats.ttest_1samp(ours - (1 + value) * theirs, 0)
    assert math.isclose(test.pvalue, 0.05, rel_tol=1e-6)


def pairs(runs: pd.DataFrame, base: pd.DataFrame | None, column: str) -> tuple[np.ndarray, np.ndarray]:
    assert base is not None and runs["replication"].tolist() == base["replication"].tolist()
    return units(runs, column), units(base, column)


def units(runs: pd.DataFrame, column: str) -> np.ndarray:
    """A value for each replication; those that share captured sequences count as one, with their mean."""
    if "cluster" in runs and runs["cluster"].nunique() < len(runs):
        runs = runs.groupby("cluster").mean(numeric_only=True)
    return runs[column].to_numpy("float64")


CHECKS = {
    "mean": mean,
    "half": half,
    "cell": constant,
    "relative": relative,
    "relative-low": limit,
    "relative-high": limit,
}


def test_every_number_is_the_summarys(page: Page, several: Made) -> None:
    assert verify(page, several.summary) > 2000
    kinds = {number.attributes["data-of"].partition(" ")[0] for number in page.find("data")}
    assert kinds == {*CHECKS, "count"}


def test_a_number_that_is_not_the_summarys_is_found(several: Made, text: str) -> None:
    cells = re.findall(r'<data value="[^"]+" data-of="mean ns_per_output_token"[^>]*>[^<]+</data>', text)
    wrong = cells[20].replace('value="', 'value="1')
    with pytest.raises(AssertionError):
        verify(Page(text.replace(cells[20], wrong)), several.summary)


def test_no_number_goes_without_saying_where_it_is_from(page: Page) -> None:
    for place in (*page.find("td"), *page.find("li"), *(p for p in page.find("p") if p.around("id"))):
        settings = "settings" in place.around("class") or place.around("id") == "configuration"
        said = re.sub(r"95 %|\d+ of \d+ memory|all \d+ memory|\d+ experts a layer \([\d.]+ GB\)", "", place.prose)
        words = "words" in place.attributes.get("class", "") or place.around("id") == "marks"
        assert settings or words or place.find("a") or not re.search(r"\d", said), place.text


def test_a_run_of_the_program(tmp_path: Path) -> None:
    caches = ["lru", "lfu", {"name": "lookahead", "level": ["step", "oracle"]}]
    grid = {"cache": caches, "memory": {"slots": [2, 4]}, "schedule": "frozen", "replications": 3}
    results = moesim.run(tiny(**grid), out=tmp_path / "r", figures=False, report=True)
    text = (results.folder / "report.html").read_text()
    assert text == results.report()
    assert verify(Page(text), results.summary) > 100
    assert str(tmp_path) not in text and "ESTIMATED" in text


def test_a_single_run(tmp_path: Path) -> None:
    results = moesim.run(tiny(), out=tmp_path / "r", figures=False)
    page = Page(results.report())
    assert verify(page, results.summary) > 5
    assert not page.wrong
    assert "One replication: there are no intervals, so that no difference is claimed." in page.root.text


# -- its words ---------------------------------------------------------------------------------------------------------

TIMES = {
    "base": [100e6, 102e6, 98e6, 101e6],
    "fast": [80e6, 82e6, 78.5e6, 81e6],
    "slow": [120e6, 122e6, 119e6, 121e6],
    "same": [99e6, 103e6, 99e6, 100e6],
    "best": [70e6, 72e6, 68e6, 70.5e6],
}


def group_of(**who: tuple[str, object]) -> Made:
    misses = {name: [time / 1e7 for time in times] for name, times in TIMES.items()}
    return made([(n, level, horizon, "layer", misses[n], TIMES[n]) for n, (level, horizon) in who.items()])


def said(given: Made, section: str) -> str:
    """The words of a section, without its figures and tables."""
    (found,) = (s for s in Page(render(given)).find("section") if s.attributes["id"] == section)
    parts = [c for c in found.children if isinstance(c, Element) and c.name in ("p", "ul")]
    return " ".join(" ".join(part.text for part in parts).split())


def test_what_differs_is_said_and_what_does_not() -> None:
    given = group_of(
        base=("history", ""), fast=("queue", 64), slow=("step", 32), same=("step", 8), best=("oracle", "unlimited")
    )
    assert said(given, "set-1").startswith(
        "4 experts a layer (4e-07 GB): the best policy without foresight (B) is base, layer "
        "with 100±3 ms an output token. "
        "fast queue 64, layer is faster: −19.8 % [−20.1, −19.6]. "
        "Of the rest: 1 slower (slow step 32, layer); 1 not shown to differ (same step 8, layer). "
        "The oracle gains: −30 % [−31, −29]; of this gain fast queue 64, layer captures 66 [65, 67] %."
    )
    assert "3 comparisons of time" in said(given, "in-short")
    assert ": 1 faster, 1 slower, 1 not shown to differ." in said(given, "in-short")
    assert (
        "the fastest policy that is shown to be faster than B (fast queue 64, layer) saves 20 % of its time; "
        "the oracle saves 30 %."
        in said(given, "in-short")
    )


def test_a_lower_mean_alone_is_no_difference() -> None:
    rows: Rows = [
        ("base", "history", "", "layer", [1.0] * 4, TIMES["base"]),
        ("luck", "step", 8, "layer", [1.0] * 4, [90e6, 112e6, 88e6, 105e6]),
        ("best", "oracle", "unlimited", "layer", [1.0] * 4, [99e6, 103e6, 98e6, 100e6]),
    ]
    text = said(made(rows), "set-1")
    assert "luck step 8, layer has the lowest mean, but is not shown to differ: −1 % [−18, +14]" in text
    assert "The oracle was not shown to gain anything: " in text and "captures" not in text
    short = said(made(rows), "in-short")
    assert "no policy without an oracle was shown to be faster than B; nor was the oracle." in short


def test_a_slower_policy_may_be_the_one_that_is_shown_to_be_faster() -> None:
    rows: Rows = [
        ("base", "history", "", "layer", [1.0] * 4, TIMES["base"]),
        ("luck", "step", 8, "layer", [1.0] * 4, [30e6, 130e6, 30e6, 130e6]),
        ("sure", "step", 8, "layer", [1.0] * 4, [t - 10e6 for t in TIMES["base"]]),
    ]
    assert "luck step 8, layer has the lowest mean, but is not shown to differ" in said(made(rows), "set-1")
    assert "Of the rest: 1 faster (sure step 8, layer)." in said(made(rows), "set-1")
    assert "faster than B (sure step 8, layer) saves 10 % of its time." in said(made(rows), "in-short")


def test_without_a_history_policy_the_fastest_is_what_others_are_compared_with() -> None:
    text = said(group_of(fast=("queue", 64), slow=("step", 32)), "set-1")
    assert text.startswith("4 experts a layer (4e-07 GB): the fastest policy (B) is fast queue 64, layer")
    assert "1 slower (slow step 32, layer)" in text


def test_oracles_alone_claim_nothing() -> None:
    given = group_of(best=("oracle", "unlimited"))
    assert said(given, "set-1").endswith("every policy here knows the future.")
    assert said(given, "in-short") == "Nothing here compares with anything else, so that no difference is claimed."


def test_one_replication_claims_nothing() -> None:
    given = group_of(base=("history", ""), fast=("queue", 64))
    given = Made(gap.add_gaps(given.summary[given.summary["replication"] == 0]))
    assert "One replication, so that no difference is claimed." in said(given, "set-1")
    assert "faster" not in said(given, "set-1") and "comparisons" not in said(given, "in-short")
    verify(Page(render(given)), given.summary)


def test_presets_and_where_fewer_misses_take_more_time() -> None:
    from tests.analysis.test_presets import frame

    given = Made(gap.add_gaps(frame()))
    page = Page(render(given))
    assert verify(page, given.summary) > 50
    text = " ".join(page.root.text.split())
    assert "Fewer misses and yet more time, both shown by paired intervals:" in text
    assert "greedy, layer against steady, layer: misses −41 % [−43, −38], time +21 % [+18, +24]" in text
    assert "(quick, layer) saves 10 % of its time; the oracle was not shown to save any." in text
    heads = [th.text for th in page.find("thead")[0].find("th")]
    assert heads.count("against B") == 2
    names = [th.text for th in page.find("th") if th.attributes.get("scope") == "row"]
    assert [name.removesuffix("layer") for name in names][:4] == ["quick", "Bsteady", "greedy", "oracleall-knowing"]


def test_where_each_ran_at_its_largest_load_no_times_are_compared() -> None:
    rows: Rows = [(n, "history", "", "layer", [1.0] * 4, TIMES[n]) for n in ("base", "fast")]
    frame = factory.plain(rows).assign(search_outcome="found", max_rate=[3.0, 3.5, 3.0, 3.1, 4.0, 4.5, 4.25, 4.25])
    given = Made(gap.add_gaps(frame))
    page = Page(render(given))
    assert verify(page, given.summary) == 16
    assert said(given, "set-1").endswith(
        "largest rate (requests/s) that meets the objective: fast, layer 4.25±0.32; base, layer 3.15±0.38. "
        "Each ran at its own largest load, so that their times do not compare."
    )
    assert not {"in-short"} & page.ids and "faster" not in said(given, "set-1")
    assert "against B" in page.root.text and not [n for n in page.find("data") if "relative" in n.attributes["data-of"]]


def test_loads_of_a_sweep_have_figures_together(tmp_path: Path) -> None:
    traffic = {"kind": "poisson", "rate": [20, 40, 80], "requests": 20}
    results = moesim.run(tiny(traffic=traffic, cache=["lru", "lfu"], replications=2), out=tmp_path, figures=False)
    page = Page(results.report())
    assert not page.wrong and verify(page, results.summary) > 50
    (section,) = [s for s in page.find("section") if s.attributes["id"] == "loads"]
    assert section.find("svg") and len(page.find("svg")) == len(section.find("svg"))


# -- its form ----------------------------------------------------------------------------------------------------------


def test_it_is_well_formed(page: Page) -> None:
    assert page.wrong == []
    assert page.references <= page.ids, "every link and every part of a figure that is referred to is there"
    assert [h.text for h in page.find("h1")] == ["made-up"]


def test_it_opens_without_scripts_and_without_a_network(text: str, page: Page) -> None:
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & {tag for tag, _, _ in page.attributes}
    assert not page.find("script")
    for tag, key, value in page.attributes:
        assert not key.startswith("on") and key not in ("src", "srcset", "action", "xlink:href"), (tag, key)
        assert key != "href" or value.startswith("#"), value
    assert "@import" not in text and not re.findall(r"url\((?!#)", text) and "//" not in page.find("style")[0].text


def test_what_the_user_wrote_is_text(page: Page) -> None:
    (question,) = [p for p in page.find("p") if p.attributes.get("class") == "question"]
    assert question.text == "Is <b> & co. safe?"


def test_who_asked_what_and_when(page: Page) -> None:
    header = page.find("header")[0].text
    assert "$ moesim run 'a b.yaml'" in header
    assert "2031-05-06 · simulated in 12 s · moesim 9.9" in header


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (["/x/bin/moesim", "run", "a.yaml"], "moesim run a.yaml"),
        (["/x/moesim/__main__.py", "run", "a.yaml"], "moesim run a.yaml"),
        (["C:\\x\\moesim.exe", "run", "a.yaml"], "moesim run a.yaml"),
        (["/x/bin/pytest", "-q"], ""),
        ([], ""),
    ],
)
def test_the_command(argv: list[str], shown: str) -> None:
    assert asked.command({"command": argv}) == shown


def test_estimated_times_are_said_first() -> None:
    measured = {"label_costs": "MEASURED (a device)", "label_link": "MEASURED (a link)"}
    rows: Rows = [("lru", "history", "", "layer", [1.0, 2.0], [1e6, 2e6])]
    assert "Times are ESTIMATED" not in render(made(rows, **measured))
    estimated = render(made(rows, **measured | {"label_link": "ESTIMATED (a formula)"}))
    assert estimated.index("Times are ESTIMATED") < estimated.index("In short")
    assert '<strong class="label estimated">ESTIMATED</strong> (a formula)' in estimated


def test_it_says_where_an_oracle_is_no_bound() -> None:
    rows: Rows = [
        ("lru", "history", "", "layer", [1.0] * 4, TIMES["base"]),
        ("lookahead", "oracle", "unlimited", "layer", [1.0] * 4, TIMES["best"]),
    ]
    free = made(rows, schedule="free")
    free.summary.loc[free.summary["level"] == "oracle", "oracle"] = "oracle, not a bound"
    assert "The oracle (not a bound in a free schedule) gains" in said(free, "set-1")
    assert "an oracle is not a bound here" in said(free, "set-1")
    assert "not a bound" not in said(made(rows), "set-1")


def test_captions_say_what_was_measured_and_who_knows_the_future(page: Page) -> None:
    captions = [caption.text for caption in page.find("figcaption")]
    assert len(captions) > 3
    for caption in captions:
        assert "Times ESTIMATED." in caption, caption
        assert "An oracle (dashed where it is a line) knows the future and is no policy to deploy" in caption, caption


def test_captions_of_measured_times_without_an_oracle() -> None:
    frame = factory.summary(slots=(3, 5))
    frame = frame[frame["level"] == "history"].assign(label_costs="MEASURED (a device)", label_link="MEASURED (a link)")
    frame = frame.assign(run=range(len(frame)))
    captions = [caption.text for caption in Page(render(Made(gap.add_gaps(frame)))).find("figcaption")]
    assert captions and all("Times MEASURED." in caption for caption in captions)
    assert not any("ESTIMATED" in caption or "oracle" in caption for caption in captions)


def test_figures_are_inline_with_units_and_page_colours(page: Page) -> None:
    pictures = page.find("svg")
    assert len(pictures) == 1 + 2 * 3
    words = [text.text for picture in pictures for text in picture.find("text")]
    for unit in ("time per output token (ms)", "cache size (experts a layer)", "horizon (layer events)"):
        assert unit in words
    assert {"lookahead oracle", "transfer bound (MIN)", "all experts resident"} <= set(words)
    colours = [value for tag, key, value in page.attributes if key == "style" and tag in ("path", "text", "use")]
    assert not [c for c in colours if "#000000" in c or "#ffffff" in c], "these would vanish on a dark or a light page"
    assert all(picture.attributes["aria-label"] for picture in pictures)


def test_colours_of_the_figures_are_in_the_style_sheet(page: Page) -> None:
    sheet = page.find("style")[0].text
    light, dark = (set(re.findall(r"--([\w-]+):", part)) for part in sheet.split("prefers-color-scheme: dark", 1))
    used = {n for _, _, v in page.attributes for n in re.findall(r"var\(--([\w-]+)\)", v)}
    assert used and used <= light and used <= dark


def test_it_is_small(several: Made, text: str) -> None:
    """Under 3 MB for 287 configurations, as experiments/lookahead.yaml has them."""
    configurations = len(several.summary) / 4
    assert len(text.encode()) / configurations < 3_000_000 / 287


def test_equal_results_give_an_equal_page() -> None:
    one, other = (render(group_of(base=("history", ""), fast=("queue", 64))) for _ in range(2))
    assert one == other


def test_the_configuration_is_there_once_and_what_differs_beside_it() -> None:
    experiments = [
        {"name": "a", "memory": {"slots": 3, "scope": "layer"}, "cache": "lru", "replications": 2},
        {"name": "a", "memory": {"slots": 4, "scope": "layer"}, "cache": {"name": "x"}, "replications": 2, "kv": None},
    ]
    common, differing = configuration.split(experiments)
    assert common == {"name": "a", "memory": {"scope": "layer"}, "replications": 2, "kv": None}
    assert differing == [("memory", "slots"), ("cache",)]
    points = [{"labels": {"case": c}, "experiment": e} for c, e in zip("pq", experiments, strict=True)]
    page = Page(configuration.shown({"inputs": {}, "points": points}))
    rows = [[c.text for c in row.children if isinstance(c, Element)] for row in page.find("tr")]
    assert rows == [
        ["runs", "case", "memory.slots", "cache"],
        ["0–1", "p", "3", "lru"],
        ["2–3", "q", "4", "{name: x}"],
    ]


def test_numbers_are_those_of_the_file(several: Made) -> None:
    """What is read back is what was written, so that comparing with the frame is comparing with the file."""
    text = to_csv(several.summary.to_dict("records"))
    again = read_csv(text)
    for column in ("ns_per_output_token", "gap_time"):
        assert [cell(v) for v in again[column]] == [cell(v) for v in several.summary[column]]
