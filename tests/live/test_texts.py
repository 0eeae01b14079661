from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.errors import InputError
from moesim.live.corpus import DOMAINS
from moesim.live.local_texts import LOCAL_DOMAINS, local_works
from moesim.live.settings import QUICK, RefactorConfig, config_from, fast_precision
from moesim.live.texts import choose_texts, read_texts, write_prompts


def encode(text: str) -> list[int]:
    return [ord(letter) % 64 for letter in text]


def lines(tmp_path, *rows):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_a_users_texts_are_works_by_domain_and_split(tmp_path):
    rows = [{"domain": d, "text": f"{d} {n}\n\n" + "x" * 2000} for n in range(5) for d in ("law", "medicine")]
    own = {"domain": "law", "text": "own", "split": "held-out", "licence": "MIT"}
    works, domains = read_texts(lines(tmp_path, *rows, own))
    assert domains == ("law", "medicine")
    found = {(w.domain, w.split, w.licence): w.units for w in works}
    assert [len(found[domain, "train", "not stated"]) for domain in domains] == [12, 12]  # a title and two pieces each
    assert found["law", "held-out", "not stated"][0] == "law 4" and found["law", "held-out", "MIT"] == ("own",)


def test_every_bad_line_is_named(tmp_path):
    good = {"domain": "a", "text": "x"}
    bad = ("{", {"text": "x"}, good | {"split": "test"}, good | {"text": 3}, "[" * 100_000, good | {"text": "\ud800"})
    with pytest.raises(InputError) as error:
        read_texts(lines(tmp_path, *bad))
    assert [problem.place[-6:] for problem in error.value.problems] == [f"line {n}" for n in range(1, 7)]
    with pytest.raises(InputError, match="1 domains; experts need at least 2"):
        read_texts(lines(tmp_path, {"domain": "a", "text": "x"}))
    with pytest.raises(InputError, match="cannot be read"):
        read_texts(tmp_path / "nothing.jsonl")


CONFIG = RefactorConfig(
    train=4,
    calibration=2,
    cluster_texts=2,
    train_length=(20, 40),
    short=(5, 10),
    long=(12, 24),
    prompts=2,
    output=(2, 9),
)


def test_prompts_are_held_out_take_turns_and_repeat(works, tmp_path):
    texts = choose_texts(works, DOMAINS, encode, CONFIG)
    assert [passage.domain for passage in texts.prompts] == [*DOMAINS, *DOMAINS]
    assert {passage.split for passage in texts.prompts} == {"held-out"}
    assert {passage.split for mine in texts.train for passage in mine} == {"train"}
    assert texts.digest() == choose_texts(works, DOMAINS, encode, CONFIG).digest()
    for name in "ab":
        write_prompts(tmp_path / name, texts, CONFIG)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "a").read_text().splitlines()]
    assert [row["ids"] for row in rows] == [passage.ids.tolist() for passage in texts.prompts]
    assert all(2 <= row["output"] <= 9 and row["split"] == "held-out" for row in rows)
    assert [len(p.ids) for p in texts.held_out(3, 1)] == [max(len(p.ids) for p in texts.prompts[3::7])]


def test_long_prompts_are_shorter_where_text_is_short(works):
    config = CONFIG.model_copy(update={"long": (300, 400)})  # a work has 12 units of about 22 letters
    found = [len(p.ids) for p in choose_texts(works, DOMAINS, encode, config).prompts]
    assert max(found) < 300
    with pytest.raises(InputError) as error:
        choose_texts(works, DOMAINS, encode, CONFIG.model_copy(update={"long": (9000, 9999)}))
    assert len(error.value.problems) == len(DOMAINS)


def test_the_texts_of_this_python_suffice_for_a_try():
    works = local_works()
    for domain in LOCAL_DOMAINS:
        for split in ("train", "held-out"):
            assert sum(len(unit) for w in works if (w.domain, w.split) == (domain, split) for unit in w.units) > 50_000


def test_all_mistakes_in_settings_are_told_at_once():
    with pytest.raises(InputError) as error:
        config_from("domains", ["shares=2", "share=2", "k", "train=0"])
    assert [problem.place for problem in error.value.problems] == ["--set", "--set", "--set train", "--set share"]
    with pytest.raises(InputError, match="k is 9, but there are 8 experts; tune is deltas"):
        config_from("fine-grained", ["k=9", "rank=0", "shared_rank=0"])
    quick = config_from("domains", ["train=9"], quick=True)
    assert quick.train == 9 and quick.rounds == QUICK["rounds"] == 1
    assert np.isclose(config_from("fine-grained", ["shared=0.25"]).shared, 0.25)


@pytest.mark.parametrize(("flags", "expected"), [("avx2 avx512_bf16 gfni", "bfloat16"), ("avx2 avx512f", "float32")])
def test_bfloat16_is_for_devices_that_have_it(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags\t\t: {flags}\n")
    assert fast_precision("cpu", tmp_path / "cpuinfo") == expected
    assert fast_precision("cuda:0", tmp_path / "cpuinfo") == "bfloat16"
    assert fast_precision("cpu", tmp_path / "none") == "float32"
    assert config_from("domains", [], precision="float32").precision == "float32"
    assert config_from("domains", ["precision=bfloat16"], precision="float32").precision == "bfloat16"


def test_every_setting_is_in_the_docs():
    page = (Path(__file__).resolve().parents[2] / "docs" / "refactorize.md").read_text(encoding="utf-8")
    table = page.split("## Settings")[1].split("## What is simplified")[0]
    assert [name for name in RefactorConfig.model_fields if f"`{name}`" not in table and name != "scheme"] == []
