"""The report in a browser, where there is one: no errors, nothing asked of the network, nothing wider than the page."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from moesim.analysis.report import render
from moesim.summary import read_csv, to_csv
from tests.analysis import factory
from tests.analysis.test_report import Made

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), "")
pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome on the path")
WIDTHS = (390, 1400)
FRAMES = "".join(f'<iframe src="report.html" style="width:{w}px;height:900px"></iframe>' for w in WIDTHS)
ASK = """<!DOCTYPE html><title></title>%s<script>onload = () => {
  const wide = [...document.querySelectorAll("iframe")].map(({contentDocument: d}) => {
    const parts = [...d.querySelectorAll("main > *, section > *:not(.scroll)")];
    const beyond = parts.filter(e => e.scrollWidth > e.clientWidth + 1);
    const asked = d.defaultView.performance.getEntriesByType("resource").length;
    return [d.documentElement.scrollWidth - d.documentElement.clientWidth, beyond.length, asked].join(" ");
  });
  document.title = wide.join(", ");
}</script>"""


def browse(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a browser without a window; what it says of errors is on standard error."""
    profile = f"--user-data-dir={page.parent / 'profile'}"
    fixed = ("--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", profile)
    command = [BROWSER, *fixed, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Per width: pixels of the page beyond the window, elements beyond the page, requests."""
    found = re.search(r"<title>([^<]*)</title>", done.stdout)
    return found[1] if found else "no title"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("pages")
    frame = factory.summary(slots=(3, 5))
    (found / "report.html").write_text(render(Made(read_csv(to_csv(frame.to_dict("records"))))), encoding="utf-8")
    (found / "ask.html").write_text(ASK % FRAMES, encoding="utf-8")
    return found


def test_narrow_and_wide_nothing_sticks_out(folder: Path) -> None:
    done = browse(folder / "ask.html", "--allow-file-access-from-files", "--dump-dom", "--virtual-time-budget=5000")
    assert said(done) == "0 0 0, 0 0 0"
    assert "CONSOLE" not in done.stderr


def test_it_prints_without_errors(folder: Path) -> None:
    paper = folder / "report.pdf"
    done = browse(folder / "report.html", f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    assert paper.read_bytes().startswith(b"%PDF") and "CONSOLE" not in done.stderr


def test_what_would_be_wrong_is_noticed(folder: Path, tmp_path: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    wide = '<section><p style="min-width:3000px">x</p></section>'
    wrong = f'<script>nowhere()</script><img src="http://127.0.0.1:9/x.png">{wide}</main>'
    (tmp_path / "report.html").write_text(page.replace("</main>", wrong), encoding="utf-8")
    (tmp_path / "ask.html").write_text(ASK % FRAMES, encoding="utf-8")
    done = browse(tmp_path / "ask.html", "--allow-file-access-from-files", "--dump-dom", "--virtual-time-budget=5000")
    for beyond, elements, asked in (map(int, width.split()) for width in said(done).split(", ")):
        assert beyond > 0 and elements > 0 and asked == 1, said(done)
    assert "CONSOLE" in done.stderr and "nowhere is not defined" in done.stderr
