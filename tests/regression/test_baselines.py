"""Baselines as files: what is written is read back, the same numbers are the same bytes, damage is told."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.analysis.regression.numbers import Numbers, RunNumbers
from moesim.errors import InputError
from moesim.regression import baselines

RUNS = (
    RunNumbers("queue, persist | memory.slots=4", 1, {"span_ns": 2**60 + 1, "x": 0.1}),
    RunNumbers("queue, persist | memory.slots=4", 0, {"span_ns": 7, "x": math.nan}),
    RunNumbers('a "quoted" | r3', 10, {"span_ns": -1, "x": 1e300}),
)
NUMBERS = Numbers(
    {run.name: run for run in RUNS},
    {"trace t.parquet": "ab" * 32, 'trace {"synthetic": "iid"}': "cd" * 32},
    {"steps": 8, "memory": {"slots": 4, "scope": "global"}, "name: odd": "no"},
    {"queue, persist | memory.slots=4": {"cache": {"name": "lookahead"}}, 'a "quoted" | r3': {}},
)


def plain(numbers: Numbers | None) -> object:
    assert numbers is not None
    runs = {
        name: (run.point, run.replication, repr(dict(sorted(run.values.items())))) for name, run in numbers.runs.items()
    }
    return runs, numbers.inputs, numbers.settings, numbers.points


def test_what_is_written_is_read_back_exactly(tmp_path: Path) -> None:
    assert baselines.write(tmp_path / "kept", "guard", NUMBERS)
    assert plain(baselines.read(tmp_path / "kept", "guard")) == plain(NUMBERS)
    assert baselines.known(tmp_path / "kept") == ["guard"]
    assert not baselines.write(tmp_path / "kept", "guard", NUMBERS), "the same again writes nothing"


def test_a_line_a_number_sorted() -> None:
    text = baselines.texts("guard", NUMBERS)["guard.csv"]
    assert text.splitlines()[0] == "run,metric,value" and text.endswith("\n")
    assert text.splitlines()[3:5] == [
        '"queue, persist | memory.slots=4 | r0",span_ns,7',
        '"queue, persist | memory.slots=4 | r0",x,',
    ]


def test_a_line_a_point_and_an_input() -> None:
    lines = baselines.texts("guard", NUMBERS)["guard.yaml"].splitlines()
    assert lines[0].startswith("# Baselines of guard, written by `moesim regress --update`")
    assert f"  trace t.parquet: {'ab' * 32}" in lines and "  memory: {scope: global, slots: 4}" in lines
    assert "  queue, persist | memory.slots=4: {cache: {name: lookahead}}" in lines


@settings(derandomize=True, max_examples=40)
@given(st.permutations(RUNS))
def test_the_order_of_runs_and_metrics_does_not_matter(runs: list[RunNumbers]) -> None:
    turned = [RunNumbers(r.point, r.replication, dict(reversed(list(r.values.items())))) for r in runs]
    points = dict(reversed(list(NUMBERS.points.items())))
    other = Numbers({run.name: run for run in turned}, NUMBERS.inputs, NUMBERS.settings, points)
    assert baselines.texts("guard", other) == baselines.texts("guard", NUMBERS)


@settings(derandomize=True, max_examples=60)
@given(st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)), st.text(min_size=1))
def test_any_number_and_name_survives(value: float, point: str) -> None:
    import tempfile

    run = RunNumbers(point.replace("\r", "").replace("\0", "") or "p", 0, {"m": value})
    with tempfile.TemporaryDirectory() as folder:
        try:
            baselines.write(Path(folder), "g", Numbers({run.name: run}))
        except UnicodeEncodeError:  # half of a surrogate pair is in no file
            return
        found = baselines.read(Path(folder), "g")
    assert found is not None and [(r.values["m"], type(r.values["m"])) for r in found.runs.values()] == [
        (value, type(value))
    ]


def test_there_are_none(tmp_path: Path) -> None:
    assert baselines.read(tmp_path, "guard") is None and baselines.known(tmp_path / "no folder") == []


def test_removed(tmp_path: Path) -> None:
    baselines.write(tmp_path, "guard", NUMBERS)
    baselines.remove(tmp_path, "guard")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("guard.csv", None, "guard.csv: is missing beside guard.yaml; restore it"),
        ("guard.yaml", None, "guard.yaml: is missing beside guard.csv; restore it"),
        ("guard.csv", ("run,metric,value", "run,value"), "guard.csv:1: is no table of baselines"),
        ("guard.csv", ('r0",span_ns,7', 'r0",span_ns,seven'), "is no line of a run, a metric and a number"),
        ("guard.csv", ("span_ns,-1", "span_ns"), "guard.csv:2: "),
        ("guard.csv", ("span_ns,-1", "x,-1"), 'x of a "quoted" | r3 | r10 is there twice'),
        ("guard.csv", ("<<<", "=== conflict\n"), "guard.csv:2: '=== conflict' is no line"),
        ("guard.yaml", ("inputs:", "input:"), "guard.yaml: has no mapping 'inputs'"),
        ("guard.yaml", ("inputs:", "inputs: ["), "guard.yaml: cannot be read"),
    ],
)
def test_damage_is_told(file: str, change: tuple[str, str] | None, said: str, tmp_path: Path) -> None:
    baselines.write(tmp_path, "guard", NUMBERS)
    path = tmp_path / file
    text = path.read_text()
    if change is None:
        path.unlink()
    elif change[0] == "<<<":
        path.write_text(text.replace("\n", f"\n{change[1]}", 1))
    else:
        assert change[0] in text
        path.write_text(text.replace(*change))
    with pytest.raises(InputError) as told:
        baselines.read(tmp_path, "guard")
    assert said in str(told.value), str(told.value)


def test_a_number_that_is_missing_is_told(tmp_path: Path) -> None:
    baselines.write(tmp_path, "guard", NUMBERS)
    path = tmp_path / "guard.csv"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if not line.endswith(",7")) + "\n")
    with pytest.raises(InputError, match=r"\| r0 has no span_ns, which other runs have"):
        baselines.read(tmp_path, "guard")
