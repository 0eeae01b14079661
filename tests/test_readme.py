"""What the README shows works as printed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moesim import policy
from moesim.check.toy import run
from moesim.cli import app
from moesim.experiment import PolicySpec
from moesim.files import shipped

README = Path(__file__).parents[1] / "README.md"


def example() -> str:
    found = re.findall(r"```python\n(# policies/cache/.*?)```", README.read_text(), re.S)
    assert len(found) == 1
    return found[0]


def test_it_passes_the_check_that_the_readme_recommends(tmp_path: Path) -> None:
    (tmp_path / "layer_cycle.py").write_text(example())
    done = CliRunner().invoke(app, ["policies", "check", str(tmp_path / "layer_cycle.py")])
    assert done.exit_code == 0, done.output


def test_the_policy_of_the_readme_is_one_file_of_under_25_lines() -> None:
    assert len(example().splitlines()) < 25


def test_it_is_found_by_name_and_runs_without_any_other_edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(shipped("policies"), tmp_path / "policies")
    name = re.match(r"# (policies/cache/\S+\.py)", example())
    assert name
    (tmp_path / name[1]).write_text(example())
    monkeypatch.setattr(policy.registry, "shipped", lambda *parts: tmp_path.joinpath(*parts))
    cache = Path(name[1]).stem.replace("_", "-")
    assert cache in policy.names("cache")
    assert policy.check("cache", PolicySpec(name=cache)) == []
    # Two requests keep to an expert each, and half of what they use in a step fits: a cyclic order, LRU's worst.
    two = {"traffic": {"kind": "all", "requests": 2}, "scheduler": {"max_requests": 2}}
    sequences = [([0], [0] * 9), ([1], [1] * 9)]
    memory = {"slots": 1, "scope": "global"}
    made = {c: run(sequences, cache=c, layers=4, memory=memory, **two) for c in ("lru", cache)}
    misses = {c: int(result.steps["miss_keys"].sum()) for c, result in made.items()}
    assert misses[cache] < misses["lru"], "the README says that it mends what a global LRU does wrong"
