"""Presets: what ships, how one lies under an experiment, and what is wrong with one is said with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import moesim
from moesim import presets
from moesim.errors import InputError
from moesim.plan import read_plan
from tests.tiny import tiny

TEXTS = {"represents": "A thing.", "leaves_out": "The rest.", "source": "a paper"}


def write(folder: Path, **settings: Any) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (TEXTS | settings).items() if value is not None}))
    return path


def points(**changes: Any) -> list[dict[str, Any]]:
    return [config.experiment() for config in read_plan(tiny(**changes)).configs]


def mistakes(**changes: Any) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_plan(tiny(**changes))
    return [str(problem) for problem in caught.value.problems]


def layerwise(**recall: float) -> dict[str, Any]:
    return tiny()["trace"] | {"router": "layerwise"} | recall


def needs(name: str) -> str:
    """The router that a preset asks for: its prefetcher may need predictions, or a decoupled router."""
    from moesim import policy
    from moesim.experiment import PolicySpec

    settings = presets.read_preset(name).settings.plain()
    spec = PolicySpec.model_validate(settings.get("prefetch", "none"))
    return "layerwise" if policy.make("prefetch", spec).level == "predicted" else "decoupled"


@pytest.mark.parametrize("name", presets.names())
def test_every_shipped_preset_says_what_it_is_and_runs(name: str, tmp_path: Path) -> None:
    preset = presets.read_preset(name)
    assert len(preset.represents) > 40 and len(preset.leaves_out) > 40 and preset.source
    changes: dict[str, Any] = {"preset": name, "memory": {"bytes": "239MB"}}
    if needs(name) == "layerwise":
        changes["trace"] = layerwise(recall_1=0.8, recall_2=0.7, recall_3=0.6)
    results = moesim.run(tiny(**changes), out=tmp_path / "out", figures=False, check=True)
    (row,) = results.summary.to_dict("records")
    assert row["preset"] == name
    (config,) = results.configs
    assert config.preset == name
    settings = preset.settings.plain()
    for kind in ("cache", "prefetch", "miss"):
        if kind in settings:
            assert config.experiment()[kind] == settings[kind]


def test_names_say_whether_the_rule_is_known() -> None:
    """Where it is from notes or from memory, the preset is called like the system and not by its name."""
    for name in presets.names():
        source = presets.read_preset(name).source
        assert name.endswith("-like") or not ("from notes" in source or "from memory" in source), name


def test_a_preset_lies_under_what_the_experiment_says() -> None:
    (point,) = points(preset="read-me", scheduler={"max_requests": 3, "batch": "prefill-first"}, cache="lfu")
    assert (point["cache"], point["prefetch"], point["preset"]) == ("lfu", "next-layer", "read-me")
    assert point["scheduler"] == {"batch": "prefill-first", "max_tokens": 2048, "max_requests": 3}
    assert point["memory"] == {"slots": 3, "scope": "layer", "staging": 0, "workspace": 0}
    assert points(**point | {"name": "again"})[0] == point | {"name": "again"}  # what was resolved resolves to itself


def test_changes_lie_over_the_preset_and_under_the_experiment() -> None:
    (point,) = points(preset={"name": "read-me", "prefetch": "none", "memory": {"scope": "global"}})
    assert (point["cache"], point["prefetch"]) == ({"name": "lookahead", "level": "queue"}, "none")
    assert point["memory"]["scope"] == "global"
    (point,) = points(preset={"name": "read-me", "prefetch": "none"}, prefetch="step-ahead")
    assert point["prefetch"] == "step-ahead"


def test_presets_are_an_axis_and_may_be_written_out() -> None:
    each = {"a": "read-me", "b": {"cache": "fifo", "memory": {"scope": ["layer", "global"]}}}
    plan = read_plan(tiny(preset={"each": each}))
    found = [(c.labels, c.cache.name, c.memory.scope, c.preset) for c in plan.configs]
    assert found == [
        ({"preset": "a"}, "lookahead", "layer", "read-me"),
        ({"preset": "b", "preset.memory.scope": "layer"}, "fifo", "layer", None),
        ({"preset": "b", "preset.memory.scope": "global"}, "fifo", "global", None),
    ]
    assert [c.labels for c in read_plan(tiny(preset=["read-me", "sida-like"])).configs] == [
        {"preset": "read-me"},
        {"preset": "sida-like"},
    ]
    cases = {"one": {"preset": "read-me"}, "other": {"preset": "sida-like", "prefetch": "none"}}
    assert [c.prefetch.name for c in read_plan(tiny(cases=cases)).configs] == ["next-layer", "none"]


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path, cache="fifo", memory={"scope": "global"})
    (point,) = points(preset=str(path))
    assert (point["cache"], point["memory"]["scope"]) == ("fifo", "global")
    write(tmp_path, cache="lfu")
    assert points(preset=str(path))[0]["cache"] == "lfu"  # read again once it has changed


def test_rows_of_presets_have_the_name_the_level_of_all_policies_and_what_they_are(tmp_path: Path) -> None:
    each = {"ours": {"name": "pre-gated-like", "cache": "fifo"}, "plain": {"cache": "lru"}}
    results = moesim.run(tiny(preset={"each": each}), out=tmp_path / "out", figures=False)
    rows = results.summary[["preset", "cache", "level", "prefetch"]].to_dict("records")
    assert rows == [
        {"preset": "ours", "cache": "fifo", "level": "step", "prefetch": "next-layer"},
        {"preset": "plain", "cache": "lru", "level": "history", "prefetch": "none"},
    ]
    assert "preset" not in moesim.run(tiny(), out=tmp_path / "none", figures=False).summary.columns


@pytest.mark.parametrize(
    ("preset", "says"),
    [
        ("read-mee", ["preset: unknown preset 'read-mee'; did you mean 'read-me'?"]),
        ("gone.yaml", ["preset: there is no preset file 'gone.yaml'"]),
        (3, ["preset: 3 is no preset; write the name of one"]),
        ({"name": 3}, ["preset.name: 3 is no preset"]),
        ({"name": "read-me", "traffic": {}}, ["preset.traffic: unknown key 'traffic'"]),
        ({"each": {"a": {}}}, ["preset: sets nothing; a preset holds some of cache"]),
        ({"memory": {"slots": 3}}, ["preset.memory.slots: unknown key 'slots'"]),
        ({"cache": "lrv"}, ["preset.cache: unknown cache policy 'lrv'; did you mean 'lru'?"]),
        ({"name": "read-me", "prefetch": {"name": "none", "x": 1}}, ["preset.prefetch: prefetch policy 'none'"]),
        ([], ["preset: the list is empty"]),
    ],
)
def test_what_is_wrong_with_it_is_said_once(preset: Any, says: list[str]) -> None:
    found = mistakes(preset=preset)
    assert len(found) == len(says)
    assert all(text.startswith(start) for text, start in zip(found, says, strict=True))


def test_all_mistakes_of_a_file_at_once_with_their_lines(tmp_path: Path) -> None:
    path = write(
        tmp_path, represents=None, source=" ", cache=["lru", "lfu"], steps=3, memory={"bytes": 3}, scheduler="fifo"
    )
    found = mistakes(preset=str(path))
    assert [text.split(": ", 1)[1] for text in found if ": " in text] and len(found) == 6
    text = "\n".join(found)
    for part in (
        "represents: is missing; a preset says in a sentence or two what of the system it represents",
        "source: is missing",
        "cache: is an axis; a preset has one value of each",
        "steps: unknown key 'steps'",
        "memory.bytes: unknown key 'bytes'. There is: scope, staging",
        "scheduler: must be a mapping of batch",
    ):
        assert part in text
    assert f"{path}:1: cache" in text


def test_a_wrong_value_is_placed_in_the_presets_file(tmp_path: Path) -> None:
    path = write(tmp_path, machine={"expert_start": "late"})
    (text,) = mistakes(preset=str(path))
    assert text.startswith(f"{path}:3: machine.expert_start: unknown value 'late'")
