"""Executes the notebooks and keeps their outputs: `python -m tests.notebooks [NAME...]`.

notebooks/NAME.py is the source (jupytext, percent format), notebooks/NAME.ipynb the same cells with their outputs and
figures, for readers. Needs the extra `notebooks`.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
INLINE = "module://matplotlib_inline.backend_inline"
SECONDS = 300  # of a cell
METADATA = {
    "jupytext": {"formats": "py:percent,ipynb"},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
NO_TORCH = "import sys\nassert 'torch' not in sys.modules, 'the notebooks do without torch'"
ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")


def sources() -> list[Path]:
    """Every notebook's source."""
    return sorted(FOLDER.glob("*.py"))


def execute(source: Path, folder: Path | str) -> Any:
    """The notebook of a source, run from top to bottom in `folder` with the package of this checkout."""
    import jupytext
    from nbclient import NotebookClient
    from nbformat.v4 import new_code_cell

    notebook = jupytext.read(source)
    where = {"metadata": {"path": str(folder)}}
    notebook.cells.append(new_code_cell(NO_TORCH))
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=where, coalesce_streams=True)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    client.execute(env={**os.environ, "MPLBACKEND": INLINE, "PYTHONPATH": path, "PYTHONWARNINGS": "", "COLUMNS": "120"})
    notebook.cells.pop()
    return cleaned(notebook)


def cleaned(notebook: Any) -> Any:
    """Without what differs from run to run: random ids, the times of cells, versions."""
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
    notebook.metadata = METADATA
    return notebook


def cells(notebook: Any) -> list[tuple[str, str]]:
    """Kind and source of every cell."""
    return [(cell["cell_type"], "".join(cell["source"]).rstrip()) for cell in notebook["cells"]]


def texts(notebook: Any) -> Iterator[tuple[int, str, str]]:
    """(cell, kind, text) of every output: all that is not a picture word for word, of a picture that there is one.

    Memory addresses are left out. Pictures may differ in their pixels: fonts and versions draw them.
    """
    for number, cell in enumerate(notebook["cells"]):
        for output in cell.get("outputs", ()):
            data = output.get("data") or {output.get("name", output["output_type"]): output.get("text", "")}
            for kind, text in sorted(data.items()):
                shown = "a picture" if kind.startswith("image/") else ADDRESS.sub("0x...", "".join(text))
                yield number, kind, shown


def pictures(notebook: Any) -> int:
    """How many figures it holds."""
    return sum(kind == "image/png" for _, kind, _ in texts(notebook))


def main(names: Sequence[str]) -> None:
    import nbformat

    known = {path.stem: path for path in sources()}
    if wrong := [name for name in names if name not in known]:
        raise SystemExit(f"no notebook {', '.join(wrong)}; there is: {', '.join(known)}")
    for name in names or known:
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(execute(known[name], folder), known[name].with_suffix(".ipynb"))
        print(known[name].with_suffix(".ipynb").relative_to(ROOT))


if __name__ == "__main__":
    main(sys.argv[1:])
