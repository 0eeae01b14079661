from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.errors import InputError  # noqa: E402
from moesim.live import capture, job  # noqa: E402
from moesim.live.corpus import DOMAINS  # noqa: E402
from moesim.live.dense import find_gguf  # noqa: E402
from moesim.live.settings import CaptureConfig  # noqa: E402
from moesim.trace.routing import read_routing  # noqa: E402

TINY = CaptureConfig(
    train=2,
    train_length=(10, 40),
    calibration=1,
    width=16,
    mlp=8,
    epochs=2,
    batch=4,
    prompts=3,
    short=(4, 8),
    long=(12, 30),
    output=(2, 9),
    output_mean=4,
    decode_batch=5,
    loss_texts=1,
    loss_length=12,
)


@pytest.fixture
def run(dense, works, tmp_path, monkeypatch):
    monkeypatch.setattr(capture, "load_works", lambda data: works)

    def call(name: str, work: str, config: CaptureConfig = TINY):
        out = tmp_path / name
        known = {"data": tmp_path, "dense": dense, "created": "2026-01-02", "threads": 1, "quiet": True}
        capture.run(config, out, work=tmp_path / work, command="a command", **known)
        return out

    return call


def test_a_capture_is_whole(run):
    trace = read_routing(run("t.parquet", "work"))
    assert trace.sequences == 3 * len(DOMAINS)
    assert trace.domains == DOMAINS * 3
    assert trace.meta.m == 3 and trace.top_experts.shape == (trace.tokens, 1, 3)
    assert (trace.top_experts[:, :, :1] == trace.experts).all()
    assert (np.diff(trace.top_weights.astype(float), axis=2) <= 0).all()
    assert (trace.output_tokens >= 2).all() and (trace.output_tokens <= 9).all()
    assert trace.meta.key_bytes == 3 * 12 * 16 * 2
    assert (trace.meta.created, trace.meta.command, trace.meta.label) == ("2026-01-02", "a command", "captured")
    assert sum(source.sequences for source in trace.meta.prompts) == trace.sequences
    assert sum(source.tokens for source in trace.meta.prompts) == trace.prompt_tokens.sum()
    assert {source.split for source in trace.meta.prompts} == {"held-out"}


def test_the_report_agrees_with_the_trace(run):
    trace = read_routing(run("t.parquet", "work"))
    report = trace.meta.report
    truth = np.repeat([DOMAINS.index(domain) for domain in trace.domains], trace.lengths)
    hit = trace.experts[:, 0, 0] == truth
    assert report["agreement"]["true_domain"]["all"] == pytest.approx(hit.mean(), abs=1e-4)
    inside = [
        0 <= row - start < 16
        for start, end in zip(trace.offsets, trace.offsets[1:], strict=False)
        for row in range(start, end)
    ]
    assert report["agreement"]["true_domain"]["by_position"]["0-15"] == pytest.approx(hit[inside].mean(), abs=1e-4)
    for index, row in enumerate(report["confusion"]):
        assert sum(row) == pytest.approx(1, abs=1e-3)
        assert row[index] == pytest.approx(report["agreement"]["true_domain"]["by_domain"][DOMAINS[index]], abs=1e-4)
    assert set(report["losses"]) == {*DOMAINS, "mean"}
    assert report["losses"]["mean"].keys() == {"dense", "oracle_label", "router", "own_domain", "random_expert"}
    assert len(report["training"]["loss_by_epoch"]) == 2


def test_equal_settings_give_equal_bytes(run):
    assert run("a.parquet", "one").read_bytes() == run("b.parquet", "two").read_bytes()


def test_a_capture_that_was_cut_off_resumes_to_the_same_bytes(run, tmp_path, monkeypatch):
    whole = run("a.parquet", "one").read_bytes()
    calls = []
    real = job.generate

    def fails_at_the_third(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(job, "generate", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        run("b.parquet", "two")
    assert not (tmp_path / "b.parquet").exists()
    assert run("b.parquet", "two").read_bytes() == whole
    assert len(calls) == 3 + 3  # 21 sequences are five batches of five: two were kept


def test_a_work_folder_of_other_settings_is_refused(run):
    run("a.parquet", "one")
    with pytest.raises(InputError, match="holds stages of other settings"):
        run("a.parquet", "one", TINY.model_copy(update={"seed": 1}))


def test_another_seed_gives_another_trace(run):
    one, two = run("a.parquet", "one"), run("b.parquet", "two", TINY.model_copy(update={"seed": 1}))
    assert read_routing(one).experts.tolist() != read_routing(two).experts.tolist()


def test_wrong_settings_are_told_at_once(capsys, tmp_path):
    arguments = ["--out", str(tmp_path / "t.parquet"), "--data", str(tmp_path), "--train", "0", "--share", "2"]
    assert capture.main(arguments) == 2
    text = capsys.readouterr().err
    assert "--train" in text and "--share" in text
    assert list(tmp_path.iterdir()) == []
    assert capture.main([*arguments[:4], "--calibration", "99", "--short", "9", "4"]) == 2
    text = capsys.readouterr().err
    assert "calibration is 99, but there are 48 training texts" in text and "short runs from 9 to 4" in text


def test_absent_data_is_told(capsys, tmp_path):
    assert capture.main(["--out", str(tmp_path / "t.parquet"), "--data", str(tmp_path / "no")]) == 2
    assert "there is no such folder; expected the folder of development data" in capsys.readouterr().err


def test_the_recorded_command_has_no_paths():
    given = capture._parser().parse_args(
        ["--out", "/a/b/t.parquet", "--data", "/c", "--seed", "3", "--short", "4", "9"]
    )
    assert (
        capture.command_of(given) == "python -m moesim.live.capture --out traces/routing/t.parquet --seed 3 --short 4 9"
    )


def test_a_missing_model_is_told(tmp_path):
    with pytest.raises(InputError, match="there is no such file; expected a LLaMA model in GGUF format"):
        find_gguf(tmp_path / "m.gguf")


@pytest.mark.live
def test_the_real_model_continues_a_sentence():
    pytest.importorskip("gguf", reason="needs the live extra (gguf)")
    from moesim.live.dense import load_dense

    try:
        find_gguf()
    except InputError as error:
        pytest.skip(str(error))
    dense = load_dense()
    ids = torch.tensor([dense.encode("The capital of France is")])
    assert dense.tokenizer.decode(dense.model(ids).logits[0, -1].argmax()) == " Paris"
    assert dense.model.config.num_hidden_layers == 30
