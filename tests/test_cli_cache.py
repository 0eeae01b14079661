"""`moesim cache`, `moesim trace import` and `moesim trace stats` as a user meets them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from moesim.cli import app
from moesim.trace.routing import read_routing, write_routing
from moesim.trace.synthetic import synthetic


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    made = synthetic("sticky", layers=3, experts=8, key_bytes=100, router="layerwise", k=2, sequences=4)
    write_routing(tmp_path / "t.parquet", made)
    return tmp_path / "t.parquet"


def test_cache_prints_a_table(trace: Path) -> None:
    done = call("cache", trace, "--sizes", "30%,60%")
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "synthetic sticky (synthetic)" in lines[0]
    table = lines.index("decode hits (%)")
    assert lines[table + 1].split() == ["size", *["random", "fifo", "lru", "lfu", "min!"] * 2]
    assert [line.split()[0] for line in lines[table + 3 : table + 5]] == ["30%", "60%"]
    assert all("*" in line for line in lines[table + 3 : table + 5])
    assert "loaded per output token (MiB)" in lines and "prompt hits (%)" in lines
    assert "! knows the future · * the best of those that do not, and hold no more than the size" in lines
    assert max(map(len, lines[1:])) <= 100, "the first line names the file"


def test_many_policies_are_rows(trace: Path) -> None:
    many = ",".join(["random,fifo,lru,lfu,min,min-bypass", *(f"lookahead(level=oracle,horizon={n})" for n in range(3))])
    lines = call("cache", trace, "--sizes", "30%,60%", "--policies", many).stdout.splitlines()
    table = lines.index("decode hits (%)")
    assert lines[table + 1].split() == ["30%", "60%"]
    rows = [line.rsplit(maxsplit=2) for line in lines[table + 2 : table + 20]]
    assert [row[0].split()[0] for row in rows[:6]] == ["random", "fifo", "lru", "lfu", "min!", "min-bypass!"]
    by_name = {" ".join(row[0].split()): row[1:] for row in rows}
    assert [v.rstrip("*") for v in by_name["lookahead(level=oracle, horizon=0)! global"]] == [
        v.rstrip("*") for v in by_name["lru global"]
    ]


def test_cache_json_is_one_document(trace: Path) -> None:
    other = trace.with_name("other.parquet")
    other.write_bytes(trace.read_bytes())
    done = call("cache", trace, other, "--json", "--policies", "lru", "--scope", "layer", "--start", "cold")
    assert (done.exit_code, done.stderr) == (0, "")
    first, second = json.loads(done.stdout)["traces"]
    assert first == second | {"trace": str(trace)} and {row["scope"] for row in first["rows"]} == {"layer"}
    assert [row["capacity"] for row in first["rows"]] == ["20%", "30%", "40%", "50%", "60%", "80%"]  # of the default


def test_cache_writes_files_that_are_the_same_again(trace: Path, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        assert call("cache", trace, "--out", folder, "--room", "strict,event", "--sizes", "10%,50%,90%").exit_code == 2
        assert not folder.exists()
        assert call("cache", trace, "--out", folder, "--room", "strict,event", "--sizes", "20%,50%,90%").exit_code == 0
    names = sorted(path.name for path in folders[0].iterdir())
    assert names == ["cache.csv", "cache.json", "cache.png", "cache.svg", "table.txt"]
    assert all((folders[0] / name).read_bytes() == (folders[1] / name).read_bytes() for name in names)
    with (folders[0] / "cache.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 5 * 2 * 2 * 3


def test_an_event_larger_than_its_cache_is_marked(trace: Path) -> None:
    found = call("cache", trace, "--policies", "lru", "--sizes", "1/layer", "--room", "event,strict").stdout
    assert "layer+" in found and "+ held more than the size" in found


def test_mistakes_of_all_options_and_traces_are_one_message(tmp_path: Path) -> None:
    words = ["--policies", "lrv", "--sizes", "1x", "--scope", "shelf", "--room", "big", "--order", "any"]
    words += ["--start", "hot", "--between", "x", "--rank", "y", "--format", "odd", "--key-bytes", "none"]
    done = call("cache", tmp_path / "a", tmp_path / "b", *words)
    assert (done.exit_code, done.stdout) == (2, "")
    head, *lines = done.stderr.splitlines()
    assert [line.split(":")[0].strip() for line in lines] == [
        *("--format", "--key-bytes"),
        *("--order", "--start", "--between", "--rank", "--scope", "--room", "--policies", "--sizes"),
        *(str(tmp_path / "a"), str(tmp_path / "b")),
    ]
    assert head == "moesim: 12 mistakes in the input; nothing was written"


def test_import_writes_a_trace_of_ours(tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.array([[[0, 1], [2, 3]], [[1, 0], [3, 5]]]))
    out = tmp_path / "x.parquet"
    done = call("trace", "import", tmp_path / "in.npy", "--out", out, "--prompt-tokens", 1, "--key-bytes", "2KiB")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "captured" in done.stdout and "2 (1 prompt, 1 output)" in done.stdout
    trace = read_routing(out)
    assert (trace.meta.key_bytes, trace.meta.experts, trace.meta.report["source"]["file"]) == (2048, 6, "in.npy")
    again = call("trace", "import", tmp_path / "in.npy", "--out", out, "--prompt-tokens", 1, "--json")
    assert json.loads(again.stdout)["tokens"] == 2
    table = call("cache", out, "--policies", "lru", "--sizes", "50%,6").stdout
    assert "misses per output token (keys)" in table and "MiB" not in table


def test_import_writes_nothing_where_the_input_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("nonsense\n")
    done = call("trace", "import", tmp_path / "in.csv", "--out", tmp_path / "x.parquet")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is of no known format (begins with 'nonsense'); expected one of: moesim: " in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]
    np.save(tmp_path / "in.npy", np.array([[[0, 1]]]))
    blocked = call("trace", "import", tmp_path / "in.npy", "--out", tmp_path / "in.csv" / "x", "--prompt-tokens", 1)
    assert blocked.exit_code == 2 and "cannot be written" in blocked.stderr


def test_stats(trace: Path, tmp_path: Path) -> None:
    done = call("trace", "stats", trace, "--out", tmp_path / "s")
    assert (done.exit_code, done.stderr) == (0, "")
    words = ("balance", "reuse", "overlap", "breadth", "foresight", "layers")
    assert all(word in done.stdout for word in words)
    names = sorted(path.name for path in (tmp_path / "s").iterdir())
    assert names == ["stats.json", "stats.png", "stats.svg", "stats.txt"]
    (found,) = json.loads(call("trace", "stats", trace, "--json").stdout)["traces"]
    assert found["trace"] == str(trace) and len(found["findings"]) == len(words)
    assert json.loads((tmp_path / "s" / "stats.json").read_text())["traces"] == [found]
    assert call("trace", "stats", tmp_path / "gone", trace, tmp_path / "lost").exit_code == 2
