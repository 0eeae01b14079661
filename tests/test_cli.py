from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import moesim
from moesim import results, runner
from moesim.cli import app
from moesim.files import shipped
from moesim.trace.routing import write_routing
from moesim.trace.synthetic import synthetic
from tests.tiny import tiny, write

HEAVY = {"numpy", "pandas", "matplotlib", "pyarrow", "torch", "simpy", "pydantic", "yaml", "scipy"}


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def imported_by(code: str) -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in shown.stdout.split()}


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    assert not HEAVY & imported_by("import moesim")
    assert not HEAVY & imported_by("import moesim.cli")
    assert {"numpy", "pydantic"} <= imported_by("import moesim\nmoesim.run")


def test_run_prints_a_table_and_writes_a_folder(tmp_path: Path) -> None:
    done = call("run", write(tmp_path, cache=["lru", "fifo"]), "--out", tmp_path / "out", "--jobs", 1)
    assert done.exit_code == 0, done.output
    assert "lru" in done.stdout and "fifo" in done.stdout and "ESTIMATED" in done.stdout
    names = {path.suffix for path in (tmp_path / "out").rglob("*")}
    assert {".csv", ".parquet", ".yaml", ".json", ".svg"} <= names


def test_a_table_too_long_to_read_is_a_file_and_its_digest_is_printed(tmp_path: Path) -> None:
    memory = {"slots": [2, 3, 4, 5], "scope": ["layer", "global"]}
    caches = ["lru", "fifo", "lfu", {"name": "lookahead", "level": ["step", "oracle"]}]
    done = call("run", write(tmp_path, memory=memory, cache=caches, schedule="frozen"), "--out", tmp_path / "out")
    results = moesim.load(tmp_path / "out")
    assert (done.exit_code, done.stderr) == (0, "")
    count = len(results.table().splitlines())
    assert done.stdout == (
        f"{results.digest()}\nThe table of all policies ({count} lines): {results.folder / 'table.txt'}\n"
        f"\nResults: {results.folder}\n"
    )
    assert count > 60 and (results.folder / "table.txt").read_text() == results.table()
    short = call("run", write(tmp_path, cache=caches), "--out", tmp_path / "short").stdout
    assert short == f"{moesim.load(tmp_path / 'short').table()}\nResults: {tmp_path / 'short'}\n"


def test_json_is_one_document_and_nothing_else(tmp_path: Path) -> None:
    path = write(tmp_path)
    done = call("run", path, "--out", tmp_path / "out", "--json", "--set", "memory.slots=[3, 4]", "--seed", 5)
    assert (done.exit_code, done.stderr) == (0, "")
    (experiment,) = json.loads(done.stdout)["experiments"]
    assert [run["slots"] for run in experiment["runs"]] == [3, 4]
    assert moesim.load(tmp_path / "out").configs[0].seed == 5
    assert not list((tmp_path / "out").glob("*.svg"))


def test_quiet_says_nothing(tmp_path: Path) -> None:
    done = call("run", write(tmp_path), "--out", tmp_path / "out", "--quiet", "--save", "steps,tokens", "--check")
    assert (done.exit_code, done.output) == (0, "")
    assert (tmp_path / "out" / "summary.csv").is_file() and (tmp_path / "out" / "table.txt").is_file()


def test_dry_run_lists_the_runs_and_writes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, cache=["lru", "fifo"], replications=3)
    done = call("run", path, "--dry-run", "--out", tmp_path / "out")
    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        f"tiny: 2 points, 6 runs -> {tmp_path / 'out'}",
        "  cache: lru",
        "  cache: fifo",
    ]
    planned = json.loads(call("run", path, "--dry-run", "--json").stdout)["experiments"][0]
    assert (planned["runs"], planned["points"][1]["experiment"]["cache"]) == (6, "fifo")
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.yaml"]


