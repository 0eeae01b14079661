"""Arrivals: every format read exactly, every mistake named with its line, and transformations that are pure."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.trace.arrivals import (
    FORMATS,
    Arrivals,
    ArrivalsMeta,
    first,
    fitting,
    read_arrivals,
    sampled,
    scaled,
    sliced,
    write_arrivals,
)
from moesim.trace.formats.sheet import MOST_TOLD

SHARED = Path(__file__).parents[2].parent / "shared" / "data"

AZURE = """\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:59.5000000,374,44
2023-11-16 18:16:00.0000001,396,109
2023-11-16 18:16:00.0000001,2,7
"""
MOONCAKE = """\
{"timestamp": 0, "input_length": 6758, "output_length": 500, "hash_ids": [0, 1]}
{"timestamp": 3000, "input_length": 12, "output_length": 1, "hash_ids": []}
{"timestamp": 3000.5, "input_length": 900, "output_length": 2}
"""
BURSTGPT = """\
Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,400,10,410,Conversation log
45.25,GPT-4,10,20,30,API log
"""
BURSTGPT_2 = """\
Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type
0,7,1.5,ChatGPT,3,4,7,Conversation log
1,,0.2,"GPT-4",5,6,11,API log
"""
PLAIN = """\
# two users, made by hand
arrival_s,prompt_tokens,output_tokens,domain
0,10,5,code
0.25,20,6,prose
1e1,30,7,code
"""
GOOD = {"azure": AZURE, "mooncake": MOONCAKE, "burstgpt": BURSTGPT, "csv": PLAIN}


def put(folder: Path, text: str | bytes, name: str = "a.txt") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def table(read: Arrivals) -> list[tuple[int, int, int]]:
    return list(zip(read.arrival.tolist(), read.prompt.tolist(), read.output.tolist(), strict=True))


def mistakes(path: Path, **options: str) -> list[str]:
    with pytest.raises(InputError) as error:
        read_arrivals(path, **options)
    return [str(problem).removeprefix(str(path)) for problem in error.value.problems]


# ---- formats


def test_azure_counts_from_its_first_request(tmp_path: Path) -> None:
    read = read_arrivals(put(tmp_path, AZURE))
    assert table(read) == [(0, 374, 44), (500_000_100, 396, 109), (500_000_100, 2, 7)]
    assert (read.domains, read.meta.label, read.meta.name) == (None, "recorded", "a")


def test_azure_of_2024_has_an_offset(tmp_path: Path) -> None:
    lines = ("2024-05-10 00:00:00.009930+00:00,2162,5", "2024-05-10 00:00:01+00:00,1,1", "")
    text = "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *lines])
    assert table(read_arrivals(put(tmp_path, text))) == [(0, 2162, 5), (990_070_000, 1, 1)]


def test_mooncake_is_in_milliseconds(tmp_path: Path) -> None:
    expected = [(0, 6758, 500), (3_000_000_000, 12, 1), (3_000_500_000, 900, 2)]
    assert table(read_arrivals(put(tmp_path, MOONCAKE))) == expected


def test_burstgpt_is_in_seconds_and_may_have_sessions(tmp_path: Path) -> None:
    assert table(read_arrivals(put(tmp_path, BURSTGPT))) == [(5_000_000_000, 400, 10), (45_250_000_000, 10, 20)]
    assert table(read_arrivals(put(tmp_path, BURSTGPT_2))) == [(0, 3, 4), (1_000_000_000, 5, 6)]


def test_plain_csv_has_comments_and_domains(tmp_path: Path) -> None:
    read = read_arrivals(put(tmp_path, PLAIN))
    assert table(read) == [(0, 10, 5), (250_000_000, 20, 6), (10_000_000_000, 30, 7)]
    assert read.domains == ("code", "prose", "code")


@pytest.mark.parametrize(("unit", "ns"), [("s", 1_500_000_000), ("ms", 1_500_000), ("us", 1500), ("ns", 2)])
def test_plain_csv_names_its_unit(tmp_path: Path, unit: str, ns: int) -> None:
    text = f"arrival_{unit},prompt_tokens,output_tokens\n1.5,1,1\n"
    assert table(read_arrivals(put(tmp_path, text))) == [(ns, 1, 1)]


def test_times_are_exact_in_decimals(tmp_path: Path) -> None:
    text = "arrival_s,prompt_tokens,output_tokens\n123456789.123456789,1,1\n"
    assert table(read_arrivals(put(tmp_path, text)))[0][0] == 123456789_123456789


@pytest.mark.parametrize("name", GOOD)
def test_ends_of_lines_do_not_matter(tmp_path: Path, name: str) -> None:
    text = GOOD[name]
    expected = table(read_arrivals(put(tmp_path, text)))
    others = (text.replace("\n", "\r\n"), text.replace("\n", "\r"), text.rstrip("\n"), text + "\n\n", "\ufeff" + text)
    for other in others:
        assert table(read_arrivals(put(tmp_path, other))) == expected
        assert table(read_arrivals(put(tmp_path, other), format=name)) == expected


# ---- our own format


def made(**changes: Any) -> Arrivals:
    whole = Arrivals(
        np.array([0, 5, 5, 90], dtype=np.int64),
        np.array([3, 4, 5, 6], dtype=np.int32),
        np.array([1, 2, 3, 4], dtype=np.int32),
        ("a", "b", "a", "a"),
        ArrivalsMeta(name="mine", label="synthetic", requests=4, command="by hand"),
    )
    return replace(whole, **changes)


@pytest.mark.parametrize("domains", [None, ("a", "b", "a", "a")])
def test_what_is_written_is_read(tmp_path: Path, domains: tuple[str, ...] | None) -> None:
    write_arrivals(tmp_path / "a.parquet", made(domains=domains))
    read = read_arrivals(tmp_path / "a.parquet")
    assert table(read) == [(0, 3, 1), (5, 4, 2), (5, 5, 3), (90, 6, 4)]
    assert (read.domains, read.meta) == (domains, made().meta)
    assert len(read.digest) == 64
    assert list(tmp_path.iterdir()) == [tmp_path / "a.parquet"]


def test_pandas_reads_it_without_us(tmp_path: Path) -> None:
    import pandas as pd

    write_arrivals(tmp_path / "a.parquet", made())
    frame = pd.read_parquet(tmp_path / "a.parquet")
    assert list(frame.columns) == ["arrival_ns", "prompt_tokens", "output_tokens", "domain"]
    assert frame["arrival_ns"].tolist() == [0, 5, 5, 90]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"arrival": np.array([0, 5, 4, 90])}, ": row 2: arrival_ns 4 is before that of the row above; requests must"),
        ({"arrival": np.array([-1, 5, 6, 90])}, ": row 0: arrival_ns -1 must be 0 or more"),
        ({"prompt": np.array([3, 0, 5, 6], dtype=np.int32)}, ": row 1: prompt_tokens 0 must be 1 to 10,000,000"),
        ({"output": np.array([1, 1, 1, -7], dtype=np.int32)}, ": row 3: output_tokens -7 must be 1 to 10,000,000"),
        ({"output": np.array([1, 2, 3, 4])}, ": column 'output_tokens' holds int64; expected int32"),
    ],
)
def test_a_wrong_parquet_file_names_the_row(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    write_arrivals(tmp_path / "a.parquet", made(**changes))
    (told,) = mistakes(tmp_path / "a.parquet")
    assert told.startswith(says)


def test_parquet_that_is_none_of_ours_cut_or_damaged(tmp_path: Path) -> None:
    import pandas as pd

    write_arrivals(tmp_path / "a.parquet", made())
    data = (tmp_path / "a.parquet").read_bytes()
    assert "is truncated" in mistakes(put(tmp_path, data[:-100], "cut.parquet"))[0]
    assert "is a damaged Parquet file" in mistakes(put(tmp_path, b"PAR1" + b"x" * 90 + b"PAR1", "bad.parquet"))[0]
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "other.parquet")
    assert mistakes(tmp_path / "other.parquet") == [
        ": is Parquet of something else (columns x); expected moesim arrivals: Parquet with the metadata key 'moesim'"
    ]
    assert mistakes(tmp_path / "a.parquet", format="azure") == [
        ":1: is a Parquet file, which only the format moesim is"
    ]


# ---- mistakes


def test_all_mistakes_of_a_file_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """\
arrival_s,prompt_tokens,output_tokens
0,10,5
-1,10,5
3,0,5
2.5,10,5
4,10,0
5,-3,5
six,1.5,
7,10
8,10,5,9

