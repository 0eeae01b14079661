from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import moesim
from moesim.analysis.configurations import identity
from moesim.errors import InputError
from moesim.experiment import PolicySpec, RunConfig
from moesim.results import Results, replacing
from moesim.summary import cell, read_csv, to_csv, words
from tests.tiny import tiny

GRID: dict[str, Any] = {
    "memory": {"each": {"three": {"slots": 3}, "big": {"bytes": "0.4GB", "scope": "global"}}},
    "cache": ["lru", {"name": "lookahead", "level": ["step", "oracle"], "horizon": [0, None]}],
    "schedule": ["free", "frozen"],
    "cases": {"plain": None, "fifo": {"cache": "fifo", "scheduler": {"batch": "prefill-first"}}},
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return moesim.run(tiny(**GRID), out=tmp_path_factory.mktemp("results") / "r", save=["steps"], figures=False)


def test_a_row_says_which_run_it_is(results: Results) -> None:
    columns = ["run", "case", "memory", "cache", "level", "horizon", "unknown", "batch", "scope", "slots", "schedule"]
    rows = results.summary[columns].astype(object).where(results.summary[columns].notna(), None).to_numpy().tolist()
    looking = ["lookahead", "step", "unlimited", "farthest"]
    assert rows[0] == [0, "plain", "three", "lru", "history", "", "", "decode-first", "layer", 3, "free"]
    assert rows[5] == [5, "plain", "three", *looking, "decode-first", "layer", 3, "frozen"]
    assert rows[-1] == [23, "fifo", "big", "fifo", "history", "", "", "prefill-first", "global", None, "frozen"]
    assert len(rows) == 2 * 5 * 2 + 2 * 2


def test_bytes_and_slots_are_of_the_whole_cache(results: Results) -> None:
    summary = results.summary
    three = summary[summary["memory"] == "three"]["bytes"].unique().item()
    big = summary[summary["memory"] == "big"]["bytes"].unique().item()
    assert big == 400_000_000
    assert three == 3 * 30 * 3 * 576 * 768 * 2, "3 slots of 30 layers; 3 matrices of 576 x 768 in 2 bytes"


def test_axes_that_the_row_spells_out_have_no_column_of_their_own(results: Results) -> None:
    columns = list(results.summary.columns)
    assert columns[:4] == ["run", "case", "replication", "memory"]
    assert not [c for c in columns if c.startswith("cache.") or c == "schedule.label"]
    assert len(results.summary.groupby(identity(results.summary), dropna=False)) == 24


def test_a_users_own_label_has_a_column(tmp_path: Path) -> None:
    grid = {"cache": {"each": {"old": "lru", "new": {"name": "lookahead", "level": "step"}}}, "steps": [10, 12]}
    summary = moesim.run(tiny(**grid), out=tmp_path, figures=False).summary
    rows = summary[["cache.label", "steps.label", "cache", "steps"]].to_numpy().tolist()
    assert sorted(rows) == [
        ["new", "10", "lookahead", 6],
        ["new", "12", "lookahead", 8],
        ["old", "10", "lru", 6],
        ["old", "12", "lru", 8],
    ]


def test_parts_add_up_and_derived_columns_follow(results: Results) -> None:
    parts = ("attention", "rest", "gate", "router", "experts", "host", "miss_stall", "late_stall", "cpu_stall", "idle")
    summary = results.summary
    assert (sum(summary[f"{part}_ns"] for part in parts) == summary["span_ns"]).all()
    per_token = summary["span_ns"] / summary["output_tokens"]
    assert np.allclose(per_token, summary["ns_per_output_token"], rtol=1e-15)
    for name in ("ttft", "tpot", "e2e", "normalized"):
        assert {f"{name}_{s}_ns" for s in ("mean", "p50", "p95", "p99")} <= set(summary.columns)
    assert {"gap_misses", "gap_time", "label_costs", "label_routing", "label_kv", "oracle"} <= set(summary.columns)


def test_an_oracle_is_marked(results: Results) -> None:
    marks = results.summary.groupby(["level", "schedule"])["oracle"].unique()
    assert marks["oracle", "frozen"].tolist() == ["oracle"]
    assert marks["oracle", "free"].tolist() == ["oracle, not a bound"]
    assert marks["step", "frozen"].tolist() == [""]


def test_requests_are_those_of_the_summary(results: Results) -> None:
    requests = results.requests
    done = requests[requests["measured"] & (requests["finished_ns"] >= 0)]
    mean = done.groupby("run")["ttft_ns"].mean()
    summary = results.summary.set_index("run")
    assert np.allclose(mean.to_numpy("float64"), summary.loc[mean.index, "ttft_mean_ns"], rtol=1e-12)
    assert (requests["e2e_ns"].dropna() >= requests["ttft_ns"][requests["e2e_ns"].notna()]).all()


def test_steps_are_kept_when_asked_for_or_when_there_is_one_run(results: Results, tmp_path: Path) -> None:
    assert set(results.steps["run"]) == set(range(24))
    one = moesim.run(tiny(), out=tmp_path / "one", figures=False)
    assert len(one.steps) == one.summary["steps"].item() + 4
    two = moesim.run(tiny(replications=2), out=tmp_path / "two", figures=False)
    with pytest.raises(InputError, match="run again with --save steps"):
        _ = two.steps


def test_tokens_are_kept_one_by_one_when_asked_for(tmp_path: Path) -> None:
    results = moesim.run(tiny(replications=2), out=tmp_path, save=["tokens"], figures=False)
    tokens, requests = results.tokens, results.requests.set_index(["run", "request"])
    times = tokens.groupby(["run", "request"])["at_ns"]
    done = requests[requests["finished_ns"] >= 0]
    assert len(done) > 2
    assert (times.min()[done.index] == done["first_token_ns"]).all()
    assert (times.max()[done.index] == done["finished_ns"]).all()
    assert (times.count()[done.index] == done["output_tokens"]).all()


def test_copies_are_kept_when_asked_for_or_when_there_is_one_run(results: Results, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run again with --save transfers"):
        _ = results.transfers
    one = moesim.run(tiny(warmup_steps=0), out=tmp_path / "one", figures=False)
    copies, total = one.transfers, one.summary.iloc[0]
    assert (copies["bytes"].sum(), copies["link_ns"].sum()) == (total["demand_bytes"], total["link_busy_ns"])
    per_step = copies.groupby("step")["bytes"].sum()
    assert per_step.to_dict() == one.steps.set_index("step")["demand_bytes"].loc[lambda s: s > 0].to_dict()
    two = moesim.run(tiny(replications=2), out=tmp_path / "two", save=["transfers"], figures=False)
    assert set(two.transfers["run"]) == {0, 1} and set(two.transfers["class"]) == {"demand"}
    searched = {"kind": "poisson", "requests": 40}, {"over": "traffic.rate", "from": 1, "to": 2, "tolerance": 0.5}
    limits = {"objective": {"e2e": 1000.0}, "warmup_steps": 0, "steps": 100}
    search = moesim.run(tiny(traffic=searched[0], search=searched[1], **limits), out=tmp_path / "search", figures=False)
    assert len(search.steps) and not (tmp_path / "search" / "transfers.parquet").exists()


def test_the_resolved_file_is_every_point_and_is_read_back(results: Results) -> None:
    configs = results.configs
    assert len(configs) == 24
    assert configs[3].cache == PolicySpec(name="lookahead", params={"level": "step", "horizon": 0})
    assert configs[3].labels["case"] == "plain"
    assert configs[-1].memory.bytes == 400_000_000
    assert all(isinstance(config, RunConfig) for config in configs)
    assert results.name == "tiny"
    digests = results.digests
    assert set(digests) == {"trace", "model", "costs", "link"}
    assert all(len(digest) == 64 for named in digests.values() for digest in named.values())


def test_files_hold_no_trace_of_the_writer(results: Results) -> None:
    for name in ("requests", "steps"):
        assert pq.read_schema(results.folder / f"{name}.parquet").metadata is None
    text = (results.folder / "resolved.yaml").read_text()
    assert str(results.folder.parent) not in text
    yaml.safe_load(text)


def test_the_table_is_a_file_and_the_digest_has_a_row_per_case_and_size(results: Results) -> None:
    assert (results.folder / "table.txt").read_text(encoding="utf-8") == results.table()
    rows = [line for line in results.digest().split("\n\n")[1].splitlines() if ", layer" in line or ", global" in line]
    assert len(rows) == 2 * 2 * 2, "cases, sizes, schedules"
    assert "free" in results.digest() and "not a bound" in results.digest()


def test_the_document_is_json_without_gaps(results: Results) -> None:
    document = json.loads(json.dumps(results.document(), allow_nan=False))
    assert (document["name"], len(document["runs"])) == ("tiny", 24)
    assert document["runs"][0]["span_ns"] == results.summary["span_ns"][0]
    assert document["runs"][-1]["slots"] is None


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it has no summary\.csv"):
        moesim.load(tmp_path)
    with pytest.raises(InputError, match="there is no such folder"):
        moesim.load(tmp_path / "gone")


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("summary.csv", b"", r"is no summary that moesim wrote \(empty\)"),
        ("summary.csv", b"x,y\n1,2\n", r"\(no column run, replication, cache"),
        ("summary.csv", b"\xff\xfe", "is no summary that moesim wrote"),
        ("resolved.yaml", b"", r"is no resolved experiment that moesim wrote \(empty\)"),
        ("resolved.yaml", b"a: [", "is no resolved experiment that moesim wrote"),
        ("resolved.yaml", b"a: 1", "no inputs and points"),
        ("resolved.yaml", b"{inputs: {}, points: [3]}", "a point without labels and experiment"),
        ("run.json", b"{", "is no record of a run"),
        ("run.json", b"[]", r"\(no mapping\)"),
        ("requests.parquet", b"PAR1", "is no table that moesim wrote"),
    ],
)
def test_a_damaged_file_is_bad_input(results: Results, tmp_path: Path, name: str, data: bytes, text: str) -> None:
    folder = shutil.copytree(results.folder, tmp_path / "r")
    (folder / name).write_bytes(data)
    part = {"summary.csv": "summary", "resolved.yaml": "resolved", "run.json": "record"}.get(name, "requests")
    with pytest.raises(InputError, match=text):
        getattr(moesim.load(folder), part)


