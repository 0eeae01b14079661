"""Two numbers are found again that were planted, and a table that is fitted twice is fitted once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moesim.errors import InputError
from moesim.files import shipped
from moesim.hardware.fitted import KEY, LAYER, fit, unfitted, with_fit, write_fit


def test_planted_numbers_are_found() -> None:
    rows = [(1e6, 10 * 300 + keys * 70, keys) for keys in (0, 20, 50)]
    assert fit(10, rows) == (300, 70)
    assert fit(10, rows[:1]) == (300, 0)
    assert fit(10, [(1e6, -500.0, 0)]) == (-50, 0)


def test_settings_that_do_not_tell_the_two_apart_are_the_layers() -> None:
    assert fit(10, [(1e6, 5_000.0, 20)]) == (500, 0)
    assert fit(10, [(1e6, 5_000.0, 20), (2e6, 5_000.0, 20)]) == (500, 0)


def table(**changes: object) -> dict:
    known = json.loads(shipped("traces", "kernels", "h100-pcie5-llama-2-7b-readme.json").read_text())
    return known | {"label": "MEASURED", "date": "2026-01-01"} | changes


def test_a_fit_takes_the_place_of_the_last() -> None:
    first = table()
    once = with_fit(first, 500, 40, "runs")
    assert once["components"]["layer_rest"]["ns"][0] == first["components"]["layer_rest"]["ns"][0] + 500
    assert once["host_ns"]["copy_submit"] == first["host_ns"]["copy_submit"] + 40
    assert [(row["name"], row["value"], row["source"]) for row in once["constants"][-2:]] == [
        (LAYER, 500, "runs"), (KEY, 40, "runs"),
    ]  # fmt: skip
    twice = with_fit(once, -100, 7, "others")
    assert twice == with_fit(first, -100, 7, "others")
    assert unfitted(twice) == first


def test_nothing_takes_less_than_no_time() -> None:
    made = with_fit(table(), -(10**9), -(10**9), "runs")
    assert min(made["components"]["layer_rest"]["ns"]) == 0 and made["host_ns"]["copy_submit"] == 0
    assert unfitted(made) == table()


def test_only_a_measured_table_is_fitted(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps(table(label="ESTIMATED")))
    with pytest.raises(InputError, match="only a MEASURED table"):
        write_fit(path, 1, 1, "runs")
    path.write_text(json.dumps(table()))
    assert write_fit(path, 1, 1, "runs") == (1, 1)
    assert json.loads(path.read_text()) == with_fit(table(), 1, 1, "runs")
    least = -min(table()["components"]["layer_rest"]["ns"])
    assert write_fit(path, -(10**9), 2, "runs") == (least, 2), "what is said is what was written"