nan,10,5
99999999999,10,5
9,100000000000,5
10,1
"""
    assert mistakes(put(tmp_path, text.rstrip("\n"))) == [
        ":3: time -1 is negative; times count from the start of the trace",
        ":4: 0 prompt tokens; a request needs at least 1 (`empty: drop` leaves such requests out)",
        ":5: time 2.5 is before 3 in line 4; requests must be sorted by time",
        ":6: 0 output tokens; a request needs at least 1 (`empty: drop` leaves such requests out)",
        ":7: prompt_tokens '-3' must be 1 to 10,000,000 tokens",
        ":8: arrival_s 'six' must be a number (s from the start of the trace)",
        ":8: prompt_tokens '1.5' must be a whole number of tokens",
        ":8: output_tokens '' must be a whole number of tokens",
        ":9: has 2 values where the header has 3 columns",
        ":10: has 4 values where the header has 3 columns",
        ":11: is empty; a request is expected",
        ":12: arrival_s 'nan' must be a number (s from the start of the trace)",
        ":13: time 99999999999 is more than a century; is its unit right?",
        ":14: prompt_tokens '100000000000' must be 1 to 10,000,000 tokens",
        ":15: has 2 values where the header has 3 columns; the file ends in the middle of this line",
    ]


def test_mistakes_beyond_the_first_are_counted(tmp_path: Path) -> None:
    text = PLAIN + "x,1,1,code\n" * 50
    told = mistakes(put(tmp_path, text))
    assert len(told) == MOST_TOLD + 1
    assert told[-1] == ": 30 more mistakes are not listed"


WRONG = {
    "azure, no time": (AZURE.replace(":15:59.5", ":15:61.5"), ":2: TIMESTAMP '2023-11-16 18:15:61.5000000' must be a"),
    "azure, seconds": (AZURE.replace("2023-11-16 18:15:59.5000000", "5.5"), ":2: TIMESTAMP '5.5' must be a time such"),
    "azure, unsorted": (AZURE.replace("18:15:59", "18:17:59"), ":3: time 2023-11-16 18:16:00.0000001 is before 2023"),
    "azure, no tokens": (AZURE.replace(",374,", ",0,"), ":2: 0 prompt tokens; a request needs at least 1"),
    "azure, truncated": (AZURE[:-4], ":4: has 2 values where the header has 3 columns; the file ends in the middle"),
    "azure, a column is called otherwise": (
        AZURE.replace("GeneratedTokens", "Generated"),
        ":1: the header 'TIMESTAMP,ContextTokens,Generated' has no column GeneratedTokens; expected TIMESTAMP,Cont",
    ),
    "mooncake, negative": (MOONCAKE.replace("0,", "-1,", 1), ":1: time -1 ms is negative"),
    "mooncake, unsorted": (MOONCAKE.replace("3000.5", "1"), ":3: time 1 ms is before 3000 ms in line 2"),
    "mooncake, no tokens": (MOONCAKE.replace('h": 12', 'h": 0'), ":2: 0 prompt tokens"),
    "mooncake, truncated": (MOONCAKE[:-8], ":3: is no JSON ("),
    "mooncake, half tokens": (MOONCAKE.replace('h": 12', 'h": 12.5'), ":2: input_length '12.5' must be a whole number"),
    "mooncake, text": (MOONCAKE.replace('h": 12', 'h": "12"'), ":2: input_length '\"12\"' must be a whole number"),
    "mooncake, true": (MOONCAKE.replace('h": 12', 'h": true'), ":2: input_length 'true' must be a whole number"),
    "mooncake, a key is missing": (MOONCAKE.replace('"input_length": 12, ', ""), ":2: has no input_length; expected {"),
    "mooncake, a list": (MOONCAKE + "[1, 2]\n", ":4: is no JSON object: '[1, 2]'"),
    "burstgpt, failed": (BURSTGPT.replace(",400,10,", ",400,0,"), ":2: 0 output tokens; a request needs at least 1"),
    "burstgpt, negative": (BURSTGPT.replace("5,Chat", "-5,Chat"), ":2: time -5 is negative"),
    "burstgpt, truncated": (BURSTGPT[:-20], ":3: has 2 values where the header has 6 columns; the file ends"),
    "csv, a column is misspelt": (
        PLAIN.replace("domain", "domian"),
        ":2: the header 'arrival_s,prompt_tokens,output_tokens,domian' has the unknown column 'domian'; expected arri",
    ),
    "csv, two times": (
        "arrival_s,arrival_ms,prompt_tokens,output_tokens\n0,0,1,1\n",
        ":1: the header 'arrival_s,arrival_ms,prompt_tokens,output_tokens' has no column arrival_s or arrival_ms or",
    ),
    "csv, a column twice": (
        "arrival_s,prompt_tokens,output_tokens,output_tokens\n0,1,1,1\n",
        ":1: the header 'arrival_s,prompt_tokens,output_tokens,output_tokens' has the column 'output_tokens' twice",
    ),
    "header alone": ("arrival_s,prompt_tokens,output_tokens\n", ":1: holds no requests up to its end"),
    "comments alone": ("# nothing\n", ":1: holds only comments. Known are azure: TIMESTAMP"),
    "prose": ("Dear all,\nplease find attached\n", ":1: begins with 'Dear all,', which is no header of arrivals."),
    "empty": ("", ":1: is empty; expected arrivals"),
    "blank": (" \n\n", ":1: is empty; expected arrivals"),
    "gzip": (gzip.compress(AZURE.encode()), ":1: is gzip data; unpack it first"),
    "lfs": ("version https://git-lfs.github.com/spec/v1\noid sha256:00\n", ":1: is a Git LFS pointer, not the file"),
    "binary": (AZURE.encode() + b"\xff\xfe\n", ":5: is no UTF-8 text (byte 143); expected CSV, JSON lines or "),
    "zeros": (AZURE.encode() + b"1,\0,2\n", ":5: is no UTF-8 text (byte 145); expected CSV"),
    "utf-16": (AZURE.encode("utf-16"), ":1: is UTF-16 text; save it as UTF-8"),
    "utf-16, no mark": (AZURE.encode("utf-16-le"), ":1: is no UTF-8 text (byte 1); expected CSV"),
    "utf-32": (AZURE.encode("utf-32"), ":1: is UTF-32 text; save it as UTF-8"),
    "xz": (lzma.compress(AZURE.encode()), ":1: is xz data; unpack it first"),
    "bzip2": (bz2.compress(AZURE.encode()), ":1: is bzip2 data; unpack it first"),
    "csv, semicolons": (
        "arrival_s;prompt_tokens;output_tokens\n0;1;1\n",
        ":1: begins with 'arrival_s;prompt_tokens;output_tokens', which is no header of arrivals (its values are separ",
    ),
    "csv, another case": (
        "Arrival_s,prompt_tokens,output_tokens\n0,1,1\n",
        ":1: the header 'Arrival_s,prompt_tokens,output_tokens' has no column arrival_s or arrival_ms or arrival_us or",
    ),
    "csv, no header": ("0,1,1\n", ":1: begins with '0,1,1', which is no header of arrivals. Known are azure: "),
    "csv, digits of another script": (PLAIN.replace(",10,", ",\u0661,"), ":3: prompt_tokens '\u0661' must be a whole"),
    "csv, a number of 5,000 digits": (PLAIN.replace(",10,", f",{'9' * 5000},"), ":3: prompt_tokens '99999999999999999"),
    "csv, a time of 5,000 digits": (PLAIN.replace("0.25,", f"{'9' * 5000},"), ":4: time 99999999999999999999999999999"),
    "csv, a time beyond all bounds": (PLAIN.replace("0.25,", "1e999999999,"), ":4: time 1e999999999 is more than a"),
    "csv, a time below all bounds": (PLAIN.replace("0.25,", "-1e999999999,"), ":4: time -1e999999999 is negative"),
    "csv, a time with underscores": (PLAIN.replace("0.25,", "1_0,"), ":4: arrival_s '1_0' must be a number (s from"),
    "csv, a quote that does not end": (PLAIN.replace("0.25,", '"0.25,'), ":4: has 1 values where the header has 4"),
    "csv, a quote without end": (PLAIN + f'"{"x" * 200_000}\n', ":6: has 1 values where the header has 4 columns"),
    "mooncake, a number of 5,000 digits": (MOONCAKE.replace('h": 12', f'h": {"9" * 5000}'), ":2: input_length "),
    "mooncake, not a number": (MOONCAKE.replace('h": 12', 'h": NaN'), ":2: input_length 'NaN' must be a whole number"),
    "mooncake, deep": (MOONCAKE + "[" * 100_000 + "\n", ":4: is nested too deeply for a request"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_told_in_one_message(tmp_path: Path, case: str) -> None:
    text, says = WRONG[case]
    told = mistakes(put(tmp_path, text))
    assert len(told) == 1
    assert told[0].startswith(says), told[0]


@pytest.mark.parametrize("said", ["azure", "mooncake", "burstgpt", "csv"])
@pytest.mark.parametrize("really", GOOD)
def test_a_file_of_another_format_is_told_which(tmp_path: Path, said: str, really: str) -> None:
    path = put(tmp_path, GOOD[really])
    if said == really:
        assert len(read_arrivals(path, format=said)) > 1
    else:
        (told,) = mistakes(path, format=said)
        line = 2 if really == "csv" else 1
        assert told.startswith(f":{line}: looks like the format {really} (")
        assert f"not {said}: " in told


def test_a_header_with_a_missing_column_is_told_when_the_format_is_given(tmp_path: Path) -> None:
    (told,) = mistakes(put(tmp_path, AZURE.replace("GeneratedTokens", "Generated")), format="azure")
    assert told == (
        ":1: the header 'TIMESTAMP,ContextTokens,Generated' has no column GeneratedTokens; expected "
        "TIMESTAMP,ContextTokens,GeneratedTokens (Azure LLM inference trace, CSV)"
    )
    assert mistakes(put(tmp_path, AZURE), format="moesim") == [":1: is no Parquet file, as the format moesim is"]


def test_wrong_options_and_files_that_are_not_there(tmp_path: Path) -> None:
    assert mistakes(tmp_path / "gone.csv") == [
        f": there is no such file; expected arrivals in one of the formats {', '.join(FORMATS)}"
    ]
    assert mistakes(tmp_path)[0].startswith(": is a folder; expected arrivals")
    known = "auto, azure, burstgpt, csv, moesim, mooncake"
    assert mistakes(tmp_path, format="azur", empty="no") == [
        f": unknown arrivals format 'azur'; did you mean 'azure'? There is: {known}",
        ": unknown way with empty requests 'no'. There is: drop, refuse",
    ]


def test_empty_requests_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    text = BURSTGPT + "46,ChatGPT,0,0,0,API log\n47,GPT-4,5,0,5,API log\n48,GPT-4,5,6,11,API log\n"
    assert len(mistakes(put(tmp_path, text))) == 2
    read = read_arrivals(put(tmp_path, text), empty="drop")
    assert (table(read)[2:], read.dropped) == ([(48_000_000_000, 5, 6)], 2)
    empty = BURSTGPT.replace(",400,10,", ",400,0,").replace(",10,20,", ",10,0,")
    assert mistakes(put(tmp_path, empty), empty="drop") == [
        ":3: holds no requests up to its end: all 2 have no prompt or no output tokens"
    ]
    assert "time 1 is before" in mistakes(put(tmp_path, text + "1,GPT-4,5,0,5,API log\n"), empty="drop")[0]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(GOOD)),
    cut=st.integers(0, 200),
    noise=st.binary(max_size=6),
    said=st.sampled_from(["auto", "azure", "mooncake", "burstgpt", "csv"]),
)
def test_whatever_is_wrong_it_is_said_and_nothing_breaks(
    tmp_path_factory: pytest.TempPathFactory, name: str, cut: int, noise: bytes, said: str
) -> None:
    """A file with bytes put in somewhere is read, or refused with a message that names the file."""
    data = GOOD[name].encode()
    path = put(tmp_path_factory.mktemp("a"), data[:cut] + noise + data[cut:])
    try:
        read = read_arrivals(path, format=said)
    except InputError as error:
        assert error.problems
        assert all(problem.place.startswith(str(path)) and problem.text for problem in error.problems)
    else:
        assert (np.diff(read.arrival) >= 0).all() and read.arrival[0] >= 0
        assert read.prompt.min() >= 1 and read.output.min() >= 1


# ---- pure functions


def some(seed: int = 0, requests: int = 5000) -> Arrivals:
    rng = np.random.default_rng(seed)
    return Arrivals(
        np.cumsum(rng.integers(0, 10**9, requests)),
        rng.integers(1, 4000, requests).astype(np.int32),
        rng.integers(1, 500, requests).astype(np.int32),
        tuple(rng.choice(["a", "b"], requests).tolist()),
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(seed=st.integers(0, 99), start=st.integers(0, 40), length=st.integers(0, 40))
def test_a_slice_has_what_comes_in_it_and_begins_at_0(seed: int, start: int, length: int) -> None:
    whole = some(seed, 40)
    begin, end = start * 10**9, (start + length) * 10**9
    part = sliced(whole, begin, end)
    expected = [(at - begin, p, o) for at, p, o in table(whole) if begin <= at < end]
    assert table(part) == expected
    assert len(part.domains or ()) == len(part)
    assert table(sliced(whole, begin)) == [(at - begin, p, o) for at, p, o in table(whole) if begin <= at]


def test_scaling_changes_gaps_and_nothing_else() -> None:
    whole = some()
    double = scaled(whole, 2)
    assert np.abs(2 * double.arrival - whole.arrival).max() <= 1
    assert (double.prompt == whole.prompt).all() and double.domains == whole.domains
    assert (np.diff(scaled(whole, 1e6).arrival) >= 0).all()
    assert (scaled(whole, 1).arrival == whole.arrival).all()


def test_a_sample_keeps_a_share_of_the_requests_with_their_times() -> None:
    whole = some()
    part = sampled(whole, 0.25, np.random.default_rng(3))
    assert abs(len(part) - 1250) < 4 * (5000 * 0.25 * 0.75) ** 0.5
    assert not Counter(table(part)) - Counter(table(whole))
    again, other = (sampled(whole, 0.25, np.random.default_rng(seed)) for seed in (3, 4))
    assert table(part) == table(again) != table(other)
    assert table(sampled(whole, 1.0, np.random.default_rng(3))) == table(whole)


def test_what_exceeds_the_context_is_left_out() -> None:
    whole = some()
    part = fitting(whole, 2000)
    assert table(part) == [row for row in table(whole) if row[1] + row[2] <= 2000]
    assert 0 < len(part) < len(whole)


def test_the_first_requests() -> None:
    whole = some(requests=10)
    assert table(first(whole, 4)) == table(whole)[:4]
    assert table(first(whole, 99)) == table(whole)


def test_nothing_is_changed_in_place() -> None:
    whole, twin = some(), some()
    for change, argument in ((sliced, 10**9), (scaled, 3), (fitting, 100), (first, 2)):
        change(whole, argument)
    sampled(whole, 0.5, np.random.default_rng(0))
    assert table(whole) == table(twin)


# ---- real files


def shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.is_file():
        pytest.skip(f"third-party data is not here: ../shared/data/{'/'.join(parts)}")
    return path


@pytest.mark.parametrize(
    ("parts", "requests", "prompt", "output", "last"),
    [
        (("azure_llm_2023", "AzureLLMInferenceTrace_conv.csv"), 19366, 22361870, 4088665, 3_501_721_937_000),
        (("azure_llm_2023", "AzureLLMInferenceTrace_code.csv"), 8819, 18059974, 245896, 3_435_948_056_000),
        (("mooncake_fast25", "conversation_trace.jsonl"), 12031, 144793823, 4122048, 3_536_999_000_000),
    ],
)
def test_published_traces_are_read_whole(
    parts: tuple[str, str], requests: int, prompt: int, output: int, last: int
) -> None:
    read = read_arrivals(shared(*parts))
    assert (len(read), int(read.prompt.sum()), int(read.output.sum())) == (requests, prompt, output)
    assert (int(read.arrival[0]), int(read.arrival[-1])) == (0, last)


def test_a_published_trace_that_is_cut_is_refused(tmp_path: Path) -> None:
    data = shared("mooncake_fast25", "conversation_trace.jsonl").read_bytes()[:100_000]
    (told,) = mistakes(put(tmp_path, data))
    assert told.startswith(f":{data.count(10) + 1}: is no JSON (")
    assert told.endswith("the file ends in the middle of this line")
