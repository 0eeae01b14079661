from __future__ import annotations

import gzip
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from moesim.errors import InputError
from moesim.live import sources
from moesim.live.corpus import DOMAINS, Work, load_works
from moesim.live.passages import cut, lengths, output_lengths

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def work(name: str, units: int, source: str = "s", size: int = 10) -> Work:
    texts = tuple(f"{name}{unit:03d}".ljust(size, ".") for unit in range(units))
    return Work("code", source, "MIT", "train", name, texts, "|")


def text(passage) -> str:
    return "".join(map(chr, passage.ids))


def test_passages_start_at_units_and_share_no_text():
    works = [work(name, 40) for name in "abc"]
    passages = cut(works, encode, [(35, 10), (8, 5), (60, 20), (21, 10)], (0,))
    assert [len(passage.ids) for passage in passages] == [35, 8, 60, 21]
    used = [unit for passage in passages for unit in text(passage).split("|")]
    assert len({unit[:4] for unit in used}) == len(used)
    assert all(text(passage)[4:8] == "...." and text(passage)[0] in "abc" for passage in passages)


def test_sources_take_turns():
    works = [work("a", 60, "one"), work("b", 60, "two"), work("c", 60, "three")]
    names = [passage.source for passage in cut(works, encode, [(20, 5)] * 9, (0,))]
    assert {name: names.count(name) for name in names} == {"one": 3, "two": 3, "three": 3}


def test_a_work_that_ends_early_gives_what_it_has_or_nothing():
    assert len(cut([work("a", 3)], encode, [(100, 32)], (0,))[0].ids) == 32
    with pytest.raises(InputError, match="code, train: text for 0 of 1 passages only"):
        cut([work("a", 3)], encode, [(100, 33)], (0,))


def test_equal_texts_come_once():
    works = [Work("code", source, "MIT", "train", source, ("same words", "same words"), "|") for source in "ab"]
    with pytest.raises(InputError, match="text for 1 of 2"):
        cut(works, encode, [(10, 10), (10, 10)], (0,))


def test_lengths_are_within_their_spans_and_repeat():
    found = lengths(200, (16, 128), (256, 1024), (1, 2))
    long, short = np.array(found[::2]), np.array(found[1::2])
    assert long[:, 0].min() >= 256 and long[:, 0].max() <= 1024 and set(long[:, 1]) == {256}
    assert short[:, 0].min() >= 16 and short[:, 0].max() <= 128 and set(short[:, 1]) == {16}
    assert found == lengths(200, (16, 128), (256, 1024), (1, 2)) != lengths(200, (16, 128), (256, 1024), (1, 3))


def test_output_lengths_are_geometric_within_their_span():
    found = output_lengths(4000, 50, (8, 160), (0,))
    assert (found.min(), found.max()) == (8, 160)
    assert 45 < found.mean() < 52
    assert np.median(found) < found.mean()
    assert output_lengths(5, 3, (3, 3), (0,)).tolist() == [3] * 5


def test_a_missing_folder_and_missing_files_are_all_named(tmp_path):
    with pytest.raises(InputError, match="there is no such folder"):
        load_works(tmp_path / "data")
    with pytest.raises(InputError) as caught:
        load_works(tmp_path)
    places = [problem.place for problem in caught.value.problems]
    assert len(places) == 23 and any(place.endswith("xquad.en.json") for place in places)


def test_readers(tmp_path):
    rows = [{"prompt": f"\nf{n}()", "canonical_solution": " pass"} for n in range(4)]
    with gzip.open(tmp_path / "h.gz", "wt") as file:
        file.write("\n".join(map(json.dumps, rows)))
    assert list(sources.humaneval(tmp_path / "h.gz")) == [
        ("first half", ["f0() pass", "f1() pass"]),
        ("second half", ["f2() pass", "f3() pass"]),
    ]
    (tmp_path / "g.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "It is <<1+1=2>>2."}))
    assert list(sources.gsm8k(tmp_path / "g.jsonl")) == [("g.jsonl", ["Question: 1+1?\nAnswer: It is 2."])]
    turns = [{"speaker": "USER", "utterance": "Hi"}, {"speaker": "SYSTEM", "utterance": "Hello"}]
    (tmp_path / "d.json").write_text(json.dumps([{"turns": turns}]))
    assert list(sources.schema_dialogues(tmp_path / "d.json")) == [("d.json", ["User: Hi\nSystem: Hello"])]
    asked = [{"question": "Who?", "answers": [{"text": "She"}]}]
    article = {"title": "T", "paragraphs": [{"context": "\ufeffText.", "qas": asked}]}
    (tmp_path / "x.json").write_text(json.dumps({"data": [article]}))
    assert list(sources.articles(tmp_path / "x.json")) == [("T", ["Text.", "Q: Who?\nA: She"])]
    lines = "<LINE>To be</LINE><LINE>or <STAGEDIR>x</STAGEDIR>not</LINE>"
    play = f"<PLAY><SPEECH><SPEAKER>HAM</SPEAKER>{lines}</SPEECH></PLAY>"
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("p/hamlet.xml", play)
        archive.writestr("p/swedish.txt", "\u00f6de\n".encode("cp850") * 9)
    assert list(sources.plays(tmp_path / "z.zip")) == [("hamlet", ["Ham:\nTo be\nor xnot"])]
    assert list(sources.genesis(tmp_path / "z.zip")) == [("swedish", ["\n".join(["\u00f6de"] * 8), "\u00f6de"])]


def test_the_standard_library_has_works():
    found = dict(sources.python_library(Path()))
    assert "json/decoder.py" in found and len(found["json/decoder.py"]) > 5
    assert not any("site-packages" in name or name.startswith("test/") for name in found)


@pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the development data in {DATA.parent.name}/{DATA.name}")
def test_training_and_held_out_texts_are_different_works():
    works = load_works(DATA)
    kinds = {(work.domain, work.split) for work in works}
    assert kinds == {(domain, split) for domain in DOMAINS for split in ("train", "held-out")}
    train, held = (
        {unit for work in works if work.split == split for unit in work.units if len(unit) > 80}
        for split in ("train", "held-out")
    )
    shared = train & held
    assert len(shared) < 0.01 * len(held), sorted(shared)[:3]
