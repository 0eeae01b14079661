"""The program with a deliberate slip: the shipped LRU evicts the key that was used last."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEAST, MOST = "for key in self.order:", "for key in reversed(self.order):"
"""what LRU evicts: the key used longest ago, or by the slip the one used last"""


def environment(root: Path = ROOT) -> dict[str, str]:
    """Of a process that uses the moesim of a folder, and is no job of a workflow."""
    kept = {key: value for key, value in os.environ.items() if key != "GITHUB_STEP_SUMMARY"}
    return kept | {"PYTHONPATH": str(root), "MPLBACKEND": "Agg"}


def slipped(root: Path) -> subprocess.CompletedProcess[str]:
    """Copy the program into a folder, slip, and run the real command on the project's own baselines: into root/page."""
    for name in ("moesim", "policies", "tests/regression"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("traces", "experiments"):
        (root / name).symlink_to(ROOT / name)
    lru = root / "policies" / "cache" / "lru.py"
    source = lru.read_text()
    assert LEAST in source
    lru.write_text(source.replace(LEAST, MOST))
    words = ["regress", "tests/regression/regression.yaml", "--only", "caches", "--jobs", "1", "--out", "page"]
    command = [sys.executable, "-m", "moesim", *words]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment(root))
