"""moesim capture from the command line, on small models that are saved as Hugging Face folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")
pytest.importorskip("transformers", reason="needs the live extra (transformers)")

from moesim.cli import app  # noqa: E402
from moesim.commands.capture import command_of  # noqa: E402
from moesim.live.capture_files import rounded  # noqa: E402
from moesim.live.capture_settings import sampled  # noqa: E402
from moesim.live.prompts import Prompt  # noqa: E402
from moesim.trace.routing import read_routing  # noqa: E402
from tests.live.architectures import ARCHITECTURES, small  # noqa: E402
from tests.live.test_refactorize import SMALL  # noqa: E402
from tests.tiny import write as write_experiment  # noqa: E402

DOMAINS = ("code", "maths", "speeches")
SIZES = [(3 + n % 5, n % 6) for n in range(11)]  # prompt and output tokens


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of models: an MoE of four layers, the same with other weights, a dense one."""
    folder = tmp_path_factory.mktemp("models")
    given = ARCHITECTURES["Qwen3-MoE"].given
    for name, model in {
        "moe": small("Qwen3MoeConfig", given),
        "other": small("Qwen3MoeConfig", given, seed=1),
        "dense": small("LlamaConfig", {}),
    }.items():
        model.save_pretrained(folder / name)
    return folder


@pytest.fixture
def prompts(tmp_path):
    random = np.random.default_rng(5)
    lines = [
        {
            "ids": random.integers(2, 64, size).tolist(),
            "output": output,
            "domain": DOMAINS[n % 3],
            "source": f"source {n % 2}",
            "licence": "CC0-1.0",
            "split": "held-out",
        }
        for n, (size, output) in enumerate(SIZES)
    ]
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def run(models, prompts, tmp_path, monkeypatch):
    """Call the command; `work` and `out` are names of the test's folder. Gives the path of what was written."""
    monkeypatch.chdir(tmp_path)

    def call(model="moe", out="t.parquet", *more, code=0, file=prompts):
        words = ["capture", str(models / model), "--prompts", str(file), "--out", out, "--threads", "1", "--quiet"]
        words += ["--created", "2026-01-02", *([] if "--overhead" in more else ["--overhead", "0"]), *more]
        monkeypatch.setattr(sys, "argv", ["moesim", *words])
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == code, done.output
        return tmp_path / out if code == 0 else done.stderr

    return call


def test_a_capture_is_whole(run):
    trace = read_routing(run("moe", "t.parquet", "--end-of-text", "ban", "--overhead", "1", "--part", "4"))
    meta = trace.meta
    assert (meta.router, meta.layers, meta.experts, meta.k, meta.m, meta.p) == ("layerwise", 4, 8, 2, 4, 4)
    assert trace.prompt_tokens.tolist() == [size for size, _ in SIZES]
    assert trace.output_tokens.tolist() == [output for _, output in SIZES]
    assert trace.domains == tuple(DOMAINS[n % 3] for n in range(11))
    assert sorted(trace.predicted) == [1, 2, 3]
    assert (np.diff(trace.weights.astype(float), axis=2) <= 0).all()
    assert (np.diff(trace.top_weights.astype(float), axis=2) <= 0).all()
    assert (np.sort(trace.top_experts[:, :, :2], axis=2) == np.sort(trace.experts, axis=2)).all()
    assert meta.key_bytes == 3 * 16 * 8 * 4  # gate, up and down of one expert, as stored: float32
    assert {"python", "moesim", "torch", "transformers", "model_fingerprint"} <= set(meta.versions)
    assert (meta.created, meta.label, meta.dtype) == ("2026-01-02", "captured", "float32")
    assert sum(source.sequences for source in meta.prompts) == 11
    assert sum(source.tokens for source in meta.prompts) == trace.prompt_tokens.sum()
    assert meta.outputs == "text of: moe, float32, temperature 0.8, seed 0, special tokens banned"
    report = meta.report["capture"]
    assert report["blocks"] == [f"model.layers.{n}.mlp" for n in range(4)]
    assert report["chosen_are_top_k"] == 1 and report["output_tokens"] == trace.output_tokens.sum()
    cost = report["overhead"]
    assert cost["batches"] == 1 and cost["sequences"] == 4 and cost["clock"] == "processor"
    assert cost["chosen"] == pytest.approx(cost["chosen_s"] / cost["plain_s"] - 1, abs=0.002)


