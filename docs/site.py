"""What mkdocs.yml needs beyond mkdocs: pages from outside docs/, and links from and to them (a mkdocs hook).

On a code host every link leads to a file of the repository. The site has docs/ only, so the READMEs that pages lead to
become pages, and any other file that is linked is copied beside them. A link to nothing stays what it is, and
`mkdocs build --strict` stops at it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = {
    "README.md": "readme.md",
    "experiments/README.md": "experiments.md",
    "traces/README.md": "shipped-traces.md",
    "traces/arrivals/README.md": "shipped-arrivals.md",
}
"""files of the repository, and the pages that they become"""
COMING = ("refactorize.md", "quality.md", "live.md", "validation.md", "regress.md", "python.md")
"""pages of the navigation that may not be written yet"""
WHERE = {page: name for name, page in OUTSIDE.items()}
LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s]+)(\))")
NAMED = re.compile(r"`docs/([\w-]+\.md)`")
FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)


def on_config(config: Any) -> Any:
    """Leave out of the navigation what is not written yet."""
    config.nav = _written(config.nav, Path(config.docs_dir))
    return config


def _written(nav: list[Any], folder: Path) -> list[Any]:
    kept = []
    for entry in nav:
        ((title, target),) = entry.items()
        if isinstance(target, list):
            inside = _written(target, folder)
            kept += [{title: inside}] if inside else []
        elif target not in COMING or (folder / target).is_file():
            kept.append(entry)
    return kept


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/, and the other files that pages link to."""
    for name, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / name)))
    for file in list(files.documentation_pages()):
        here = _here(file.src_uri)
        for _, target, _ in LINK.findall(FENCE.sub("", file.content_string)):
            name = _name(target, here)
            if name and not name.startswith("docs/") and name not in OUTSIDE and (ROOT / name).is_file():
                copied = f"files/{name}"
                if files.get_file_from_path(copied) is None:
                    files.append(File.generated(config, copied, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Links between files of the repository become links between pages of the site."""
    here = _here(page.file.src_uri)
    parts, at = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [_linked(markdown[at : fence.start()], here), fence[0]]
        at = fence.end()
    return "".join([*parts, _linked(markdown[at:], here)])


def _linked(text: str, here: str) -> str:
    text = NAMED.sub(r"[\1](\1)" if here.startswith("docs/") else r"[\1](docs/\1)", text)
    return LINK.sub(lambda match: match[1] + _on_site(match[2], here) + match[3], text)


def _on_site(target: str, here: str) -> str:
    name = _name(target, here)
    if name is None:
        return target
    anchor = target.partition("#")[1] + target.partition("#")[2]
    if name in OUTSIDE:
        return OUTSIDE[name] + anchor
    if name.startswith("docs/"):
        return name.removeprefix("docs/") + anchor
    return f"files/{name}" if (ROOT / name).is_file() else target


def _here(page: str) -> str:
    """Where in the repository a page of the site is."""
    return WHERE.get(page, f"docs/{page}")


def _name(target: str, here: str) -> str | None:
    """The file of the repository that a link on a page leads to; None where it leads elsewhere."""
    path = target.partition("#")[0]
    if not path or ":" in path or path.startswith("/"):
        return None
    return posixpath.normpath(posixpath.join(posixpath.dirname(here), path))
