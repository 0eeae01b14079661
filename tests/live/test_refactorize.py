from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")
transformers = pytest.importorskip("transformers", reason="needs the live extra (transformers)")

from moesim.cli import app  # noqa: E402
from moesim.errors import InputError  # noqa: E402
from moesim.live import fit, quality  # noqa: E402
from moesim.live import refactorize as module  # noqa: E402
from moesim.live.corpus import DOMAINS  # noqa: E402
from moesim.live.dense import Dense, check_device, check_shape  # noqa: E402
from moesim.live.refactorize import Request, refactorize  # noqa: E402
from moesim.live.refactorized import load_refactorized, read_record  # noqa: E402
from moesim.live.settings import RefactorConfig  # noqa: E402
from moesim.live.texts import choose_texts  # noqa: E402

SMALL = {
    "train": 4,
    "calibration": 2,
    "cluster_texts": 2,
    "train_length": [20, 40],
    "short": [5, 10],
    "long": [12, 24],
    "prompts": 2,
    "router_width": 16,
    "router_heads": 2,
    "router_mlp": 8,
    "router_steps": 4,
    "expert_steps": 3,
    "expert_batch": 2,
    "experts": 4,
    "gate_steps": 20,
    "shared_rank": 2,
    "report_texts": 2,
    "report_length": 16,
}
SCHEMES = ("domains", "fine-grained")


@pytest.fixture
def make(works, dense_again, monkeypatch):
    monkeypatch.setattr(module, "find_texts", lambda request: (works, DOMAINS, "letters"))

    def call(folder: Path, scheme: str = "domains", **settings):
        config = RefactorConfig(scheme=scheme, **{**SMALL, **settings})
        fixed = {"command": "moesim refactorize", "created": "2026-01-01", "quiet": True}
        return refactorize(Request(config, folder / "out", folder / "work", **fixed), dense_again())

    return call


