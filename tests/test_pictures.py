"""Every picture of the documentation can be made anew by a command that stands beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from moesim.experiment import RunConfig
from moesim.plan import read_plan
from tests.pictures import FIGURES, MEASURED, PICTURES, ROOT, command

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_list_is_complete() -> None:
    assert {path.name for path in FIGURES.iterdir() if path.is_file()} == {*PICTURES, *MEASURED}


@pytest.mark.parametrize("name", [*PICTURES, *MEASURED])
def test_the_command_stands_below_the_picture(name: str) -> None:
    words = MEASURED[name] if name in MEASURED else command(PICTURES[name][0])
    shown = [page for page in PAGES if f"figures/{name})" in page.read_text(encoding="utf-8")]
    assert shown, f"no page shows {name}"
    for page in shown:
        below = page.read_text(encoding="utf-8").partition(f"figures/{name})")[2][:400]
        assert f"`{words}`" in below, f"{page.name}: {words} is not said below {name}"


@pytest.mark.parametrize("name", [name for name, (experiment, _) in PICTURES.items() if experiment])
def test_the_experiment_draws_a_figure_of_that_name(name: str) -> None:
    """Figures are named by what their sets differ in, which the plan of the experiment tells."""
    experiment, drawn = PICTURES[name]
    kind = Path(drawn).stem.rpartition("-")[2]
    configs: tuple[RunConfig, ...] = read_plan(ROOT / "experiments" / f"{experiment}.yaml").configs
    cases = {config.labels.get("case", "").replace(" ", "-") for config in configs}
    starts = {"cases", "memory-kv", *cases}
    assert Path(drawn).stem.removesuffix(f"-{kind}") in starts, f"{drawn} begins with none of {sorted(starts)}"


def test_timelines_have_their_own_command() -> None:
    assert "`python -m tests.sim.timelines.draw`" in (ROOT / "docs" / "timelines.md").read_text(encoding="utf-8")
