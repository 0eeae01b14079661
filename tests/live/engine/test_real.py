"""A refactorized model, served live: every request gets the tokens that the model gives it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")
pytest.importorskip("transformers", reason="needs the live extra (transformers)")

from moesim.cli import app  # noqa: E402
from moesim.hardware import roofline  # noqa: E402
from moesim.hardware.shape import load_shape  # noqa: E402
from moesim.live.deltas import LayerDeltas, reach_of  # noqa: E402
from moesim.live.domains import DomainModel  # noqa: E402
from moesim.live.engine import real as module  # noqa: E402
from moesim.live.engine.model import LiveModel  # noqa: E402
from moesim.live.refactorized import Refactorized  # noqa: E402
from moesim.sim.workload import Request  # noqa: E402

EXPERTS, OUTPUT = 5, 6


@pytest.fixture
def refactorized(dense: Any, router: Any, experts: Any) -> Refactorized:
    """The tiny LLaMA with five experts of 12 of its 24 channels, tuned ones."""
    model = DomainModel(dense.model, router, experts).eval()
    random = torch.Generator().manual_seed(7)
    for ffn in model.ffns:
        ffn.deltas = LayerDeltas(16, 24, 2 + EXPERTS, random)
        ffn.reach = reach_of(EXPERTS, 1, 2)
    model.requires_grad_(False)
    for ffn in model.ffns:
        for part in ffn.deltas.values():
            part.up.copy_(0.3 * torch.randn(part.up.shape, generator=random))
    meta = {"scheme": "domains", "model": "tiny in five", "layers": 3, "experts": EXPERTS, "d_model": 16}
    meta |= {"expert_width": 12}
    return Refactorized(model, router, dense.tokenizer, meta, dense)


@pytest.fixture
def experiment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refactorized: Refactorized) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "load_refactorized", lambda folder: refactorized)
    Path("folder").mkdir()
    Path("folder/refactorized.json").write_text("{}")
    random = np.random.default_rng(4)
    prompts = [
        {"ids": random.integers(2, 64, size=size).tolist(), "domain": "ab"[number % 2], "output": OUTPUT}
        for number, size in enumerate((3, 9, 1, 6, 4, 12))
    ]
    Path("prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    fields = {
        "layers": 3, "d_model": 16, "expert_width": 12, "experts": EXPERTS, "top_k": 1, "heads": 4, "kv_heads": 2,
        "head_dim": 4, "vocab": 64, "dense_bits": 32, "expert_bits": 32, "kv_bits": 32,
    }  # fmt: skip
    Path("shape.yaml").write_text(yaml.safe_dump(fields))
    Path("costs.json").write_text(json.dumps(roofline.document(load_shape("shape.yaml"), "h100-pcie5")))
    document = {
        "name": "served",
        "trace": {"synthetic": "sticky", "sequences": 4, "prompt_tokens": 4, "output_tokens": 5},
        "model": "shape.yaml", "costs": "costs.json", "link": "pcie3",
        "steps": 200, "memory": {"slots": 3}, "machine": {"chunk_bytes": 1000},
        "traffic": {"kind": "closed", "concurrency": 3, "requests": 6},
        "scheduler": {"batch": "chunked-prefill", "max_requests": 3, "max_tokens": 6},
    }  # fmt: skip
    path = Path("served.yaml")
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


def live(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["live", *map(str, arguments), "--model", "folder", "--prompts", "prompts.jsonl"])


@pytest.mark.parametrize("place", ["critical", "side"])
def test_every_request_gets_the_tokens_of_the_model_alone(
    experiment: Path, refactorized: Refactorized, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    said: dict[int, tuple[Request, list[int]]] = {}
    right = LiveModel._read_tokens

    def read(self: LiveModel) -> None:
        for request, token in zip(self.yielding, self.sampled.tolist() if self.yielding else (), strict=True):
            said.setdefault(request.number, (request, []))[1].append(token)
        right(self)

    monkeypatch.setattr(LiveModel, "_read_tokens", read)
    changes = ("--set", f"machine.router={place}", "--set", "prefetch=next-layer")
    result = live(experiment, "--quiet", "--check", *changes)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line)["ids"] for line in Path("prompts.jsonl").read_text().splitlines()]
    assert len(said) == 6
    for request, tokens in said.values():
        ids = lines[request.captured]
        for token in tokens:
            assert token == int(refactorized.model(torch.tensor([ids])).logits[0, -1].argmax())
            ids = [*ids, token]
        assert len(tokens) == OUTPUT
    row = pd.read_csv("results/live/served/summary.csv").iloc[0]
    assert row["label_routing"] == "routing: computed by tiny in five, shape: shape"
    assert row["requests_finished"] == 6 and row["miss_keys_prefill"] + row["miss_keys_decode"] > 0


def test_what_does_not_go_with_a_real_model_is_said(experiment: Path, refactorized: Refactorized) -> None:
    changes = ("schedule=frozen", "traffic.prompt=4", "cache=min")
    result = live(experiment, *(part for change in changes for part in ("--set", change)))
    assert result.exit_code == 2
    for text in ("schedule: frozen replays", "traffic.prompt", "'min' knows all routes"):
        assert text in result.output
    only = CliRunner().invoke(app, ["live", str(experiment), "--model", "folder"])
    assert only.exit_code == 2 and "needs --prompts" in only.output
    refactorized.meta["experts"] = 4
    assert "has experts 4, and model shape has 5" in live(experiment).output
    refactorized.meta["scheme"] = "fine-grained"
    assert "runs scheme domains" in live(experiment).output