@pytest.fixture(scope="module")
def finished(works, dense_again, tmp_path_factory):
    """A finished folder of scheme fine-grained, not to be changed, made from the model of `dense_again`."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "find_texts", lambda request: (works, DOMAINS, "letters"))
        request = Request(RefactorConfig(scheme="fine-grained", **SMALL), folder / "out", folder / "work", quiet=True)
        refactorize(request, dense_again())
    return folder / "out"


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_folder_loads_and_gives_the_losses_of_its_report(make, works, tmp_path, dense_again, scheme):
    record = make(tmp_path, scheme)
    assert read_record(tmp_path / "out") == record
    chooser = "router.npz" if scheme == "domains" else "gates.npz"
    assert sorted(files(tmp_path)) == sorted(["deltas.npz", "experts.npz", "refactorized.json", "report.md", chooser])
    found = load_refactorized(tmp_path / "out", model=dense_again())
    assert (found.router is None) == (scheme == "fine-grained")
    assert found.meta["scheme"] == scheme and found.meta["experts"] == (7 if scheme == "domains" else 4)
    ids = torch.arange(3, 19)[None]
    before = dense_again().model(ids).logits
    one = found.model(input_ids=ids).logits
    assert one.shape == before.shape and not torch.allclose(one, before, atol=1e-3)
    first = found.model(input_ids=ids[:, :9], use_cache=True)
    rest = found.model(input_ids=ids[:, 9:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(rest, one[:, 9:], rtol=1e-3, atol=1e-3)
    config, dense = RefactorConfig(scheme=scheme, **SMALL), dense_again()
    texts = choose_texts(works, DOMAINS, dense.encode, config)
    for at, domain in enumerate(DOMAINS):
        held = quality.held_out(texts, at, config, torch.device("cpu"))
        assert record.report["loss"][domain]["dense"] == pytest.approx(quality.measure(dense, held, config), abs=1e-4)
        with torch.no_grad():
            choice = found.router(held.ids).argmax(dim=-1) if found.router else None
            with found.model.routed(choice) if found.router else nullcontext():
                routed = quality.measure(found.dense, held, config)
        assert record.report["loss"][domain]["routed"] == pytest.approx(routed, abs=1e-4)
    for row in (*DOMAINS, "mean"):
        loss, perplexity = (record.report[what][row]["dense"] for what in ("loss", "perplexity"))
        assert perplexity == pytest.approx(np.exp(loss), rel=1e-3)
    page = (tmp_path / "out" / "report.md").read_text()
    assert f"{record.report['loss']['mean']['routed']:.2f}" in page and "MEASURED 2026-01-01" in page


@pytest.mark.parametrize("tune", ["ffn", "nothing", "deltas"])
def test_what_is_tuned_and_nothing_else_is_stored(make, tmp_path, dense_again, tune):
    for scheme in SCHEMES:
        make(tmp_path / scheme, scheme, tune=tune, rank=1 if scheme == "domains" and tune == "deltas" else 0)
        stored = tmp_path / scheme / "out" / "deltas.npz"
        assert stored.exists() == (tune != "nothing")
        plain, found = dense_again(), load_refactorized(tmp_path / scheme / "out", model=dense_again())
        theirs = dict(found.model.state_dict())
        for name, value in plain.model.state_dict().items():
            if ".mlp." not in name:
                inside = f"dense.{name}" if scheme == "domains" else name
                assert torch.equal(theirs[inside], value), name
        if scheme == "domains" and tune == "deltas":
            assert found.model.ffns[0].reach.shape == (7, 2 + 7)


def test_tuned_ffns_are_measured_beside_the_dense_model_as_it_was(make, tmp_path):
    settings = {"rank": 0, "expert_rate": 0.01, "precision": "float32"}
    tuned = make(tmp_path / "tuned", tune="ffn", **settings).report["loss"]
    plain = make(tmp_path / "plain", tune="nothing", **settings).report["loss"]
    for domain in DOMAINS:
        assert tuned[domain]["dense"] == plain[domain]["dense"]
        assert tuned[domain]["routed_untuned"] == plain[domain]["routed_untuned"] == plain[domain]["routed"]
    assert tuned["mean"]["routed"] != tuned["mean"]["routed_untuned"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_interrupted_job_goes_on_to_the_same_bytes(make, tmp_path, monkeypatch, scheme):
    make(tmp_path / "whole", scheme)
    monkeypatch.setattr(fit, "SAVE_EVERY", -1.0)
    stops = ["layer-001", "labels-1-0000", "router-0-unfinished", "experts-1-unfinished", "quality-3"]
    keep = fit.Stages.keep

    def cut(self, name, arrays):
        keep(self, name, arrays)
        if name in stops:
            stops.remove(name)
            raise KeyboardInterrupt

    monkeypatch.setattr(fit.Stages, "keep", cut)
    interruptions = 0
    while True:
        try:
            make(tmp_path / "cut", scheme)
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions == (4 if scheme == "domains" else 3)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_another_job_in_the_work_folder_is_refused(make, tmp_path):
    make(tmp_path)
    with pytest.raises(InputError, match=r"stages of another job \(config, texts differ\)"):
        make(tmp_path, seed=1)
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds other things \(thesis.txt\)"):
        make(tmp_path)


@pytest.mark.parametrize("stage", ["created", "experts", "labels-0-0000", "router-0", "quality-0"])
def test_a_stage_with_other_arrays_is_refused(make, tmp_path, stage):
    make(tmp_path)
    np.savez(tmp_path / "work" / f"{stage}.npz", other=np.zeros(1))
    with pytest.raises(InputError, match=rf"{stage}.*remove it, and it will be made again"):
        make(tmp_path)


@pytest.mark.parametrize(
    ("scheme", "settings"),
    [("domains", {"share": 0.01}), ("fine-grained", {"experts": 25}), ("fine-grained", {"shared": 0.95})],
)
def test_experts_without_channels_are_refused(make, tmp_path, scheme, settings):
    with pytest.raises(InputError, match="of 24 channels an expert would have none"):
        make(tmp_path, scheme, **settings)


@pytest.mark.parametrize("name", ["experts.npz", "gates.npz", "deltas.npz", "refactorized.json"])
@pytest.mark.parametrize("how", ["truncated", "changed", "missing"])
def test_a_damaged_folder_is_refused(finished, tmp_path, dense_again, name, how):
    folder = shutil.copytree(finished, tmp_path / "copy")
    data = (folder / name).read_bytes()
    if how == "missing":
        (folder / name).unlink()
    else:
        start, rest = data[: len(data) // 2], data[len(data) // 2 + 3 :]
        (folder / name).write_bytes(start if how == "truncated" else start + b"\xff\xff\xff" + rest)
    with pytest.raises(InputError, match=name):
        load_refactorized(folder, model=dense_again())


def test_another_dense_model_or_scheme_is_refused(finished, tmp_path, dense_again):
    other = dense_again()
    with pytest.raises(InputError, match=r"was made from tiny \(no file\.\.\.\), not from tiny \(other"):
        load_refactorized(finished, model=Dense(other.model, other.tokenizer, "tiny", "other"))
    wrong = (
        ("k", 5, "k is 5, but there are 4 experts"),
        ("layers", 4, "layers is 4; the model has 3"),
        ("version", 2, "version"),
        ("scheme", "domains", "scheme"),
    )
    for key, value, text in wrong:
        folder = shutil.copytree(finished, tmp_path / key)
        record = json.loads((folder / "refactorized.json").read_text())
        (folder / "refactorized.json").write_text(json.dumps(record | {key: value}))
        with pytest.raises(InputError, match=text):
            load_refactorized(folder, model=dense_again())


def test_planted_domains_give_a_matrix_with_a_winning_diagonal(works, planted, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_texts", lambda request: (works, DOMAINS, "letters"))
    settings = {"share": 0.25, "tune": "nothing", "router_steps": 40, "router_rate": 1e-2, "precision": "float32"}
    request = Request(RefactorConfig(**SMALL | settings), tmp_path / "out", tmp_path / "work", quiet=True)
    report = refactorize(request, planted).report
    assert report["own_expert_is_best"] == [True] * 7
    mean = report["loss"]["mean"]
    assert mean["routed"] < mean["random_expert"] - 0.3
    assert report["agreement"]["true_domain"]["all"] > 0.5


# ---- the command


def test_a_models_folder_and_own_texts_from_the_command_line(small_model, tmp_path):
    words = {"law": ["court", "judge", "appeal"], "medicine": ["dose", "nurse", "patient"]}
    random = np.random.default_rng(0)
    rows = [{"domain": d, "text": " ".join(random.choice(known, 12))} for _ in range(60) for d, known in words.items()]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = {**SMALL, "train_length": [10, 20], "short": [4, 6], "long": [8, 16]}
    arguments = ["refactorize", str(small_model), "--texts", str(tmp_path / "texts.jsonl")]
    arguments += ["--out", str(tmp_path / "out")]
    for name, value in settings.items():
        arguments += ["--set", f"{name}={value}"]
    arguments += ["--write-prompts", str(tmp_path / "prompts.jsonl"), "--quiet"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    record = read_record(tmp_path / "out")
    assert record.domains == ["law", "medicine"] and record.experts == 2
    assert record.command.startswith("moesim refactorize small --scheme domains --texts texts.jsonl --set train=4")
    assert str(tmp_path) not in record.command
    assert len((tmp_path / "prompts.jsonl").read_text().splitlines()) == 4
    assert load_refactorized(tmp_path / "out").router is not None  # finds its dense model by itself
    weights = small_model / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: len(data) // 2])
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2 and "cannot be loaded" in again.stderr


def test_all_mistakes_are_told_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    arguments = ["refactorize", "nothing.gguf", "--out", str(tmp_path / "file")]
    arguments += ["--texts", str(tmp_path / "none.jsonl"), "--work", str(tmp_path / "file" / "work")]
    arguments += ["--write-prompts", str(tmp_path)]
    result = CliRunner().invoke(app, [*arguments, "--set", "share=2", "--device", "cuda:99"])
    assert result.exit_code == 2
    for text in ("7 mistakes", "nothing.gguf", "is a file", "none.jsonl", "--set share", "cuda:99"):
        assert text in result.stderr
    assert "no folder that can be written" in result.stderr and "is a folder; give" in result.stderr


def test_a_gpu_that_is_not_among_those_here_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda")
    check_device("cuda:1")
    with pytest.raises(InputError, match=r"there is no cuda:2 here, the last is cuda:1"):
        check_device("cuda:2")


def test_a_model_that_is_not_like_llama_is_refused():
    config = transformers.GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)
    with pytest.raises(InputError, match=r"is not LLaMA-like: it has no model\.layers"):
        check_shape(transformers.GPT2LMHeadModel(config), "gpt2")


def test_help_is_light():
    code = "import sys; from moesim.cli import app; app(['refactorize', '--help'], standalone_mode=False)\n"
    code += "assert not {'torch', 'transformers', 'numpy', 'pandas', 'yaml'} & set(sys.modules), sorted(sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert "--scheme" in found.stdout
