"""A small experiment that runs in a tenth of a second: synthetic routing, SmolLM2's shape, shipped costs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

TINY: dict[str, Any] = {
    "name": "tiny",
    "trace": {"synthetic": "sticky", "sequences": 24, "prompt_tokens": 6, "output_tokens": 8},
    "model": "smollm2-135m-readme",
    "costs": "a100-pcie4-smollm2-135m-readme",
    "link": "a100-pcie4",
    "memory": {"slots": 3},
    "traffic": {"kind": "closed", "concurrency": 3, "requests": 8},
    "steps": 20,
    "warmup_steps": 4,
}


def tiny(**changes: Any) -> dict[str, Any]:
    """The tiny experiment with top-level keys replaced; None removes one."""
    document = copy.deepcopy(TINY) | changes
    return {key: value for key, value in document.items() if value is not None}


def write(folder: Path, name: str = "tiny.yaml", **changes: Any) -> Path:
    """The tiny experiment as a file."""
    path = folder / name
    path.write_text(yaml.safe_dump(tiny(**changes), sort_keys=False))
    return path
