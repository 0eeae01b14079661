"""`moesim live`: from an experiment file to a results folder that says MEASURED."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.cli import app  # noqa: E402
from moesim.hardware import roofline  # noqa: E402
from moesim.hardware.shape import load_shape  # noqa: E402
from moesim.live.engine import campaign, differences  # noqa: E402
from moesim.live.engine.machine import Options  # noqa: E402
from moesim.sim.engine import PARTS  # noqa: E402
from tests.live.engine.small import shape  # noqa: E402

RUNNER = CliRunner()


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    fields = shape(2, 4).model_dump(mode="json", exclude={"name", "key_map", "key_sizes"})
    Path("small.yaml").write_text(yaml.safe_dump(fields))
    Path("costs.json").write_text(json.dumps(roofline.document(load_shape("small.yaml"), "h100-pcie5")))
    document = {
        "name": "tried",
        "trace": {"synthetic": "sticky", "sequences": 8, "prompt_tokens": 4, "output_tokens": 5},
        "model": "small.yaml",
        "costs": "costs.json",
        "link": "pcie3",
        "schedule": "frozen",
        "steps": 12,
        "warmup_steps": 2,
        "memory": {"slots": 2},
        "traffic": {"kind": "closed", "concurrency": 2, "requests": 8},
        "cache": ["lru", "lfu"],
        "machine": {"expert_start": "barrier"},
    }
    path = Path("tried.yaml")
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def live(*arguments: Any) -> Result:
    return RUNNER.invoke(app, ["live", *map(str, arguments)])


def test_the_command_that_is_recorded_has_no_folders_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["live", "/home/me/a b.yaml", "--out=/home/me/out", "--set", "costs=/home/me/t.json"]
    monkeypatch.setattr("sys.argv", ["/a/bin/moesim", *words, "--set", "link=l/m.json"])
    said = "moesim live 'a b.yaml' --out=out --set costs=t.json --set link=l/m.json)"
    assert campaign.labels(Options(), "CPU")["live"].endswith(said)


def test_a_folder_of_measured_results(experiment: Path) -> None:
    result = live(experiment, "--quiet", "--check", "--repeats", 2)
    assert result.exit_code == 0, result.output
    folder = Path("results/live/tried")
    rows = pd.read_csv(folder / "summary.csv")
    assert list(zip(rows["cache"], rows["repeat"], strict=True)) == [("lru", 0), ("lru", 1), ("lfu", 0), ("lfu", 1)]
    for name in ("label_live", "label_costs", "label_link"):
        assert rows[name].str.startswith("MEASURED (").all()
    assert (rows[["bound_resident_ns", "bound_transfer_ns"]] == -1).all(axis=None)
    assert (rows["min_miss_keys"] >= 0).all()
    steps = pd.read_parquet(folder / "steps.parquet")
    parts = [f"{part}_ns" for part in PARTS]
    assert (steps[parts].sum(axis=1) == steps["end_ns"] - steps["start_ns"]).all()
    assert (steps[["attention_ns", "rest_ns", "experts_ns"]] > 0).all(axis=None)
    assert (steps["start_ns"].diff().dropna()[steps["step"] > 0] > 0).all()
    for name in ("requests", "tokens"):
        assert (folder / f"{name}.parquet").is_file()
    record = json.loads((folder / "run.json").read_text())
    assert record["live"]["torch"] == torch.__version__
    assert [run["equal"] for run in record["live"]["agreement"]] == [True] * 4
    assert RUNNER.invoke(app, ["report", str(folder)]).exit_code == 0


def test_an_interrupted_command_goes_on(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right, done = campaign.run_live, []

    def stopped(*args: Any, **kwargs: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(right(*args, **kwargs))
        return done[-1]

    monkeypatch.setattr(campaign, "run_live", stopped)
    result = live(experiment, "--quiet")
    assert result.exit_code == 130 and "goes on" in result.output
    assert not Path("results/live/tried").exists()
    monkeypatch.setattr(campaign, "run_live", right)
    assert live(experiment, "--quiet", "--throttle", "1GB", "--out", "other").exit_code == 0
    assert json.loads(Path("other/run.json").read_text())["reused"] == 0
    assert live(experiment, "--quiet").exit_code == 0
    assert json.loads(Path("results/live/tried/run.json").read_text())["reused"] == 1


def test_a_stated_link_is_no_measurement(experiment: Path) -> None:
    arguments = ("--throttle", "100MB", "--throttle-fixed", "500", "--set", "cache=lru", "--json")
    result = live(experiment, *arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)["experiments"][0]
    row = document["runs"][0]
    assert row["label_link"].startswith("ESTIMATED (real copies, each held back to a stated 0.1 GB/s and 500 us a copy")
    keys = row["demand_bytes"] // (3 * 8 * 4 * 4)
    assert keys and row["link_busy_ns"] >= keys * 503_840
    assert document["agreement"] == [{"run": 0, "equal": True, "broken": False, "reasons": [], "differing": {}}]


def test_differences_have_reasons_or_fail(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = live(experiment, "--set", "prefetch=next-layer", "--set", "cache=lru")
    assert ahead.exit_code == 0 and "Counts: those of the simulator" in ahead.output
    free = live(experiment, "--set", "schedule=free", "--set", "cache=lru")
    assert free.exit_code == 0 and "not compared in a free schedule" in free.output
    monkeypatch.setattr(campaign, "simulate", lambda *args, **kwargs: _other())
    broken = live(experiment, "--set", "cache=lru", "--quiet")
    assert broken.exit_code == 1 and "NO REASON IN TIMING" in broken.output


def _other() -> Any:
    from types import SimpleNamespace

    return SimpleNamespace(steps={name: [1] * 12 for name in differences.COUNTED})


def test_all_that_cannot_be_run_is_said_at_once(experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = live(experiment, "--throttle", "fast", "--experts", "some")
    assert wrong.exit_code == 2 and "--throttle" in wrong.output and "auto, grouped, looped" in wrong.output
    assert live(experiment, "--throttle-fixed", 3).exit_code == 2
    settings = ("miss=smaller-copy", "memory.kv={blocks: 64, preempt: swap}")
    result = live(experiment, *(part for setting in settings for part in ("--set", setting)))
    assert result.exit_code == 2
    assert "live machine waits for every miss" in result.output and "preempt: recompute" in result.output
    assert live(experiment, "--device", "abacus").exit_code == 2
    if not torch.cuda.is_available():
        assert "finds no GPU here" in live(experiment, "--device", "cuda").output
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    other = live(experiment, "--device", "cuda:2")
    assert other.exit_code == 2 and "torch finds 2" in other.output
    assert not Path("results").exists()


def test_a_shape_that_no_product_here_computes(experiment: Path) -> None:
    name = "smollm2-135m-readme-int4"
    result = live(experiment, "--set", f"model={name}", "--set", f"costs=h100-pcie5-{name}")
    assert result.exit_code == 2 and "expert_bits" in result.output


def test_a_dry_run_writes_nothing(experiment: Path) -> None:
    result = live(experiment, "--dry-run", "--repeats", 3)
    assert result.exit_code == 0 and "6 points, 6 runs -> results/live/tried" in result.output
    assert not Path("results").exists()
