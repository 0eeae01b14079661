"""The folder that `moesim regress` leaves: regress.html, regress.json, a PNG a plot, and the numbers of now."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moesim import __version__, results
from moesim.analysis.regression import page, words
from moesim.analysis.regression.numbers import Verdict
from moesim.errors import InputError, Problem
from moesim.regression import baselines
from moesim.regression.suite import Finished

PAGE, DATA, NOW = "regress.html", "regress.json", "now"


def check_folder(folder: Path) -> None:
    """Raise InputError unless the folder is one of an earlier comparison, empty, or can be made."""
    if (folder / DATA).is_file():
        return
    if problems := results.check_folder(folder):
        texts = (problem.text.replace("than results", "than a comparison") for problem in problems)
        raise InputError(Problem(str(folder), text) for text in texts)
    if results.is_results(folder):
        raise InputError(Problem(str(folder), "holds results of moesim run; give another folder with --out"))


def write(
    folder: Path, verdicts: Sequence[Verdict], found: Mapping[str, Finished], asked: page.Asked
) -> dict[str, Any]:
    """Write the whole folder, in place of an earlier one; give what `--json` prints."""
    with results.replacing(folder) as aside:
        drawn = {verdict.name: page.draw(verdict, aside) for verdict in verdicts}
        (aside / PAGE).write_text(page.render(verdicts, drawn, asked), encoding="utf-8")
        for name, done in found.items():
            if done.numbers is not None:
                baselines.write(aside / NOW, name, done.numbers)
                (aside / f"{name}-summary.csv").write_text(done.summary, encoding="utf-8")
        document = {
            "file": asked.file,
            "passed": all(verdict.passed for verdict in verdicts),
            "moesim": __version__,
            "said": words.headline(verdicts),
            "folder": str(folder),
            "page": str(folder / PAGE),
            "experiments": words.document(verdicts),
        }
        (aside / DATA).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return document
