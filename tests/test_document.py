from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.document import from_plain, from_settings, parse, read_document
from moesim.errors import InputError, Problem


def problems_of(text: str) -> list[str]:
    with pytest.raises(InputError) as error:
        parse(text, "x.yaml")
    return [str(problem) for problem in error.value.problems]


def test_every_value_knows_its_line_and_path() -> None:
    root = parse("a: 1\nb:\n  c: [2, 3]\n\n  d: {e: 4}\n", "x.yaml")
    assert root.value["b"].place == "x.yaml:2: b"
    assert root.value["b"].value["c"].place == "x.yaml:3: b.c"
    assert [item.place for item in root.value["b"].value["c"].value] == ["x.yaml:3: b.c"] * 2
    assert root.value["b"].value["d"].value["e"].place == "x.yaml:5: b.d.e"
    assert root.child("missing").place == "x.yaml:1: missing"


def test_merged_keys_keep_the_line_they_were_written_on() -> None:
    root = parse("base: &b\n  a: 1\nmore:\n  <<: *b\n  c: 2\n", "x.yaml")
    assert root.plain() == {"base": {"a": 1}, "more": {"a": 1, "c": 2}}
    assert root.value["more"].value["a"].where == "x.yaml:2"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e9", 1e9),
        ("1_000", 1000),
        ("-3", -3),
        (".5", 0.5),
        ("no", "no"),
        ("on", "on"),
        ("none", "none"),
        ("2026-01-01", "2026-01-01"),
        ("1:30", "1:30"),
        ("010", "010"),
        ("12GB", "12GB"),
        ("true", True),
        ("~", None),
        ("", None),
        ("'3'", "3"),
        ("!!str 3", "3"),
        ("!!float 3", 3.0),
    ],
)
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse(f"a: {text}", "x.yaml").value["a"].value
    assert (found, type(found)) == (value, type(value))


def test_a_key_given_twice_is_a_mistake_and_both_are_named() -> None:
    assert problems_of("a: 1\nb: {c: 1, c: 2}\na: 2\n") == [
        "x.yaml:3: a: key given twice; it is on line 1 as well",
        "x.yaml:2: b.c: key given twice; it is on line 2 as well",
    ]


@pytest.mark.parametrize(
    ("text", "place", "said"),
    [
        ("a: [1, 2\nb: 3\n", "x.yaml:2", "while parsing a flow sequence"),
        ("a: b: c\n", "x.yaml:1", "mapping values are not allowed"),
        ("a: *nowhere\n", "x.yaml:1", "undefined alias"),
        ("a: &a [*a]\n", "x.yaml:1", "holds itself"),
        ("? [1, 2]\n: 3\n", "x.yaml:1", "no plain text"),
        ("a: !python/name:os.system x\n", "x.yaml:1: a", "not known here"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2", "expected a single document"),
        ("\ta: 1\n", "x.yaml:1", "cannot start any token"),
    ],
)
def test_what_is_no_yaml_is_shown_where_it_is(text: str, place: str, said: str) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith(place + ": ")
    assert said in problem


def test_a_document_that_unfolds_without_end_is_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (problem,) = problems_of("\n".join(lines))
    assert "larger than 100,000 values" in problem


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"[1, 2]", "holds list data"),
        (b"just text", "holds str data"),
        (b"a: \xff\xfe", "is no UTF-8 text (byte 3)"),
    ],
)
def test_what_is_no_experiment_file_is_refused(tmp_path: Path, data: bytes | None, said: str) -> None:
    path = tmp_path / "x.yaml"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=r"x\.yaml: ") as error:
        read_document(path)
    assert said in str(error.value)


def test_settings_are_yaml_at_a_dotted_path_and_later_ones_win() -> None:
    problems: list[Problem] = []
    node = from_settings(["a.b=1", "a.c=[x, 2]", "a.b=3", "d={e: {f: 4}}", "d.e.g=5"], problems)
    assert problems == []
    assert node.plain() == {"a": {"b": 3, "c": ["x", 2]}, "d": {"e": {"f": 4, "g": 5}}}
    assert node.value["d"].value["e"].value["f"].place == "--set d.e.f"


def test_every_wrong_setting_is_named() -> None:
    problems: list[Problem] = []
    from_settings(["a", "=1", "a..b=1", "c=[1", "d=1"], problems)
    assert [problem.place for problem in problems] == ["--set a", "--set =1", "--set a..b=1", "--set c"]


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
plain = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=12
)


@given(plain)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    assert from_plain(value).plain() == value


def test_numbers_of_numpy_are_numbers() -> None:
    numbers = {"slots": np.int64(4), "share": np.float64(0.5), "axis": np.arange(2), "deep": [np.bool_(True)]}
    plain = from_plain(numbers).plain()
    assert plain == {"slots": 4, "share": 0.5, "axis": [0, 1], "deep": [True]}
    assert [type(value) for value in (plain["slots"], plain["share"], *plain["axis"], *plain["deep"])] == [
        int, float, int, int, bool,
    ]  # fmt: skip