def test_what_it_says_at_the_end(run, models, prompts, tmp_path, capsys):
    words = ["capture", str(models / "moe"), "--prompts", str(prompts), "--out", "t.parquet", "--threads", "1"]
    done = CliRunner().invoke(app, [*words, "--overhead", "1"])
    assert done.exit_code == 0
    assert "11 sequences: 53 prompt tokens" in done.stdout
    assert "overhead of tracing: " in done.stdout.splitlines()[-1]
    assert "(1 batches, " in done.stdout.splitlines()[-1]
    document = json.loads(CliRunner().invoke(app, [*words, "--overhead", "1", "--json"]).stdout)
    assert document["sequences"] == 11 and document["layers"] == 4 and "t.parquet" in document["files"]


def test_a_sample_keeps_whole_sequences_of_all_domains(run, tmp_path):
    whole = read_routing(run("moe", "a.parquet", "--part", "4"))
    out = run("moe", "b.parquet", "--sample", "20", "--part", "4")
    lean, some = read_routing(out), read_routing(tmp_path / "b-sample.parquet")
    assert (lean.meta.m, lean.meta.p, lean.top_experts, lean.predicted) == (0, 0, None, {})
    assert np.array_equal(lean.experts, whole.experts) and np.array_equal(lean.weights, whole.weights)
    numbers = some.meta.report["capture"]["sample"]["sequences"]
    assert some.prompt_tokens.sum() >= 20 and set(some.domains) == set(DOMAINS) and some.sequences < 8
    assert numbers == sorted(numbers) and len(numbers) == some.sequences
    rows = np.concatenate([np.arange(whole.offsets[n], whole.offsets[n + 1]) for n in numbers])
    assert np.array_equal(some.experts, whole.experts[rows])
    assert np.array_equal(some.top_experts, whole.top_experts[rows])
    assert all(np.array_equal(some.predicted[d], whole.predicted[d][rows]) for d in (1, 2, 3))
    assert sum(source.sequences for source in some.meta.prompts) == some.sequences


def test_equal_input_gives_equal_bytes_and_other_seeds_other_texts(run):
    one = run("moe", "t.parquet", "--work", "1").read_bytes()
    assert run("moe", "t.parquet", "--work", "2").read_bytes() == one
    first = read_routing(run("moe", "a.parquet")).experts
    assert first.tolist() != read_routing(run("moe", "b.parquet", "--seed", "1")).experts.tolist()


def test_other_batches_give_the_same_choices(run):
    found = [
        read_routing(run("moe", f"{n}.parquet", "--batch", str(batch), "--part", str(part)))
        for n, (batch, part) in enumerate([(1, 1), (3, 64), (16, 5)])
    ]
    assert all(np.array_equal(found[0].experts, other.experts) for other in found[1:])


def test_text_of_one_model_is_forced_upon_another(run, tmp_path):
    text = run("dense", "text.jsonl", "--text-only", "--end-of-text", "ban")
    lines = [json.loads(line) for line in text.read_text().splitlines()]
    assert [len(line["continuation_ids"]) for line in lines] == [output for _, output in SIZES]
    one = read_routing(run("moe", "a.parquet", "--continuations", str(text)))
    two = read_routing(run("other", "b.parquet", "--continuations", "results/capture/text"))
    three = read_routing(run("moe", "c.parquet", "--work", "w", file=text))  # it is a file of prompts, too
    assert one.meta.outputs == "forced, text of: dense, float32, temperature 0.8, seed 0, special tokens banned"
    assert np.array_equal(one.experts, three.experts) and not np.array_equal(one.experts, two.experts)
    assert np.array_equal(one.offsets, two.offsets) and one.domains == two.domains
    kept = [tmp_path / "results" / "capture" / name / "continuations.jsonl" for name in ("a", "b")]
    assert kept[0].read_bytes() == kept[1].read_bytes() == text.read_bytes()


