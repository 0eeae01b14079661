"""A deliberate slip in a policy turns the command red, with a page on which a stranger sees what happened; and the
project's own regression file runs every policy that is shipped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import moesim
from moesim import policy, presets
from moesim.document import parse
from moesim.files import shipped
from moesim.regression import baselines
from moesim.regression.file import read_suite
from tests.analysis.page import Page
from tests.regression import slip
from tests.regression.files import call, regression
from tests.regression.slip import ROOT
from tests.tiny import write

OWN = Path(__file__).with_name("regression.yaml")
Slipped = tuple[subprocess.CompletedProcess[str], Path]


@pytest.fixture(scope="module")
def slipped(tmp_path_factory: pytest.TempPathFactory) -> Slipped:
    """The program with the slip in the shipped LRU, on the project's own baselines; the real command."""
    root = tmp_path_factory.mktemp("slipped")
    return slip.slipped(root), root / "page"


def test_it_is_red_and_names_metric_change_and_plot(slipped: Slipped) -> None:
    done, page = slipped
    assert done.returncode == 1 and done.stderr == ""
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[1] == "All that changed is in the 2 runs with cache lru, and in no other"
    (misses,) = [line for line in lines if line.startswith("miss_keys ")]
    assert "in the 2 runs with cache lru" in misses and " -> " in misses
    assert misses.endswith("[page/caches-miss_keys.png]") and (page / "caches-miss_keys.png").is_file()


def test_every_number_on_the_page_is_true(slipped: Slipped) -> None:
    _, page = slipped
    before, now = baselines.read(OWN.parent / "baselines", "caches"), baselines.read(page / "now", "caches")
    assert before is not None and now is not None
    changed = {
        (name, metric)
        for name, run in now.runs.items()
        for metric, value in run.values.items()
        if value != before.runs[name].values[metric]
    }
    document = json.loads((page / "regress.json").read_text())
    found = {(c["run"], c["metric"]): (c["before"], c["after"]) for c in document["experiments"][0]["changes"]}
    assert changed == set(found) and {name.split(" | ")[1] for name, _ in changed} == {"cache=lru"}
    assert all(pair == (before.runs[n].values[m], now.runs[n].values[m]) for (n, m), pair in found.items())
    read = Page((page / "regress.html").read_text())
    shown = {cell.text for cell in read.find("td")}
    assert {f"{value:,}" for pair in found.values() for value in pair} <= shown


def test_a_stranger_sees_what_happened(slipped: Slipped) -> None:
    _, page = slipped
    read = Page((page / "regress.html").read_text())
    text = " ".join(read.root.text.split())
    assert read.find("h1")[0].text.endswith("numbers changed in 1 of 1 experiment")
    for said in (
        "All that changed is in the 2 runs with cache lru, and in no other",
        "Every cache policy in both scopes",  # what the experiment guards
        "Misses: experts that were not there when their layer needed them",
        "If it is not meant",
        "ESTIMATED",
    ):
        assert said in text, said
    assert len(read.find("svg")) == 1 + len({path.stem for path in page.glob("caches-*.png")})


def test_in_a_users_own_folder_with_a_policy_of_their_own(tmp_path: Path) -> None:
    source = shipped("policies", "cache", "lru.py").read_text()
    (tmp_path / "policies").mkdir()
    mine = tmp_path / "policies" / "mine.py"
    mine.write_text(source)
    regression(tmp_path)
    changes = {"memory": {"slots": 4}, "traffic": {"kind": "closed", "concurrency": 8, "requests": 1000}, "steps": 40}
    write(tmp_path, cache=["policies/mine.py", "lfu"], **changes)
    assert call(tmp_path, "--update").exit_code == 0 and call(tmp_path).exit_code == 0
    mine.write_text(source.replace(slip.LEAST, slip.MOST))
    done = call(tmp_path)
    assert done.exit_code == 1 and "with cache policies/mine.py, and in no other" in done.stdout


