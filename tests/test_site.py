"""The manual as a site: it builds without a warning, and holds together in a browser, where there is one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.analysis.page import Page
from tests.analysis.test_report_browser import BROWSER

ROOT = Path(__file__).parents[1]
WIDTHS = (390, 1400)
ASK = """<!DOCTYPE html><title></title>%s<script>onload = () => setTimeout(() => {
  document.title = [...document.querySelectorAll("iframe")].map(({contentDocument: d, src, width}) => {
    const scrolls = "pre, code, table, .md-typeset__scrollwrap, .md-typeset__scrollwrap *, pre *";
    const parts = [...d.querySelectorAll("article *")].filter(e => !e.matches(scrolls));
    const beyond = parts.filter(e => e.getBoundingClientRect().right > d.documentElement.clientWidth + 1).length;
    const asked = d.defaultView.performance.getEntriesByType("resource").filter(r => !r.name.startsWith(origin)).length;
    const page = d.documentElement.scrollWidth - d.documentElement.clientWidth;
    return [page, beyond, asked, d.querySelectorAll("article h1").length].join(" ");
  }).join(", ");
}, 1500)</script>"""


def build(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder), *options]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=120)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of this folder; it is gone afterwards."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed")
    folder = tmp_path_factory.mktemp("site")
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


def pages(site: Path) -> list[Path]:
    return sorted(path for path in site.glob("*.html") if path.name != "404.html")


def test_every_page_of_docs_is_there_and_in_the_navigation(site: Path) -> None:
    shown = {link.attributes.get("href") for link in Page((site / "index.html").read_text()).find("a")}
    made = {path.name for path in pages(site)}
    assert {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")} < made
    assert made - {"index.html"} <= shown
    for name in ("experiment.schema.json", "site.css"):
        assert (site / name).read_bytes() == (ROOT / "docs" / name).read_bytes()
    assert not (site / "site.py").exists()


def test_links_from_outside_docs_lead_to_pages_of_the_site(site: Path) -> None:
    """A README that is a page there has its links to docs/, and pages have theirs to it."""
    links = {link.attributes.get("href") for link in Page((site / "experiments.html").read_text()).find("a")}
    assert {"metrics.html", "experiment.schema.json"} <= links
    assert not [link for link in links if link and "../docs" in link]
    start = {link.attributes.get("href") for link in Page((site / "index.html").read_text()).find("a")}
    assert "experiments.html" in start
    pictures = [image.attributes["src"] for image in Page((site / "readme.html").read_text()).find("img")]
    assert pictures and all((site / picture).is_file() for picture in pictures)


def test_notebooks_become_pages(tmp_path: Path) -> None:
    if find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed")
    spec = spec_from_file_location("site_hook", ROOT / "docs" / "site.py")
    assert spec and spec.loader
    hook = module_from_spec(spec)
    spec.loader.exec_module(hook)
    outputs: list[dict[str, Any]] = [
        {"output_type": "stream", "text": ["\x1b[32m  ok\x1b[0m it\n"]},
        {"output_type": "display_data", "data": {"image/png": "aGk=\n", "text/plain": "<Figure>"}},
        {"output_type": "execute_result", "data": {"text/html": ["<table>", "</table>"], "text/plain": "x"}},
        {"output_type": "display_data", "data": {"text/markdown": "**so**", "text/plain": "<Markdown>"}},
        {"output_type": "stream", "text": ""},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# A title\n", "text"]},
        {"cell_type": "code", "source": "1 + 1", "outputs": outputs},
        {"cell_type": "code", "source": "", "outputs": []},
    ]
    assert hook.notebook(json.dumps({"cells": cells})).split("\n\n") == [
        "# A title\ntext",
        "```python\n1 + 1\n```",
        "```text\n  ok it\n```",
        "![figure](data:image/png;base64,aGk=)",
        '<div class="output"><table></table></div>',
        "**so**\n",
    ]


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for path in pages(site):
        page = Page(path.read_text())
        asked = [e.attributes.get("src") or e.attributes.get("href") for n in ("script", "link") for e in page.find(n)]
        assert not [url for url in asked if url and re.match(r"(https?:)?//", url)], path.name


def test_a_broken_link_ends_the_build(tmp_path: Path) -> None:
    if find_spec("material") is None:
        pytest.skip("mkdocs-material is not installed")
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "docs", copy / "docs")
    for path in ROOT.iterdir():
        if path.name != "docs" and path.name[0] != ".":
            (copy / path.name).symlink_to(path)
    with (copy / "docs" / "kv.md").open("a") as page:
        page.write("\n[a](nothing.md) [b](model.md#nowhere) [c](../nowhere.py) [d](../traces/README.md#nowhere)\n")
    done = build(tmp_path / "site", "--config-file", str(copy / "mkdocs.yml"))
    assert done.returncode and len(re.findall("WARNING.*'kv.md'.*a link", done.stderr)) == 4, done.stderr


@pytest.mark.skipif(not BROWSER, reason="no Chromium or Chrome on the path")
def test_no_page_sticks_out_narrow_or_wide(site: Path, tmp_path: Path) -> None:
    names = [path.name for path in pages(site)]
    frames = [f'<iframe src="{name}" style="width:{w}px;height:700px"></iframe>' for name in names for w in WIDTHS]
    ask = site / "ask.html"
    ask.write_text(ASK % "".join(frames))
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    options += ["--virtual-time-budget=20000", f"--user-data-dir={tmp_path}"]
    with served(site) as address:
        command = [BROWSER, *options, f"{address}/ask.html"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    ask.unlink()
    found = re.search(r"<title>([^<]*)</title>", done.stdout)
    assert found
    said = dict(zip([(name, width) for name in names for width in WIDTHS], found[1].split(", "), strict=True))
    wrong = {at: what for at, what in said.items() if what != "0 0 0 1"}
    assert not wrong, "page beyond the window, elements beyond it, requests to the network, headings of the page"
    assert "CONSOLE" not in done.stderr, done.stderr
