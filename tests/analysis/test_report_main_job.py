"""The report of the README's main job, where it has been run in this checkout, as .ci/run does before the tests."""

from __future__ import annotations

from pathlib import Path

import pytest

import moesim
from tests.analysis.page import Page
from tests.analysis.test_report import verify
from tests.analysis.test_report_browser import ASK, BROWSER, FRAMES, browse, said

FOLDER = Path(__file__).parents[2] / "results" / "lookahead"
MOST_BYTES = 3_000_000

pytestmark = pytest.mark.skipif(
    not (FOLDER / "summary.csv").is_file(), reason="no results/lookahead: run the README's main job first"
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("main") / "report.html"
    path.write_text(moesim.load(FOLDER).report(), encoding="utf-8")
    return path


def test_it_is_under_3_mb_and_every_number_is_the_summarys(report: Path) -> None:
    results = moesim.load(FOLDER)
    page = Page(report.read_text(encoding="utf-8"))
    assert report.stat().st_size < MOST_BYTES
    assert not page.wrong and page.references <= page.ids
    assert verify(page, results.summary) > 10 * len(results.configs)


@pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome on the path")
def test_it_loads_without_a_network_and_without_an_error(report: Path) -> None:
    ask = report.with_name("ask.html")
    ask.write_text(ASK % FRAMES, encoding="utf-8")
    done = browse(ask, "--allow-file-access-from-files", "--dump-dom", "--virtual-time-budget=5000")
    assert said(done) == "0 0 0, 0 0 0"
    assert "CONSOLE" not in done.stderr
