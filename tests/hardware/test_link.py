"""Links: one copy is a fixed cost and bytes over bandwidth, or a line through measured points."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.hardware.files import data_dir, names
from moesim.hardware.link import LinkTable, load_link

KEY = 135_266_304


def test_one_llama_key_by_hand() -> None:
    assert load_link("a100-pcie4").copy(KEY) == 10_000 + 5_382_663
    assert load_link("h100-pcie5").copy(KEY) == 10_000 + 2_563_319
    assert load_link("pcie3").copy(KEY) == 10_000 + 11_272_192


def test_shipped_links_are_estimated_and_sourced() -> None:
    assert names("links") == ["a100-pcie4", "cpu-2000mb", "h100-pcie5", "pcie3"]
    for name in names("links"):
        link = load_link(name)
        assert link.name == name
        if name.startswith("cpu-"):
            assert link.label == "MEASURED" and link.file.date and len(link.file.pinned.spread) == 6
            continue
        assert link.estimated
        assert len(link.digest) == 64
        assert {c.value for c in link.file.constants} >= {link.fixed_ns, link.bytes_per_second}


def test_pageable_memory_is_slower_where_there_are_figures() -> None:
    assert load_link("h100-pcie5", pinned=False).copy(KEY) > 10 * load_link("h100-pcie5").copy(KEY)
    with pytest.raises(InputError, match="no figures for pageable"):
        load_link("pcie3", pinned=False)


@given(st.integers(0, 10**12), st.integers(0, 10**9))
def test_more_bytes_never_take_less_time(bytes: int, more: int) -> None:
    link = load_link("h100-pcie5")
    assert link.copy(bytes + more) >= link.copy(bytes) >= link.fixed_ns


def test_the_other_direction_and_both_at_once() -> None:
    link = load_link("h100-pcie5")
    assert link.to_host(KEY) == 10_000 + 2_563_319
    assert link.both_ways == (Fraction(28, 25), Fraction(28, 25))
    assert load_link("a100-pcie4").both_ways == (Fraction(2), Fraction(53, 50))
    assert load_link("a100-pcie4").to_host(KEY) == 10_000 + 5_410_653


def test_a_link_that_does_not_say_what_the_other_direction_takes(tmp_path: Path) -> None:
    document = json.loads((data_dir("links") / "pcie3.json").read_text())
    del document["to_host"], document["both_ways"]
    (tmp_path / "one-way.json").write_text(json.dumps(document))
    assert load_link(tmp_path / "one-way.json").lacks == ["to_host", "both_ways"]
    document["both_ways"] = {"to_device": 0.5, "to_host": 1, "source": "a test"}
    (tmp_path / "fast.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"both_ways\.to_device"):
        load_link(tmp_path / "fast.json")


def measured(tmp_path: Path, points: object) -> LinkTable:
    document = json.loads((data_dir("links") / "pcie3.json").read_text())
    document |= {"label": "MEASURED", "date": "2026-01-01", "pinned": {"points": points, "source": "a test"}}
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(document))
    return load_link(path)


def test_measured_points_are_joined_by_lines(tmp_path: Path) -> None:
    link = measured(tmp_path, [[1000, 50], [2000, 60], [4000, 100]])
    assert [link.copy(n) for n in (1, 1000, 1500, 2000, 3000, 4000, 8000)] == [50, 50, 55, 60, 80, 100, 180]
    assert (link.estimated, link.fixed_ns, link.bytes_per_second) == (False, 50, 50_000_000_000)


@pytest.mark.parametrize("points", [[], [[1, 1]], [[2, 1], [1, 2]], [[1, 2], [2, 2]], [[1, -1], [2, 2]], "fast"])
def test_points_that_cannot_be_are_refused(tmp_path: Path, points: object) -> None:
    with pytest.raises(InputError, match=r"mine\.json"):
        measured(tmp_path, points)


def test_wrong_names_and_cost_tables_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'h100-pcie5'"):
        load_link("h100-pcie")
    with pytest.raises(InputError, match="holds format 'moesim-costs'"):
        load_link(data_dir("kernels") / "read-me-table-8.json")