def test_compiled_steps_do_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a policy by the rule that it states, and the slipped LRU states that of LRU."""
    wanted = []

    def compiled_steps(*given: object) -> None:
        wanted.append(given[-1])

    monkeypatch.setattr(sys.modules["moesim.sim.simulate"], "compiled_steps", compiled_steps)
    regression(tmp_path)
    assert call(tmp_path, "--update").exit_code == 0 and wanted == [False, False]


# -- the project's own file --------------------------------------------------------------------------------------------


def test_every_shipped_policy_and_preset_is_run_and_has_baselines() -> None:
    suite = read_suite(OWN)
    configs = [config for check in suite.checks for config in check.plan.configs]
    used = {
        "cache": {c.cache.name for c in configs},
        "prefetch": {c.prefetch.name for c in configs},
        "miss": {c.miss.name for c in configs},
        "batch": {c.scheduler.batch.name for c in configs},
    }
    for kind, names in used.items():
        assert not set(policy.names(kind)) - names, f"{kind} policies that tests/regression/regression.yaml leaves out"
    assert not set(presets.names()) - {c.preset for c in configs}
    (caches,) = [check for check in suite.checks if check.name == "caches"]
    both = {(c.cache.name, c.memory.scope) for c in caches.plan.configs}
    assert both == {(name, scope) for name in policy.names("cache") for scope in ("layer", "global")}
    for check in suite.checks:
        kept = baselines.read(suite.baselines, check.name)
        assert kept is not None and len(kept.runs) == len(check.plan.runs()) and set(kept.metrics) == set(check.rules)
        assert all(rule.kind == "exact" for rule in check.rules.values())
    assert baselines.known(suite.baselines) == sorted(suite.names)


LEFT_OUT = {
    "binding.yaml": "lookahead.yaml with longer requests",
    "first.yaml": "a part of lookahead.yaml",
    "validate-cpu.yaml": "held against measured runs",
    "validate-gpu-fine-grained.yaml": "held against measured runs",
    "validate-gpu-llama.yaml": "held against measured runs",
}


def test_each_shipped_experiment_is_in_it_or_left_out_for_a_reason() -> None:
    files = {Path(check.plan.source).name for check in read_suite(OWN).checks}
    shown = {path.name for path in shipped("experiments").glob("*.yaml")}
    assert files == shown - set(LEFT_OUT), "an experiment that is new: cut it short in regression.yaml, or say why not"


# -- continuous integration --------------------------------------------------------------------------------------------


def test_the_workflow_of_the_documentation_is_one_and_its_command_is_a_command(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "regress-workflow.yml").read_text()
    assert text in (ROOT / "docs" / "regress.md").read_text(), "docs/regress.md quotes the file"
    workflow = parse(text, "workflow").plain()
    assert workflow["on"].keys() == {"push", "pull_request"}
    (job,) = workflow["jobs"].values()
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    (command,) = [step["run"] for step in job["steps"] if "moesim" in step.get("run", "")]
    program, verb, *words = command.split()
    assert (program, verb) == ("moesim", "regress")
    regression(tmp_path)
    assert call(tmp_path, "--update").exit_code == 0 and call(tmp_path, *words).exit_code == 0
    (upload,) = [step for step in job["steps"] if "upload-artifact" in step.get("uses", "")]
    assert upload["if"] == "${{ !cancelled() }}" and (tmp_path / upload["with"]["path"] / "regress.html").is_file()


def test_the_projects_own_workflow_keeps_the_page() -> None:
    workflow = parse((ROOT / ".github" / "workflows" / "ci.yml").read_text(), "ci").plain()
    steps = workflow["jobs"]["run"]["steps"]
    (run,) = [step for step in steps if step.get("run") == ".ci/run"]
    (upload,) = [step for step in steps if "upload-artifact" in step.get("uses", "")]
    assert upload["if"] == "${{ !cancelled() }}"
    assert run["env"]["MOESIM_CI_ARTIFACTS"] == upload["with"]["path"]
    assert "MOESIM_CI_ARTIFACTS" in (ROOT / ".ci" / "run").read_text()


def test_this_is_the_moesim_that_is_tested() -> None:
    assert Path(moesim.__file__).parents[1] == ROOT