def test_results_are_loaded_lazily_and_alike(results: Results) -> None:
    loaded = moesim.load(results.folder)
    assert vars(loaded) == {"folder": results.folder}
    pd.testing.assert_frame_equal(loaded.summary, results.summary)


def test_csv_keeps_every_float_and_every_name() -> None:
    value = 0.1 + 0.2
    row = {"run": 0, "case": "null", "replication": 0, "a.b": "007", "cache": "none", "steps": 2**53, "x": value}
    blank = row | {"run": 1, "case": "", "a.b": "", "x": float("nan")}
    frame = read_csv(to_csv([row, blank]))
    assert frame.to_dict("records")[0] == row
    assert frame["case"].tolist() == ["null", ""]
    assert frame["a.b"].tolist() == ["007", ""]
    assert frame["x"].isna().tolist() == [False, True]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (0.1, "0.1"),
        (1e300, "1e+300"),
        (float("nan"), ""),
        (None, ""),
        (True, "True"),
        (np.int64(3), "3"),
        (np.float64(0.1), "0.1"),
        ("a,b", "a,b"),
    ],
)
def test_cells(value: Any, text: str) -> None:
    assert cell(value) == text


def test_policies_in_words() -> None:
    assert words(PolicySpec(name="x", params={"age": 16, "deep": None, "on": True, "as": "y"})) == (
        "x age=16 deep=null on=True as=y"
    )


