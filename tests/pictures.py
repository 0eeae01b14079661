"""The pictures of docs/figures. `python -m tests.pictures [NAME...]` makes them anew: minutes, experiments run whole.

The timelines have a command of their own, `python -m tests.sim.timelines.draw`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.regression.slip import ROOT, environment, slipped

FIGURES = ROOT / "docs" / "figures"
PICTURES = {
    "lookahead-cases.png": ("lookahead", "cases.png"),
    "lookahead-horizon.png": ("lookahead", "horizon-horizon.png"),
    "memory-split.png": ("memory-split", "memory-kv-share.png"),
    "saturation-latency.png": ("saturation", "latency-latency.png"),
    "regress.png": ("", "caches.png"),
}
"""picture -> the experiment whose results hold it, and its name there; no experiment: the page of the slip in LRU"""

MEASURED = {
    "roofline-cpu.png": "moesim profile --shape smollm2-135m-readme --device cpu --name cpu --out traces "
    "--throttle 2GB --sizes 4KiB,64KiB,256KiB,1MiB,4MiB,16MiB",
    "validate-cpu.png": "moesim validate experiments/validate-cpu.yaml --measured traces/live/validate-cpu",
}
"""pictures of what was measured -> the command that draws them; on another machine the first one draws other points"""


def command(experiment: str) -> str:
    """What a reader runs to have the picture."""
    return f"moesim run experiments/{experiment}.yaml" if experiment else "python -m tests.pictures regress.png"


def make(experiment: str, folder: Path) -> Path:
    """Run what a picture is of; the folder that holds it then."""
    if not experiment:
        done = slipped(folder)
        assert done.returncode == 1, done.stderr
        return folder / "page"
    words = [sys.executable, "-m", "moesim", *command(experiment).split()[1:], "--out", str(folder / "results")]
    subprocess.run(words, check=True, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    return folder / "results"


def main(names: list[str]) -> None:
    """Make these pictures, or all."""
    if unknown := sorted(set(names) - set(PICTURES)):
        sys.exit(f"no such picture: {', '.join(unknown)}. There is: {', '.join(PICTURES)}")
    wanted = {name: source for name, source in PICTURES.items() if not names or name in names}
    for experiment in dict.fromkeys(experiment for experiment, _ in wanted.values()):
        with tempfile.TemporaryDirectory() as folder:
            found = make(experiment, Path(folder))
            for name, (of, drawn) in wanted.items():
                if of == experiment:
                    print(shutil.copy(found / drawn, FIGURES / name))


if __name__ == "__main__":
    main(sys.argv[1:])
