"""Which pages under docs/ the program writes, whole or in part, and their text."""

from __future__ import annotations

import re
from pathlib import Path

END = "<!-- to here -->"


def written(folder: Path) -> dict[str, str]:
    """File name -> text, as it has to be. `folder` is docs/: the list of policies stands among what others wrote."""
    from moesim.commands.terminal import dump
    from moesim.manual import commands, experiment
    from moesim.schema import experiment_schema

    return {
        "commands.md": linked(commands.page()),
        "experiment-file.md": linked(experiment.page()),
        "experiment.schema.json": dump(experiment_schema()) + "\n",
        "policies.md": with_lists((folder / "policies.md").read_text(encoding="utf-8")),
    }


def linked(text: str) -> str:
    """Pages that help texts and descriptions name as files, as links."""
    return re.sub(r"`?\bdocs/([\w-]+\.md)`?", r"[\1](\1)", text)


def with_lists(text: str) -> str:
    """The page of policies with the lists that its marks call for, `<!-- from here: moesim policies ... -->`."""
    from moesim.commands.policies import markdown_of

    def filled(match: re.Match[str]) -> str:
        kind = match["kind"] or ""
        return f"{match['mark']}\n\n{markdown_of(kind)}\n\n{END}"

    marked = rf"(?P<mark><!-- from here: moesim policies --markdown(?: --kind (?P<kind>\w+))? -->)\n.*?{END}"
    return re.sub(marked, filled, text, flags=re.DOTALL)