def test_kv_memory_is_in_the_summary(tmp_path: Path) -> None:
    from moesim.hardware.shape import load_shape

    shape = load_shape("smollm2-135m-readme")
    gpu = shape.static_bytes + 7 * shape.layers * shape.key_bytes
    memory = {"gpu": gpu, "scope": "global", "kv": {"share": [0.01, 0.02], "block_tokens": 4, "preempt": "swap"}}
    found = moesim.run(tiny(memory=memory, warmup_steps=0), out=tmp_path / "out", figures=False)
    summary = found.summary
    block = 4 * shape.kv_bytes_per_token
    assert summary["memory.kv.share"].tolist() == ["0.01", "0.02"]
    assert (summary["kv_bytes"] == summary["kv_blocks"] * block).all()
    assert (summary["bytes"] + summary["kv_bytes"] + shape.static_bytes == gpu).all()
    assert (summary["gpu_bytes"] == gpu).all()
    assert summary["label_kv"].tolist() == ["KV memory: blocks of 4 tokens, swap"] * 2
    kv = int(summary["kv_blocks"][0])
    part = f"static weights {shape.static_bytes:,}, workspace 0, experts {gpu - shape.static_bytes - kv * block:,}"
    assert summary["label_memory"][0] == (
        f"GPU memory {gpu:,} bytes: {part} (staging 0), KV {kv * block:,} ({kv} blocks of {block:,}); left 0"
    )
    used = summary["kv_blocks_used"] / summary["steps"] / summary["kv_blocks"]
    assert summary["kv_share_used"].tolist() == pytest.approx(used.tolist()) and used.between(0.001, 1).all()
    for column in ("kv_blocks_used", "kv_blocks_peak", "preemptions_swap", "swap_out_bytes", "kv_stall_ns"):
        assert column in summary
    assert (found.requests["preemptions"] >= 0).all()


def test_without_a_limit_nothing_is_said_of_kv_memory_but_that(results: Results) -> None:
    assert not [c for c in results.summary if c.startswith(("kv_b", "kv_share")) or "preempt" in c or c == "gpu_bytes"]
    assert set(results.summary["label_kv"]) == {"KV memory: no limit"}
    assert (results.summary["kv_stall_ns"] == 0).all()


def test_results_that_cannot_be_put_in_place_leave_those_that_were_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "r"
    with replacing(folder) as aside:
        (aside / "one").write_text("old")
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name.endswith(".new"):
            raise OSError("no room")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no room"), replacing(folder) as aside:
        (aside / "one").write_text("new")
    assert (folder / "one").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