def test_moesim_runs_a_capture_with_a_policy_that_is_told_predictions(tmp_path, prompts):
    given = {"num_local_experts": 7, "num_experts_per_tok": 1, "num_hidden_layers": 30}
    small("MixtralConfig", given).save_pretrained(tmp_path / "deep")
    words = ["capture", str(tmp_path / "deep"), "--prompts", str(prompts), "--out", str(tmp_path / "t.parquet")]
    words += ["--work", str(tmp_path / "w"), "--overhead", "0", "--quiet", "--threads", "1", "--sample", "20"]
    assert CliRunner().invoke(app, words).exit_code == 0
    for file, prefetch in (("t.parquet", "none"), ("t-sample.parquet", "speculative")):
        experiment = write_experiment(
            tmp_path, trace=str(tmp_path / file), prefetch=prefetch, memory={"slots": 3, "scope": "layer"}
        )
        done = CliRunner().invoke(app, ["run", str(experiment), "--quiet", "--out", str(tmp_path / file[:-8])])
        assert done.exit_code == 0, done.output


# ---- interruptions


KILLED = """
import os, signal, sys
import numpy as np
from moesim.live.stages import Stages
real, parts = np.savez, []

def cut_off(file, **arrays):
    if "ids" in arrays:
        parts.append(1)
    if len(parts) == 3:  # in the middle of writing the third part
        file.write(b"PK half of a part")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    real(file, **arrays)

np.savez = cut_off
from moesim.cli import main
main()
"""


def test_a_capture_that_was_killed_goes_on_to_the_same_bytes(run, models, prompts, tmp_path):
    more = ["--part", "2", "--sample", "20"]
    whole = run("moe", "t.parquet", *more, "--work", "one").read_bytes()
    sample = (tmp_path / "t-sample.parquet").read_bytes()
    for file in tmp_path.glob("t*.parquet"):
        file.unlink()
    words = ["capture", str(models / "moe"), "--prompts", str(prompts), "--out", "t.parquet", "--work", "two"]
    words += ["--threads", "1", "--quiet", "--created", "2026-01-02", "--overhead", "0", *more]
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    killed = subprocess.run([sys.executable, "-c", KILLED, *words], cwd=tmp_path, env=here, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert list(tmp_path.glob("t*.parquet")) == []
    assert sorted(file.name for file in (tmp_path / "two").glob("part*")) == ["part-00000.npz", "part-00001.npz"]
    before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "two").glob("part*")}
    assert run("moe", "t.parquet", *more, "--work", "two").read_bytes() == whole
    assert (tmp_path / "t-sample.parquet").read_bytes() == sample
    assert before == {name: (tmp_path / "two" / name).stat().st_mtime_ns for name in before}  # not done again


def test_what_was_measured_is_kept_so_that_bytes_stay(run):
    one = run("moe", "t.parquet", "--overhead", "1").read_bytes()
    assert run("moe", "t.parquet", "--overhead", "1").read_bytes() == one


# ---- mistakes


def test_a_work_folder_of_another_capture_is_refused(run):
    run("moe", "t.parquet", "--work", "w")
    assert "holds stages of another job (model differ)" in run("other", "t.parquet", "--work", "w", code=2)
    assert "(capture differ)" in run("moe", "t.parquet", "--work", "w", "--seed", "3", code=2)
    assert "(prompts differ)" in run("moe", "t.parquet", "--work", "w", "--limit", "5", code=2)
    run("moe", "t.parquet", "--work", "w", "--weights-bits", "4")  # says only how parts are written


def test_a_damaged_part_is_told(run, tmp_path):
    run("moe", "t.parquet", "--work", "w", "--part", "4")
    part = tmp_path / "w" / "part-00001.npz"
    part.write_bytes(part.read_bytes()[:500])
    text = run("moe", "t.parquet", "--work", "w", "--part", "4", code=2)
    assert "part-00001.npz: is truncated or damaged" in text and "remove it, and it will be made again" in text
    part.unlink()
    run("moe", "t.parquet", "--work", "w", "--part", "4")


