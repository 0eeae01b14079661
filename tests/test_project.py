"""The project's own files agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from tests.conftest import REPEATING

ROOT = Path(__file__).parent.parent


def normal(requirement: str) -> str:
    """Name of a requirement, as package indexes compare names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=!~\[; ]", requirement)[0]).lower()


def test_constraints_pin_every_dependency_exactly_once() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line) for line in lines)
    pinned = [normal(line) for line in lines]
    assert len(set(pinned)) == len(pinned)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [name for extra in project["optional-dependencies"].values() for name in extra]
    assert len(wanted) > 20
    assert {normal(name) for name in wanted} <= set(pinned)


def test_the_readme_has_two_commands_that_set_up_and_run() -> None:
    commands = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("python3 -m venv ")]
    assert len(commands) == 2
    assert "moesim run experiments/lookahead.yaml" in commands[0]
    assert "pytest" in commands[1]
    assert all("-c constraints.txt" in command for command in commands)


def test_what_is_run_without_coverage_is_there() -> None:
    for name in REPEATING:
        path, _, test = name.partition("::")
        assert (ROOT / path).exists(), name
        assert not test or f"def {test}(" in (ROOT / path).read_text(), name