def test_mistakes_of_all_files_and_options_are_one_message_and_exit_code_2(tmp_path: Path) -> None:
    paths = [write(tmp_path, "a.yaml", steps=0), tmp_path / "gone.yaml", write(tmp_path, "b.yaml", cache="lrv")]
    done = call("run", *paths, "--set", "memory", "--save", "step", "--seed", -1, "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (2, "")
    head, *lines = done.stderr.splitlines()
    assert head == "moesim: 6 mistakes in the input; nothing was written"
    assert [line.split(": ")[0].strip() for line in lines] == [
        "--save",
        "--set memory",
        f"{tmp_path}/a.yaml:16",
        "--seed",
        f"{tmp_path}/gone.yaml",
        f"{tmp_path}/b.yaml:18",
    ]
    assert not (tmp_path / "out").exists()


def test_a_cost_out_of_range_is_bad_input(tmp_path: Path) -> None:
    costs = json.loads(shipped("traces", "kernels", "a100-pcie4-smollm2-135m-readme.json").read_text())
    costs["components"]["step_rest"] = {"axes": {"tokens": [1, 2]}, "ns": [10, 20]}
    (tmp_path / "narrow.json").write_text(json.dumps(costs))
    path = write(tmp_path, costs="narrow.json", replications=4)
    for jobs in (1, 2):
        done = call("run", path, "--out", tmp_path / "out", "--jobs", jobs)
        assert done.exit_code == 2
        assert "step_rest is tabulated for tokens 1 to 2, and 3 was asked for" in done.stderr
        assert not (tmp_path / "out").exists()
    assert call("run", path, "--out", tmp_path / "out", "--quiet", "--set", "allow_extrapolation=true").exit_code == 0


def test_trace_info(tmp_path: Path) -> None:
    trace = synthetic("sticky", layers=3, experts=4, key_bytes=100, sequences=3, prompt_tokens=4, output_tokens=4)
    write_routing(tmp_path / "t.parquet", trace)
    assert "synthetic sticky" in call("trace", "info", tmp_path / "t.parquet").stdout
    (described,) = json.loads(call("trace", "info", tmp_path / "t.parquet", "--json").stdout)["traces"]
    assert (described["tokens"], described["experts"]) == (24, 4)
    missing = call("trace", "info", tmp_path / "gone", tmp_path / "t.parquet", tmp_path / "lost")
    assert (missing.exit_code, missing.stdout, len(missing.stderr.splitlines())) == (2, "", 3)


def test_trace_info_of_arrivals(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("arrival_s,prompt_tokens,output_tokens\n0,10,5\n2,0,5\n")
    refused = call("trace", "info", tmp_path / "a.csv")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.splitlines()[1].startswith(f"  {tmp_path / 'a.csv'}:3: 0 prompt tokens")
    ours = shipped("traces", "arrivals", "chat-bursty.parquet")
    shown = call("trace", "info", "--empty", "drop", tmp_path / "a.csv", ours)
    assert "1, 1 without tokens left out" in shown.stdout and "gamma --rate 1.0" in shown.stdout
    both = json.loads(call("trace", "info", "--empty", "drop", tmp_path / "a.csv", ours, "--json").stdout)["traces"]
    assert [(one["kind"], one["format"], one["requests"]) for one in both] == [
        ("arrivals", "csv", 1),
        ("arrivals", "moesim", 3600),
    ]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"arrival_s,prompt_tokens\n0,1\n", ":1: the header 'arrival_s,prompt_tokens' has no column output_tokens"),
        (b"arrival_s,prompt_tokens,output_tokens\n1,1,1\n0,1,1\n", ":3: time 0 is before 1 in line 2"),
        (b"arrival_s,prompt_tokens,output_tokens\n-1,1,1\n", ":2: time -1 is negative"),
        (b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,0,4\n", ":2: 0 prompt tokens"),
        (b'{"timestamp": 0, "input_length": 1, "output_le', ":1: is no JSON (Unterminated string"),
        (b"\xff\xfea\0", ":1: is UTF-16 text"),
        (b"\x89PNG\r\n\x1a\n", ":1: is no UTF-8 text"),
    ],
)
def test_a_bad_arrivals_file_is_one_message_with_its_line(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "a.dat").write_bytes(data)
    path = write(tmp_path, traffic={"kind": "trace", "arrivals": "a.dat"})
    done = call("run", path, "--out", tmp_path / "out")
    assert (done.exit_code, done.stdout) == (2, "")
    first, told = done.stderr.splitlines()
    assert first == "moesim: bad input"
    assert f"{tmp_path / 'a.dat'}{says}" in told
    assert not (tmp_path / "out").exists()


def test_schema_knows_every_key() -> None:
    schema = json.loads(call("schema").stdout)
    assert {"name", "memory", "traffic", "cases"} <= set(schema["properties"])
    slots = schema["$defs"]["Memory"]["properties"]["slots"]["anyOf"]
    assert [form.get("type") for form in slots[1:]] == ["array", "object"]
    lengths, arrivals = schema["$defs"]["Lengths"]["anyOf"], schema["$defs"]["ArrivalsFile"]["anyOf"]
    assert lengths[0] == {"type": "integer", "minimum": 1} and "cv" in lengths[1]["properties"]
    assert arrivals[0]["type"] == "string" and {"from", "to"} <= set(arrivals[1]["properties"])
    assert "name" not in schema["properties"]["cases"]["additionalProperties"]["properties"]


def test_version_and_help() -> None:
    assert call("--version").stdout == f"moesim {moesim.__version__}\n"
    assert call("--help").exit_code == 0
    assert call("run", "--help").exit_code == 0
    assert call("nonsense").exit_code == 2


def test_report_writes_one_page(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = call("run", write(tmp_path, cache=["lru", "fifo"]), "--out", folder, "--jobs", 1, "--report", "--quiet")
    assert (done.exit_code, done.output) == (0, "")
    page = (folder / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "lru" in page
    again = call("report", folder, "--out", tmp_path / "again.html")
    assert (again.exit_code, again.stdout) == (0, f"{tmp_path / 'again.html'}\n")
    assert (tmp_path / "again.html").read_text() == page
    assert call("report", folder).stdout == f"{folder / 'report.html'}\n"


def test_report_names_what_is_wrong(tmp_path: Path) -> None:
    done = call("report", tmp_path)
    assert done.exit_code == 2 and "is no results folder" in done.stderr
    both = call("report", tmp_path, "--out", tmp_path)
    assert both.exit_code == 2 and "is no results folder" in both.stderr and "--out: " in both.stderr
    assert not list(tmp_path.iterdir())


def test_report_names_every_damaged_file(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    moesim.run(tiny(), out=folder, figures=False)
    (folder / "summary.csv").write_text("")
    (folder / "resolved.yaml").write_text("a: [")
    (folder / "run.json").write_text("{")
    done = call("report", folder)
    assert done.exit_code == 2 and done.stdout == "" and "3 mistakes" in done.stderr
    assert "summary.csv: is no summary that moesim wrote (empty)" in done.stderr
    assert "resolved.yaml: is no resolved" in done.stderr and "run.json: is no record" in done.stderr
    assert not (folder / "report.html").exists()


def test_a_folder_that_cannot_be_made_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system may say that a folder can be written where it cannot (/proc on Linux)."""
    monkeypatch.setattr(runner, "Pool", lambda *given: pytest.fail("it runs"))
    monkeypatch.setattr(os, "access", lambda *given: True)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(results, "check_folder", lambda folder: [])
    done = call("run", write(tmp_path), "--out", tmp_path / "file" / "out", "--quiet")
    assert done.exit_code == 2 and "cannot be written (" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "tiny.yaml"]