def test_a_work_folder_that_was_put_together_by_hand_is_refused(run, tmp_path):
    work = tmp_path / "w"
    run("moe", "t.parquet", "--work", "w", "--part", "4")
    kept = {name: (work / name).read_bytes() for name in ("identity.json", "part-00000.npz", "facts.npz")}
    swapped = {"part-00000.npz": (work / "part-00001.npz").read_bytes(), "facts.npz": kept["part-00000.npz"]}
    for name, told in (("part-00000.npz", "is not this capture's ("), ("facts.npz", "does not say when it was made")):
        (work / name).write_bytes(swapped[name])
        assert f"{name}: {told}" in run("moe", "t.parquet", "--work", "w", "--part", "4", code=2)
        (work / name).write_bytes(kept[name])
    (work / "identity.json").unlink()
    assert "w: holds stages, but no identity.json" in run("other", "t.parquet", "--work", "w", "--part", "4", code=2)


def test_a_work_folder_that_cannot_be_is_told(run, prompts):
    assert "no folder that can be written" in run("moe", "t.parquet", "--work", str(prompts / "w"), code=2)


def test_all_mistakes_are_told_at_once_and_nothing_is_written(run, prompts, tmp_path):
    prompts.write_text(prompts.read_text()[:-40] + "\n" + '{"ids": [1], "output": 500}\n{"ids": [77]}\n')
    settings = ("--temperature", "-1", "--end-of-text", "never", "--continuations", "no")
    text = run("moe", "t.csv", *settings, "--work", str(prompts / "work"), code=2)
    for part in (
        "--out: is t.csv; expected a name that ends in .parquet",
        "no folder that can be written",
        "--temperature: is -1",
        "--end-of-text: is never",
        "prompts.jsonl:11: is not JSON",
        "prompts.jsonl:12: 1 + 500 tokens are too long; the model takes 128",
        "prompts.jsonl:13: ids has token 77; the model's vocabulary ends at 63",
    ):
        assert part in text
    assert [file.name for file in tmp_path.iterdir()] == ["prompts.jsonl"]


def test_models_that_are_none_are_refused(run, models, tmp_path):
    assert "has no MoE block" in run("dense", code=2)
    assert "nowhere: cannot be loaded (" in run("nowhere", code=2)
    (models / "empty").mkdir()
    assert "holds no config.json and no refactorized.json" in run("empty", code=2)


@pytest.mark.parametrize("damage", ["cut", "lacking", "garbled"])
def test_a_damaged_checkpoint_is_refused(run, models, damage):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = models / damage
    shutil.copytree(models / "moe", folder)
    weights = folder / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif damage == "garbled":
        weights.write_bytes(b"\0" * 64)
    else:
        tensors = load_file(weights)
        dropped = next(name for name in tensors if "layers.1" in name)
        save_file({name: value for name, value in tensors.items() if name != dropped}, weights, {"format": "pt"})
    text = run(damage, code=2)
    assert "its checkpoint lacks model.layers.1" in text if damage == "lacking" else "cannot be loaded" in text


CONFIGS = {
    "none": ({"num_experts_per_tok": 0}, "cannot be seen"),
    "more": ({"num_experts_per_tok": 9}, "does not run on a few tokens (selected index k out of range)"),
    "other experts": ({"num_local_experts": 6}, "its checkpoint has other shapes for "),
    "deeper": ({"num_hidden_layers": 5}, "its checkpoint lacks model.layers.4."),
    "shallower": ({"num_hidden_layers": 3}, "its checkpoint has 4 layers, its config.json 3"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_does_not_fit_its_checkpoint_is_refused(run, models, name):
    import shutil

    folder = models / name
    shutil.copytree(models / "moe", folder)
    changed, told = CONFIGS[name]
    config = json.loads((folder / "config.json").read_text()) | changed
    (folder / "config.json").write_text(json.dumps(config))
    assert told in run(name, code=2)


def test_weights_that_are_no_numbers_are_told(run, models):
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(models / "moe", models / "nan")
    weights = models / "nan" / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.layers.2.mlp.gate.weight"][3] = torch.nan
    save_file(tensors, weights, {"format": "pt"})
    assert "nan: its gates give weights that are not finite" in run("nan", code=2)


def test_a_dense_model_beside_one_that_needs_none_is_refused(run):
    assert "--dense: is elsewhere, but " in run("moe", "t.parquet", "--dense", "elsewhere", code=2)


def test_top_must_fit_the_experts(run):
    assert "--top: is 3; of 8 experts with k = 2 it must be in 4..8" in run("moe", "t.parquet", "--top", "3", code=2)
    assert read_routing(run("moe", "t.parquet", "--top", "8")).meta.m == 8


def test_cuda_is_refused_where_there_is_none(run):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    text = run("moe", "t.parquet", "--device", "cuda", code=2)
    assert "--device: there is no cuda here; give cpu" in text


# ---- parts


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.floats(2**-14, 60000, width=16), min_size=1, max_size=20), st.integers(1, 10))
def test_rounded_weights_are_near_and_few(values, bits):
    weights = np.array(values, np.float16)
    near = rounded(weights, bits)
    assert (np.abs(near.astype(float) - weights) <= weights * 2.0 ** -(bits + 1)).all()
    assert (near.view(np.uint16) & ((1 << (10 - bits)) - 1) == 0).all()
    assert np.array_equal(rounded(near, bits), near)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(1, 30), st.sampled_from(DOMAINS)), min_size=1, max_size=20), st.integers(1, 300))
