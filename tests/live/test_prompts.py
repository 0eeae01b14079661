from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moesim.errors import InputError
from moesim.live.prompts import Limits, Prompt, digest, forced, read_prompts, write_prompts

LIMITS = Limits(vocabulary=64, longest=20)


def encode(text: str) -> list[int]:
    return [ord(letter) % 64 for letter in text]


def write(path, *entries):
    path.write_text("".join((e if isinstance(e, str) else json.dumps(e)) + "\n" for e in entries), encoding="utf-8")
    return path


def read(path, **given):
    return read_prompts(path, encode, LIMITS, **{"output": 4, **given})


def test_texts_and_ids_are_read(tmp_path):
    file = write(
        tmp_path / "p.jsonl",
        {"text": "abc", "domain": "code", "source": "here", "licence": "MIT", "split": "held-out"},
        {"ids": [1, 2], "output": 7},
        {"ids": [3], "continuation_ids": [4, 5, 6], "continuation_by": "somebody"},
    )
    one, two, three = read(file)
    assert one.ids.tolist() == encode("abc") and one.output == 4 and one.continuation is None
    assert (one.domain, one.source, one.licence, one.split) == ("code", "here", "MIT", "held-out")
    assert (two.ids.tolist(), two.output, two.domain) == ([1, 2], 7, "all")
    assert (three.output, three.continuation.tolist(), three.continuation_by) == (3, [4, 5, 6], "somebody")
    assert len(read(file, first=2)) == 2


def test_every_wrong_line_is_named(tmp_path):
    file = write(
        tmp_path / "p.jsonl",
        {"ids": [1]},
        {"text": "a", "ids": [1]},
        {"domain": "code"},
        {"ids": [64]},
        {"ids": list(range(18))},
        {"ids": []},
        {"ids": [1.5]},
        {"text": 3},
        {"ids": [1], "output": -1},
        {"ids": [1], "topic": "code"},
        {"ids": [1], "output": 2, "continuation_ids": [1]},
        [1, 2],
        '{"ids": [1, 2',
    )
    with pytest.raises(InputError) as told:
        read(file)
    lines = str(told.value).replace(str(file), "p").split("\n")
    assert [line.split(": ")[0] for line in lines] == [f"p:{n}" for n in range(2, 14)]
    for text, line in zip(
        [
            "has text and ids; expected one of text and ids",
            "has neither text nor ids; expected one of text and ids",
            "ids has token 64; the model's vocabulary ends at 63",
            "18 + 4 tokens are too long; the model takes 20",
            "has no tokens; expected at least one",
            "ids is [1.5]; expected a list of token ids",
            "text is 3; expected a string",
            "output is -1; expected a whole number of tokens from 0",
            "unknown key 'topic'",
            "output is 2, but continuation_ids has 1 tokens",
            'holds [1, 2]; expected JSONL, one prompt a line: {"text": "..."} or {"ids": [...]}',
            "is not JSON",
        ],
        lines,
        strict=True,
    ):
        assert text in line
    assert "is the file truncated?" in lines[-1]


def test_files_that_are_none_are_told(tmp_path):
    for make, text in (
        (lambda f: None, "there is no such file; expected JSONL"),
        (lambda f: f.mkdir(), "is a folder; expected JSONL"),
        (lambda f: f.write_text("\n\n"), "holds no prompts; expected JSONL"),
        (lambda f: f.write_bytes(b'{"ids": [1]}\n\xff\xfe'), ":2: is not UTF-8"),
        (lambda f: f.write_text("[" * 100_000), ":1: is not JSON"),
        (lambda f: f.write_text('{"ids": [1], "domain": "\\ud800"}'), ":1: domain is "),
    ):
        file = tmp_path / str(len(list(tmp_path.iterdir())))
        make(file)
        with pytest.raises(InputError) as told:
            read(file)
        assert text in str(told.value)


def test_a_byte_order_mark_is_no_mistake(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'\xef\xbb\xbf{"ids": [1]}\r\n{"ids": [2]}\r\n')
    assert [prompt.ids.tolist() for prompt in read(tmp_path / "p.jsonl")] == [[1], [2]]


def test_many_mistakes_are_counted(tmp_path):
    file = write(tmp_path / "p.jsonl", *[{}] * 100)
    with pytest.raises(InputError) as told:
        read(file)
    assert len(told.value.problems) == 41 and "and 60 more mistakes" in str(told.value)


def test_a_text_needs_a_tokenizer(tmp_path):
    with pytest.raises(InputError, match="there is no tokenizer here; give ids"):
        read_prompts(write(tmp_path / "p.jsonl", {"text": "a"}), None, LIMITS, output=1)


def test_continuations_of_another_capture_are_forced(tmp_path):
    prompts = read(write(tmp_path / "p.jsonl", {"ids": [1, 2], "domain": "code"}, {"ids": [3]}))
    continued = [
        Prompt(p.ids, n + 1, np.arange(n + 1, dtype=np.int32), continuation_by="m") for n, p in enumerate(prompts)
    ]
    write_prompts(tmp_path / "continuations.jsonl", continued)
    for path in (tmp_path, tmp_path / "continuations.jsonl"):
        found = forced(prompts, path, LIMITS)
        assert [p.continuation.tolist() for p in found] == [[0], [0, 1]]
        assert [(p.output, p.continuation_by, p.domain) for p in found] == [(1, "m", "code"), (2, "m", "all")]


def test_continuations_of_other_prompts_are_refused(tmp_path):
    prompts = read(write(tmp_path / "p.jsonl", {"ids": [1, 2]}, {"ids": [3]}, {"ids": [5]}))
    file = write(tmp_path / "c.jsonl", {"ids": [1, 2], "output": 3}, {"ids": [4], "continuation_ids": [1]})
    with pytest.raises(InputError) as told:
        forced(prompts, file, LIMITS)
    text = str(told.value)
    assert "has 2 sequences; there are 3 prompts" in text
    assert "c.jsonl:1: has no continuation_ids" in text
    assert "c.jsonl:2: continues another prompt than line 2" in text


IDS = st.lists(st.integers(0, 63), min_size=1, max_size=9)
WORD = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=5)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(IDS, st.none() | IDS, WORD.filter(bool), WORD), min_size=1, max_size=5))
def test_what_is_written_is_read_again(tmp_path_factory, lines):
    prompts = [
        Prompt(
            np.array(ids, np.int32),
            5 if follow is None else len(follow),
            None if follow is None else np.array(follow, np.int32),
            domain=domain,
            source=source,
        )
        for ids, follow, domain, source in lines
    ]
    file = tmp_path_factory.mktemp("p") / "p.jsonl"
    write_prompts(file, prompts)
    assert digest(read_prompts(file, None, LIMITS, output=0)) == digest(prompts)
