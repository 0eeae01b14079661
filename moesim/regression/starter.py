"""A regression file to start from, for an experiment that there is."""

from __future__ import annotations

import os
from pathlib import Path

from moesim.analysis.regression.rules import GOLDEN
from moesim.errors import InputError, Problem
from moesim.experiment import STEPS_OF_A_WINDOW
from moesim.files import write_aside
from moesim.plan import Plan, read_plan

FEW = 40
"""steps that a starter asks for: enough that caches fill and evict, few enough to run with every change"""

TEXT = """\
# moesim regress {file}
#
# Runs these experiments, cut short, and holds their numbers against the baselines that are committed beside this file:
# exit code 1, a page and plots where one of them has changed. `moesim regress {file} --update` writes the baselines
# anew; look at their diff and commit it. All keys: docs/regress.md of moesim, `moesim schema --regression`.
baselines: {baselines}

# What is compared, per run. Simulated numbers are the same on every machine, so that counts, bytes and simulated
# times are compared exactly. `2%` lets a time differ that much; `interval` lets pass what replications do not show.
metrics: [{metrics}]
# metrics: {{miss_keys: exact, normalized_mean_ns: 2%, ns_per_output_token: interval}}

experiments:
  {name}:
    file: {experiment}
    about: {about}
    set: {changes}
"""


def write_starter(path: Path, experiment: Path) -> None:
    """Write a regression file for an experiment. Raises InputError where there is one, or the experiment is wrong."""
    if path.exists():
        raise InputError(Problem(str(path), "is there already; --init writes a new file"))
    plan = read_plan(experiment)
    changes = _changes(plan)
    text = TEXT.format(
        file=path,
        baselines="baselines" if path.name == "regression.yaml" else f"{path.stem}-baselines",
        metrics=", ".join(GOLDEN),
        name=plan.name,
        experiment=_quoted(Path(os.path.relpath(experiment, path.parent)).as_posix()),
        about=_quoted(plan.configs[0].question or f"the numbers of {plan.name} are what they were"),
        changes="{" + ", ".join(f"{key}: {value}" for key, value in changes.items()) + "}",
    )
    try:
        with write_aside(path) as aside:
            aside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(Problem(str(path), f"cannot be written ({error.strerror})")) from error


def _changes(plan: Plan) -> dict[str, int]:
    """Fewer steps and one replication; a window is left as long as it is, as its warm-up may need it."""
    steps = [config.steps for config in plan.configs if config.window is None]
    changes = {"replications": 1} if any(config.replications > 1 for config in plan.configs) else {}
    if steps and min(steps) > FEW and max(steps) < STEPS_OF_A_WINDOW:
        changes = {"steps": FEW, "warmup_steps": FEW // 4} | changes
    return changes


def _quoted(text: str) -> str:
    import yaml

    return yaml.safe_dump(text, width=10**9, allow_unicode=True).removesuffix("\n").removesuffix("\n...")