def test_a_sample_is_large_enough_and_even(sizes, tokens):
    prompts = [Prompt(np.zeros(size, np.int32), 5, domain=domain) for size, domain in sizes]
    found = sampled(prompts, tokens, 0, "ban")
    held = sum(prompts[n].tokens for n in found)
    assert held >= tokens or found == frozenset(range(len(prompts)))
    counts = {d: sum(prompts[n].domain == d for n in found) for d in DOMAINS}
    rest = {d: sum(p.domain == d for p in prompts) - counts[d] for d in DOMAINS}
    for one in DOMAINS:
        assert rest[one] == 0 or counts[one] >= max(counts.values()) - 1


def test_the_recorded_command_has_no_paths():
    words = "/a/moesim capture /b/model --prompts ./c/p.jsonl --out=/d/t.parquet --work /e --work=f --threads 2 --quiet"
    words += " --sample 9 --continuations ~/g/x.jsonl"
    assert command_of(words.split()) == (
        "moesim capture model --prompts p.jsonl --out=t.parquet --sample 9 --continuations x.jsonl"
    )


# ---- refactorized models


@pytest.mark.parametrize("scheme", ["domains", "fine-grained"])
def test_a_refactorized_folder_is_captured(run, small_model, tmp_path, scheme):
    random = np.random.default_rng(0)
    known = {"law": ["court", "judge", "appeal"], "medicine": ["dose", "nurse", "patient"]}
    rows = [{"domain": d, "text": " ".join(random.choice(w, 12))} for _ in range(60) for d, w in known.items()]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    words = ["refactorize", str(small_model), "--scheme", scheme, "--out", str(tmp_path / "made"), "--quiet"]
    words += ["--texts", str(tmp_path / "texts.jsonl")]
    for name, value in {**SMALL, "train_length": [10, 20], "short": [4, 6], "long": [8, 16]}.items():
        words += ["--set", f"{name}={value}"]
    made = CliRunner().invoke(app, words)
    assert made.exit_code == 0, made.output
    free = read_routing(run(tmp_path / "made", "a.parquet", "--end-of-text", "ignore"))
    assert free.output_tokens.tolist() == [output for _, output in SIZES]
    meta = free.meta
    expected = {"domains": ("decoupled", 2, 2, 1, 2, 0), "fine-grained": ("layerwise", 2, 4, 2, 4, 4)}[scheme]
    assert (meta.router, meta.layers, meta.experts, meta.k, meta.m, meta.p) == expected
    record = json.loads((tmp_path / "made" / "refactorized.json").read_text())
    assert meta.key_bytes == record["key_bytes"] == 3 * record["expert_width"] * 16 * 2
    assert meta.report["refactorized"]["scheme"] == scheme and "found" not in meta.report["refactorized"]["base"]
    # The router alone, over the finished text, says what it said while the model wrote it.
    forced = read_routing(run(tmp_path / "made", "b.parquet", "--continuations", "results/capture/a"))
    assert np.array_equal(free.experts, forced.experts)
    np.testing.assert_allclose(free.weights, forced.weights, atol=2e-3)
    assert ("only the router ran" in forced.meta.notes) == (scheme == "domains")
    batched = read_routing(run(tmp_path / "made", "c.parquet", "--end-of-text", "ignore", "--batch", "1"))
    assert np.array_equal(free.experts, batched.experts)
