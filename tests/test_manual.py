"""What the manual shows is so: generated pages are the program's, examples run, tables of fields are complete."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

import moesim
from moesim.cli import app
from moesim.experiment import Experiment
from moesim.manual import commands, experiment
from moesim.manual.__main__ import main
from moesim.manual.pages import linked, with_lists, written
from moesim.policy import FAR_VIEWS, LEVELS, NEAR_VIEWS, LayerView, PredictedView, StepView, View
from moesim.trace.meta import RoutingMeta
from moesim.trace.routing import RoutingTrace, write_routing
from tests.test_schema import validator  # noqa: F401
from tests.tiny import tiny

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(written(DOCS))


# -- generated pages ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_generated_pages_are_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == written(DOCS)[name], "run: python -m moesim.manual"


def test_what_is_out_of_date_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (DOCS / "policies.md").read_text(encoding="utf-8")
    (tmp_path / "policies.md").write_text(re.sub(r"\| `lru` .*\n", "", page), encoding="utf-8")
    assert with_lists("no marks") == "no marks"
    main(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(PAGES)
    assert (tmp_path / "policies.md").read_text(encoding="utf-8") == page
    assert capsys.readouterr().out.count(": written") == len(PAGES)
    main(tmp_path)
    assert capsys.readouterr().out.count(": is as it was") == len(PAGES)


def test_the_page_of_the_experiment_file_is_what_the_command_prints() -> None:
    done = CliRunner().invoke(app, ["schema", "--markdown"])
    assert (done.exit_code, done.output) == (0, (DOCS / "experiment-file.md").read_text(encoding="utf-8"))


def keys(schema: Any) -> set[str]:
    """Names of all keys of a file, in any section."""
    found = set(schema.get("properties", ()))
    for definition in schema.get("$defs", {}).values():
        found |= set(definition.get("properties", ()))
    return found


def test_the_page_has_every_key_of_the_file() -> None:
    shown = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "experiment-file.md").read_text(), re.MULTILINE))
    titles = re.findall(r"^## (.*)", (DOCS / "experiment-file.md").read_text(), re.MULTILINE)
    assert len(set(titles)) == len(titles), "a section without a title of its own: moesim.manual.experiment.TITLES"
    assert shown == (keys(Experiment.model_json_schema(by_alias=True)) | {"cases"}) - {"params"}


@pytest.mark.parametrize("path", experiment.EXAMPLES)
def test_examples_of_the_page_are_parts_of_an_experiment(path: str, validator: Any) -> None:  # noqa: F811
    for text in experiment.EXAMPLES[path].split("# or\n"):
        part = yaml.safe_load(text)
        place = path.split(",")[0]
        assert list(part) == [place.split(".")[0]]
        assert not list(validator.iter_errors(tiny(**part)))
        at = part
        for key in place.split("."):
            assert key in at, f"the example shows {path}"
            at = at[key]


def test_every_option_of_the_help_is_on_the_page_of_commands() -> None:
    found = list(commands.commands(app, "moesim"))
    assert {"moesim run", "moesim trace info", "moesim policies", "moesim policies check"} <= {c.name for c in found}
    for command in found:
        shown = CliRunner().invoke(app, [*command.name.split()[1:], "--help"], env={"COLUMNS": "200"}).output
        names = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown.split("Options")[1])) - {"--help"}
        said = {word for p in command.parameters for word in re.findall(r"--[a-z-]+", p.name)}
        mentioned = {word for p in command.parameters for word in re.findall(r"--[a-z-]+", p.text)}
        assert said <= names and names - said <= mentioned, command.name


def test_commands_of_any_application() -> None:
    made, group = typer.Typer(), typer.Typer()

    @made.command("go")
    def _go(sure: Annotated[bool, typer.Option(help="Do it.")] = True) -> None:
        """Go | stay."""

    @group.command()
    def two_words(
        many: Annotated[list[int], typer.Argument(help="Numbers.")],
        some: Annotated[list[str] | None, typer.Option("-s", "--some", help="Words.")] = None,
        limit: Annotated[float, typer.Option()] = 0.5,
        secret: Annotated[bool, typer.Option(hidden=True)] = False,
    ) -> None:
        """Do it."""

    @group.command(hidden=True)
    def secret() -> None: ...

    made.add_typer(group, name="group")
    go, two = commands.commands(made, "x")
    assert (go.name, go.usage, go.text) == ("x go", "x go [OPTIONS]", "Go | stay.")
    assert [(p.name, p.default) for p in go.parameters] == [("--sure, --no-sure", "`yes`")]
    assert two.usage == "x group two-words [OPTIONS] MANY..."
    assert [(p.name, p.default, p.text) for p in two.parameters] == [
        ("MANY...", "", "Numbers."), ("-s, --some TEXT", "", "Words. Repeatable."), ("--limit X", "`0.5`", "")
    ]  # fmt: skip


def test_files_that_texts_name_become_links() -> None:
    assert linked("see docs/kv.md, `docs/model.md`; not docs/a.json") == (
        "see [kv.md](kv.md), [model.md](model.md); not docs/a.json"
    )


# -- the start page ----------------------------------------------------------------------------------------------------


def block(page: str, mark: str) -> str:
    """The code that stands below a mark."""
    found = re.findall(rf"<!-- {re.escape(mark)} -->\n```\w*\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    assert len(found) == 1
    return found[0]


def test_the_first_experiment_is_the_shipped_one() -> None:
    shipped = (ROOT / "experiments" / "first.yaml").read_text()
    assert shipped.endswith(block("index.md", "experiments/first.yaml"))


def test_the_first_look_is_what_is_printed(tmp_path: Path) -> None:
    results = moesim.run(ROOT / "experiments" / "first.yaml", out=tmp_path, figures=False)
    assert block("index.md", "moesim run experiments/first.yaml") in results.table()
    means = results.summary.groupby(["cache", "scope"])["misses_per_output_token"].mean()
    assert round(means["lookahead", "global"], 2) == 6.42


# -- the policy guide --------------------------------------------------------------------------------------------------

GUIDE = (DOCS / "writing-policies.md").read_text()
OWN = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", GUIDE, re.DOTALL)


def test_the_guide_has_an_example_of_each_kind() -> None:
    kinds = [kind for _, text in OWN for kind in moesim.policy.KINDS if f"({kind.title()}Policy)" in text]
    assert sorted(kinds) == sorted(moesim.policy.KINDS)


@pytest.mark.parametrize(("name", "text"), OWN, ids=[name for name, _ in OWN])
def test_its_examples_keep_the_rules(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    done = CliRunner().invoke(app, ["policies", "check", str(tmp_path / name)])
    assert done.exit_code == 0 and "checks passed" in done.output, done.output


def test_the_guide_names_everything_that_views_show() -> None:
    views = {**NEAR_VIEWS, PredictedView.level: PredictedView, **FAR_VIEWS}
    assert set(views) == set(LEVELS)
    uses = np.zeros(8, np.int64)
    made = [View(2, 4), LayerView(2, 4), PredictedView(2, 4, 1), StepView(2, 4, uses)]
    for level, view in views.items():
        assert re.search(rf"^\| `{level}` \| `{view.__name__}` \|", GUIDE, re.MULTILINE), level
    inside = {"named", "upcoming", "k", "level"}  # what predicted() and needed() read, and what a policy knows
    shown = {name for view in made for name in dir(view) if name[0] != "_"} - inside
    assert not [name for name in shown if not re.search(rf"`{name}\b", GUIDE)]


# -- the trace format --------------------------------------------------------------------------------------------------


def named(page: str, heading: str) -> set[str]:
    """The names in the first column of the table below a heading."""
    section = (DOCS / page).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_the_trace_format_has_every_field_and_column(tmp_path: Path) -> None:
    import pandas as pd

    assert named("trace-format.md", "Metadata") == set(RoutingMeta.model_fields)
    shape = (4, 3, 2)
    ids, weights = np.zeros(shape, np.int16) + np.arange(2, dtype=np.int16), np.ones(shape, np.float16)
    trace = RoutingTrace(
        meta=RoutingMeta(
            model="m", router="layerwise", layers=3, experts=4, k=1, m=2, p=2, key_bytes=8, label="synthetic"
        ),
        experts=ids[:, :, :1],
        weights=weights[:, :, :1],
        offsets=np.array([0, 4]),
        prompt_tokens=np.array([2], np.int32),
        domains=("d",),
        predicted={1: last_without(ids, 1), 2: last_without(ids, 2), 3: last_without(ids, 3)},
        predicted_weights={1: last_without(weights, 1), 2: last_without(weights, 2), 3: last_without(weights, 3)},
        top_experts=ids,
        top_weights=weights,
    )  # fmt: skip
    write_routing(tmp_path / "t.parquet", trace)
    assert named("trace-format.md", "Rows") == set(pd.read_parquet(tmp_path / "t.parquet").columns)


def last_without(values: np.ndarray, distance: int) -> np.ndarray:
    """Nothing is predicted of layers that are not there."""
    found = values.copy()
    found[:, max(0, values.shape[1] - distance) :] = -1 if values.dtype == np.int16 else 0
    return found
