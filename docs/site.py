"""What mkdocs.yml needs beyond mkdocs: pages from outside docs/, and links from and to them (a mkdocs hook).

On a code host every link leads to a file of the repository. The site has docs/ only, so the READMEs that pages lead to
and the notebooks, as they were executed, become pages, and any other file that is linked is copied beside them. A link
to nothing stays what it is, and `mkdocs build --strict` stops at it.
"""

from __future__ import annotations

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OUTSIDE = {
    **{f"notebooks/{path.name}": f"notebook-{path.stem}.md" for path in NOTEBOOKS},
    "README.md": "readme.md",
    "experiments/README.md": "experiments.md",
    "traces/README.md": "shipped-traces.md",
    "traces/arrivals/README.md": "shipped-arrivals.md",
}
"""files of the repository, and the pages that they become"""
WHERE = {page: name for name, page in OUTSIDE.items()}
LINK = re.compile(r"(!?\[([^\]]*)\]\()([^)\s]+)(\))")
NAMED = re.compile(r"`docs/([\w-]+\.md)`")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""of what is printed on a terminal"""
FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages from outside docs/, and the other files that pages link to."""
    for name, page in OUTSIDE.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=notebook(text) if name.endswith(".ipynb") else text))
    for file in list(files.documentation_pages()):
        here = _here(file.src_uri)
        for *_, target, _ in LINK.findall(FENCE.sub("", file.content_string)):
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


def notebook(text: str) -> str:
    """A notebook as a page: text, code, and what was printed and drawn when it was executed."""
    parts = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        elif cell["cell_type"] == "code" and source.strip():
            parts += [f"```python\n{source}\n```", *map(_output, cell["outputs"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _output(output: dict[str, Any]) -> str:
    data = output.get("data", {"text/plain": output.get("text", "")})
    shown = {kind: "".join(value) for kind, value in data.items()}
    if "image/png" in shown:
        return f"![figure](data:image/png;base64,{''.join(shown['image/png'].split())})"
    if "text/markdown" in shown:
        return shown["text/markdown"]
    if "text/html" in shown:
        return f'<div class="output">{shown["text/html"]}</div>'
    plain = COLOUR.sub("", shown.get("text/plain", "")).rstrip()
    return f"```text\n{plain}\n```" if plain else ""


def _linked(text: str, here: str) -> str:
    docs = posixpath.relpath("docs", posixpath.dirname(here) or ".")
    text = NAMED.sub(rf"[\1]({docs}/\1)", text)
    return LINK.sub(lambda match: _link(match, here), text)


def _link(match: re.Match[str], here: str) -> str:
    """A link as the site has it; one to a folder of the repository is its text alone."""
    head, text, target, tail = match.groups()
    name = _name(target, here)
    return text if name is not None and (ROOT / name).is_dir() else head + _on_site(target, here) + tail


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
