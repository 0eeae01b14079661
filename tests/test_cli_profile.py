"""`moesim profile` as a command: what it refuses, and a profile of a tiny shape."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_cli import call

SHAPE = """
layers: 2
d_model: 16
expert_width: 8
experts: 2
top_k: 1
heads: 2
kv_heads: 1
head_dim: 8
vocab: 32
"""
FEW = ["--points", "tokens=1,4", "--points", "batch=1,2", "--points", "context=1,8", "--points", "past=0,4"]


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="needs the live extra (torch)")


def test_without_torch_it_says_how_to_get_it() -> None:
    gone = "import sys; sys.modules['torch'] = None; sys.argv = ['moesim', 'profile']"
    code = f"{gone}\nfrom moesim.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "moesim: bad input\n  moesim profile: needs torch: pip install 'moesim[live]'\n"


def test_every_mistake_is_said_at_once(torch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = call(
        "profile", "--device", "tpu", "--shape", "nope", "--shape", "llama-2-7b-readme-int4", "--what", "links",
        "--points", "tokens=4,1", "--sizes", "4", "--experts", "both", "--throttle-fixed", 5, "--memory", "much",
        "--out", tmp_path / "file" / "out",
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (2, "")
    assert [line.split(":")[0].strip() for line in done.stderr.splitlines()[1:]] == [
        "model", "llama-2-7b-readme-int4", "--device", "--what", "--experts", "--throttle-fixed", "--out", "--memory",
        "--sizes", "--points tokens=4,1",
    ]  # fmt: skip


def test_a_cuda_device_that_is_not_there(torch) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = call("profile", "--device", "cuda")
    assert done.exit_code == 2 and "torch finds no CUDA device" in done.stderr


def test_tables_figure_and_json(torch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moesim.live import machine

    monkeypatch.setattr(machine, "WORK", 2**16)
    monkeypatch.setattr(machine, "SIDE", {"cpu": 16})
    monkeypatch.setattr(sys, "argv", ["moesim", "profile", "--shape", str(tmp_path / "small.yaml"), "--quick"])
    (tmp_path / "small.yaml").write_text(SHAPE)
    words = ["profile", "--shape", tmp_path / "small.yaml", "--device", "cpu", "--quick", "--repeats", 2]
    words += ["--seconds", 0, "--memory", "1MiB", "--sizes", "4KiB,64KiB", "--out", tmp_path / "out", *FEW]
    done = call(*words, "--json")
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    (row,) = json.loads(done.stdout)["tables"]
    costs = json.loads(Path(row["costs"]).read_text())
    assert (costs["label"], costs["name"]) == ("MEASURED", "cpu-small")
    assert costs["command"] == "moesim profile --shape small.yaml --quick", "no paths of one machine"
    assert costs["components"]["experts"]["axes"] == {"tokens": [1, 4], "active": [1, 2]}
    assert all(Path(path).is_file() for path in row["figure"])
    again = call(*words, "--what", "link", "--name", "mine")
    assert again.exit_code == 0 and "MEASURED on CPU: " in again.stdout and "GB/s" in again.stdout
    assert (tmp_path / "out" / "links" / "mine.json").is_file()
    assert "mine-small: link" in again.stderr


def test_a_stop_says_how_to_go_on(torch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from moesim.live import machine

    def stop(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(machine, "peaks", stop)
    done = call("profile", "--device", "cpu", "--quick", "--out", tmp_path / "out", "--quiet")
    assert done.exit_code == 130 and "goes on from the sections that are done" in done.stderr
