from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from moesim.document import from_settings
from moesim.errors import InputError
from moesim.experiment import (
    EVERY,
    UNITS,
    ArrivalsFile,
    Experiment,
    Lengths,
    Memory,
    PolicySpec,
    RunConfig,
    Traffic,
    Window,
    parse_bytes,
)
from moesim.files import shipped
from moesim.inputs import load
from moesim.plan import read_plan
from moesim.trace.routing import read_routing, write_routing
from moesim.trace.synthetic import synthetic
from tests.tiny import tiny, write


def mistakes(source: Any, *settings: str) -> list[str]:
    with pytest.raises(InputError) as error:
        read_plan(source, from_settings(settings, []))
    return [str(problem) for problem in error.value.problems]


# ---- values


@pytest.mark.parametrize(
    ("text", "size"),
    [("12GB", 12 * 10**9), ("16MiB", 16 * 2**20), ("1.5 kB", 1500), ("7", 7), ("2 TiB", 2**41), ("0.5KiB", 512)],
)
def test_sizes_have_units(text: str, size: int) -> None:
    assert Memory(bytes=text).bytes == size


@given(st.integers(1, 2**20), st.sampled_from(sorted(UNITS)))
def test_a_whole_number_of_units_is_exact(count: int, unit: str) -> None:
    assert parse_bytes(f"{count}{unit}") == count * UNITS[unit]


@pytest.mark.parametrize("size", ["12 gb", "GB", "-3GB", "1e9", "3..2GB", True, 1.5, 0, "0B", 2**60])
def test_what_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(ValidationError):
        Memory(bytes=size)


def test_policies_are_a_name_or_a_name_with_parameters() -> None:
    config = Experiment.model_validate(tiny(cache={"name": "lookahead", "horizon": None, "level": "queue"}))
    assert config.cache == PolicySpec(name="lookahead", params={"horizon": None, "level": "queue"})
    assert config.prefetch == PolicySpec(name="none")
    assert config.model_dump()["cache"] == {"name": "lookahead", "horizon": None, "level": "queue"}
    assert config.model_dump()["prefetch"] == "none"


def test_a_point_comes_back_from_what_it_writes() -> None:
    mix = {"from": {"synthetic": 1}, "to": {"synthetic": 2.5}}
    config = RunConfig.model_validate(tiny(traffic={"kind": "poisson", "rate": 3, "mix": mix}) | {"labels": {"a": "b"}})
    again = yaml.safe_load(yaml.safe_dump(config.experiment()))
    assert RunConfig.model_validate(again | {"labels": {"a": "b"}}) == config


def test_a_point_is_frozen() -> None:
    config = Experiment.model_validate(tiny())
    with pytest.raises(ValidationError):
        config.memory.slots = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kind": "closed"}, "kind closed needs concurrency"),
        ({"kind": "poisson"}, "kind poisson needs rate"),
        ({"kind": "all", "rate": 1.0}, "rate belongs to kind poisson or gamma"),
        ({"kind": "all", "prompt_min": 5, "prompt_max": 4}, "prompt_min (5) must not exceed prompt_max (4)"),
        ({"kind": "gamma", "rate": 1.0}, "kind gamma needs cv"),
        ({"kind": "poisson", "rate": 1.0, "cv": 2.0}, "cv belongs to kind gamma, and the kind is poisson"),
        ({"kind": "trace"}, "kind trace needs arrivals"),
        ({"kind": "all", "arrivals": "a.csv"}, "arrivals belongs to kind trace, and the kind is all"),
        ({"kind": "trace", "arrivals": "a", "prompt": 5}, "prompt belongs to the other kinds: an arrivals file has"),
        ({"kind": "trace", "arrivals": {"file": "a", "from": 9, "to": 3}}, "from (9) must be less than to (3)"),
        ({"kind": "all", "prompt": {"kind": "fixed"}}, "kind fixed needs tokens"),
        ({"kind": "all", "output": {"kind": "uniform", "min": 3}}, "kind uniform needs max"),
        ({"kind": "all", "output": {"kind": "uniform", "min": 3, "max": 2}}, "min (3) must not exceed max (2)"),
        ({"kind": "all", "prompt": {"kind": "captured", "mean": 3.0}}, "mean does not belong to kind captured, which"),
        ({"kind": "all", "mix": {"a": 0}}, "a weight above 0"),
        ({"kind": "all", "mix": {"from": {"a": 1}, "to": {"a": 0}}}, "a weight above 0"),
    ],
)
def test_rules_between_values_hold_in_python_as_well(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        Traffic.model_validate(wrong)


def test_lengths_and_arrivals_may_be_written_short() -> None:
    made = Traffic.model_validate({"kind": "all", "prompt": 128, "output": {"kind": "captured"}})
    assert made.prompt == Lengths(kind="fixed", tokens=128)
    assert made.output == Lengths(kind="captured")
    short = Traffic.model_validate({"kind": "trace", "arrivals": "a.csv"})
    assert short.arrivals == ArrivalsFile(file="a.csv")
    assert (Traffic(kind="all").requests, short.requests) == (64, EVERY)


def test_traffic_of_every_kind_comes_back_from_what_it_writes() -> None:
    arrivals = {"file": "a.csv", "from": 10, "to": 20.5, "scale": 2, "sample": 0.5, "empty": "drop", "format": "csv"}
    lengths = {"prompt": {"kind": "lognormal", "mean": 300, "cv": 1.2, "max": 99}, "output": 5, "longer": "recycle"}
    for traffic in ({"kind": "trace", "arrivals": arrivals}, {"kind": "gamma", "rate": 3, "cv": 2.5, **lengths}):
        config = RunConfig.model_validate(tiny(traffic=traffic))
        again = yaml.safe_load(yaml.safe_dump(config.experiment()))
        assert RunConfig.model_validate(again) == config


# ---- the file

BAD = """\
name: a b
trace: gone.parquet
modell: llama
model: lama-2-7b-readme
costs: cheap
link: pci3
memory: {slots: -1, bytes: 12QB}
traffic:
  kind: closed
  concurency: 8
  rate: 0
  mix: {a: -1}
cache: [lruu, {name: lookahead, horizon: -1}]
prefetch: 3
steps: 10
warmup_steps: 20
replications: 0
machine: {copies_in_flight: 0, chunk_bytes: 0, router: crit}
scheduler: {max_tokens: many, batch: {name: fifo}}
allow_extrapolation: 1
seed: -1
cases:
  a:
  b: {memory: {share: 1.5}, traffic: {concurrency: 0}}
  c: {machine: none, steps: 0}
"""


def test_every_mistake_of_a_file_is_found_at_once_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(BAD)
    found = [problem.removeprefix(f"{path}:") for problem in mistakes(path)]
    expected = [
        "1: name: 'a b' does not fit",
        f"2: trace: {tmp_path}/gone.parquet: there is no such file",
        "3: modell: unknown key 'modell'; did you mean 'model'?",
        "4: model: unknown model shape 'lama-2-7b-readme'; did you mean 'llama-2-7b-readme'?",
        "5: costs: unknown table in traces/kernels 'cheap'",
        "6: link: unknown table in traces/links 'pci3'; did you mean 'pcie3'?",
        "7: memory.slots: -1 must be at least 1",
        "7: memory.bytes: '12QB' is no size",
        "7: memory: needs exactly one of slots, bytes and share; it has slots and bytes",
        "8: traffic: kind closed needs concurrency",
        "8: traffic: rate belongs to kind poisson or gamma, and the kind is closed",
        "10: traffic.concurency: unknown key 'concurency'; did you mean 'concurrency'?",
        "11: traffic.rate: 0 must be more than 0",
        "12: traffic.mix.a: -1 must be at least 0",
        "13: cache: unknown cache policy 'lruu'; did you mean 'lru'?",
        "13: cache: cache policy 'lookahead': horizon -1 must be null or a whole number",
        "14: prefetch: 3 must be the name of a policy",
        "16: warmup_steps: warmup_steps (20) must be fewer than steps (10)",
        "17: replications: 0 must be at least 1",
        "18: machine.copies_in_flight: 0 must be at least 1",
        "18: machine.chunk_bytes: 0 must be at least 1",
        "18: machine.router: unknown value 'crit'; did you mean 'critical'? There is: critical, side",
        "19: scheduler.max_tokens: 'many' must be a whole number",
        "19: scheduler.batch: unknown batch policy 'fifo'",
        "20: allow_extrapolation: 1 must be true or false",
        "21: seed: -1 must be at least 0",
        "24: cases.b.memory.share: 1.5 must be at most 1",
        "24: cases.b.traffic.concurrency: 0 must be at least 1",
        "25: cases.c.machine: 'none' must be a mapping of expert_start, chunk_bytes, copies_in_flight, router",
        "25: cases.c.steps: 0 must be at least 1",
    ]
    missing = [text for text in expected if not any(problem.startswith(text) for problem in found)]
    surplus = [problem for problem in found if not any(problem.startswith(text) for text in expected)]
    assert (missing, surplus) == ([], [])
    assert len(found) == len(expected), "each is said once, however many points have it"
    assert [int(problem.split(":")[0]) for problem in found] == sorted(int(text.split(":")[0]) for text in expected)


def test_what_is_missing_is_named_with_what_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, trace=None, memory=None, traffic={"requests": 3})
    assert mistakes(path) == [
        f"{path}:1: trace: is missing; it is: routing trace: a path relative to this file or a shipped name, {{file: "
        "..., reveal: at-gate}, or {synthetic: iid|sticky|zipf, ...}",
        f"{path}:1: memory: is missing; it is the GPU memory of the expert cache",
        f"{path}:5: traffic.kind: is missing; it is: closed: `concurrency` users, each sends its next request when the "
        "last is answered; all: every request is there at time 0; poisson: `rate` requests per second; gamma: the same "
        "with gaps of coefficient of variation `cv`; trace: as an `arrivals` file has them",
    ]


def test_a_mistake_in_a_setting_is_placed_there(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert mistakes(path, "memory.slots=[3, -1]", "memory.scop=layer", "cache.decay=1") == [
        "--set memory.scop: unknown key 'scop'; did you mean 'scope'? There is: bytes, gpu, kv, "
        "scope, share, slots, staging, workspace",
        "--set cache.name: is missing; it is the name of the policy",
        "--set memory.slots: -1 must be at least 1",
    ]


def test_a_lone_setting_reaches_the_default_policy(tmp_path: Path) -> None:
    plan = read_plan(write(tmp_path, cache="lookahead"), from_settings(["cache.level=[step, oracle]"], []))
    assert [config.cache.params for config in plan.configs] == [{"level": "step"}, {"level": "oracle"}]


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ({"memory": {"slots": 8}}, "memory.slots", "8 is more than the 7 experts of a layer"),
        ({"memory": {"bytes": 1000}}, "memory", "one key of smollm2-135m-readme takes"),
        (
            {"traffic": {"kind": "all", "mix": {"synthetik": 1, "synthetic": 1}}},
            "traffic.mix",
            "unknown domain 'synthetik'",
        ),
        ({"traffic": {"kind": "all", "prompt_min": 7}}, "traffic", "prompts in the trace: 6 to 6 tokens"),
        ({"costs": "a100-pcie4-llama-2-7b-readme"}, "costs", "is for the shape 'llama-2-7b-readme'"),
        ({"trace": {"synthetic": "iid", "alpha": 1}}, "trace", "alpha belongs to the rule zipf"),
        ({"trace": {"synthetic": "iid", "recall_1": 0.9}}, "trace", "recall_1 to recall_3 belong to router: layerwise"),
        ({"trace": {"synthetic": "iid", "router": "layerwise", "recall_2": 1}}, "trace", "recall_2 needs recall_1"),
        ({"trace": {"synthetic": "iid", "router": "layerwise", "predicted": 4}}, "trace", "predicted needs recall_1"),
        ({"trace": {"synthetic": "idd"}}, "trace.synthetic", "unknown value 'idd'; did you mean 'iid'?"),
        ({"trace": {"synthetic": "iid", "sequences": 10**6}}, "trace", "are more than 10,000,000 tokens"),
        ({"trace": "nowhere"}, "trace", "unknown shipped trace 'nowhere'"),
        ({"trace": {"synthetic": "iid", "router": "layerwise"}, "prefetch": "step-ahead"}, "prefetch", "layer-wise"),
        (
            {"trace": {"synthetic": "iid", "router": "layerwise", "reveal": "at-gate"}},
            "trace",
            "trace.reveal: 'at-gate' is for a decoupled trace; synthetic iid has a layer-wise router",
        ),
        ({"trace": {"synthetic": "iid", "reveal": "at-gate"}, "prefetch": "step-ahead"}, "prefetch", "at-gate"),
        ({"trace": {"file": "nowhere", "reveal": "at-gate"}}, "trace", "unknown shipped trace 'nowhere'"),
        ({"trace": {"reveal": "at-gate"}}, "trace.file", "is missing; it is: routing trace"),
        (
            {"trace": {"file": "smollm2-135m-decoupled", "reveal": "at-gates"}},
            "trace.reveal",
            "unknown value 'at-gates'; did you mean 'at-gate'?",
        ),
    ],
)
def test_what_does_not_fit_together_is_told(tmp_path: Path, changes: dict[str, Any], place: str, said: str) -> None:
    (problem,) = mistakes(write(tmp_path, **changes))
    assert f": {place}: " in problem
    assert said in problem


def test_a_trace_may_say_when_its_routes_are_known(tmp_path: Path) -> None:
    trace = synthetic("iid", layers=30, experts=7, key_bytes=100, sequences=3, prompt_tokens=4, output_tokens=4)
    write_routing(tmp_path / "t.parquet", trace)
    path = write(tmp_path, trace={"file": "t.parquet", "reveal": ["as-routed", "at-gate"]})
    known, late = read_plan(path).runs()
    assert known.config.labels == {"trace.reveal": "as-routed"}
    assert late.config.experiment()["trace"] == {"file": "t.parquet", "reveal": "at-gate"}
    assert load(known.sources).trace.meta.router == "decoupled"
    assert load(late.sources).trace.meta.router == "layerwise"
    assert load(late.sources).trace.ahead is load(known.sources).trace
    (run,) = read_plan(write(tmp_path, trace="t.parquet"), from_settings(["trace.reveal=at-gate"], [])).runs()
    assert load(run.sources).trace is load(late.sources).trace


def test_traces_that_are_none_are_told(tmp_path: Path) -> None:
    trace = synthetic("iid", layers=30, experts=7, key_bytes=100, sequences=3, prompt_tokens=4, output_tokens=4)
    write_routing(tmp_path / "good.parquet", trace)
    data = (tmp_path / "good.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    (tmp_path / "foreign.parquet").write_text("a,b\n1,2\n")
    wide = synthetic("iid", layers=30, experts=7, k=2, key_bytes=100, sequences=3, prompt_tokens=4, output_tokens=4)
    write_routing(tmp_path / "wide.parquet", wide)
    (problem,) = mistakes(write(tmp_path, trace="wide.parquet"))
    assert "trace: has up to 2 experts a token, but model smollm2-135m-readme has 1 (top_k)" in problem
    other = synthetic("iid", layers=30, experts=5, key_bytes=100, sequences=3, prompt_tokens=4, output_tokens=4)
    write_routing(tmp_path / "other.parquet", other)
    path = write(tmp_path, trace=["good.parquet", "cut.parquet", "foreign.parquet", "other.parquet", "gone.parquet"])
    said = ["is truncated", "is not a Parquet file", "has 5 experts", "there is no such file"]
    found = mistakes(path)
    assert len(found) == len(said)
    assert all(any(text in problem for problem in found) for text in said)
    assert read_routing(tmp_path / "good.parquet").tokens == 24


CSV = "arrival_s,prompt_tokens,output_tokens\n0,3,2\n0.5,4,1\n0.5,0,1\n"


def test_every_mistake_of_traffic_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV + "0.1,5,x\n")
    wrong = {"kind": "lognormal", "mean": 0.5, "min": 4, "max": 3}
    traffic = {
        "each": {
            "a": {"kind": "trace", "arrivals": "a.csv", "prompt": {"kind": "fixed", "tokens": 0}},
            "b": {"kind": "trace", "arrivals": {"file": "gone", "scale": 0, "fom": 3}},
            "c": {"kind": "gamma", "rate": 1, "cv": 0, "output": wrong},
            "d": {"kind": "all", "prompt": "many", "output": {"kind": "lognorm"}, "longer": "stich"},
        }
    }
    told = mistakes(write(tmp_path, traffic=traffic))
    found = [re.sub(r"^.*?tiny.yaml:\d+: traffic.each.[a-d]", "traffic", problem) for problem in told]
    expected = [
        "traffic: prompt belongs to the other kinds: an arrivals file has its own lengths",
        "traffic.prompt.tokens: 0 must be at least 1",
        f"traffic.arrivals: {tmp_path}/a.csv:4: 0 prompt tokens; a request needs at least 1",
        f"traffic.arrivals: {tmp_path}/a.csv:5: output_tokens 'x' must be a whole number of tokens",
        f"traffic.arrivals: {tmp_path}/a.csv:5: time 0.1 is before 0.5 in line 4; requests must be sorted by time",
        "traffic.arrivals.scale: 0 must be more than 0",
        "traffic.arrivals.fom: unknown key 'fom'; did you mean 'from'? There is: context_max, empty, file, format",
        "traffic.arrivals: unknown shipped arrivals 'gone'",
        "traffic.cv: 0 must be at least 0.01",
        "traffic.output.mean: 0.5 must be at least 1",
        "traffic.output: kind lognormal needs cv",
        "traffic.output: min (4) must not exceed max (3)",
        "traffic.prompt: 'many' must be a whole number of tokens, or a mapping of kind, tokens, min, max, mean, cv",
        "traffic.output.kind: unknown value 'lognorm'; did you mean 'lognormal'? There is: captured, fixed, lognormal,",
        "traffic.longer: unknown value 'stich'; did you mean 'stitch'? There is: recycle, stitch",
    ]
    missing = [text for text in expected if not any(problem.startswith(text) for problem in found)]
    surplus = [problem for problem in found if not any(problem.startswith(text) for text in expected)]
    assert (missing, surplus) == ([], [])


@pytest.mark.parametrize(
    ("kv", "hint"),
    [
        ("4GB", "; for that many bytes give {bytes: 4GB}"),
        (2**30, "; for that many bytes give {bytes: 1073741824}"),
        ("much", ""),
        (True, ""),
        (0, ""),
    ],
)
def test_a_size_that_stands_for_kv_memory_is_shown_its_place(tmp_path: Path, kv: object, hint: str) -> None:
    (told,) = mistakes(write(tmp_path, memory={"slots": 4, "kv": kv}))
    keys = "blocks, bytes, share, block_tokens, preempt, watermark"
    assert told.endswith(f"memory.kv: {kv!r} must be a mapping of {keys}{hint}")


def test_arrivals_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV)
    files = ["a.csv", "gone.csv", "nowhere", {"file": "a.csv", "format": "azure"}, {"file": "a.csv", "empty": "drop"}]
    found = mistakes(write(tmp_path, traffic={"kind": "trace", "arrivals": files}))
    said = ["a.csv:4: 0 prompt tokens", "there is no such file", "unknown shipped arrivals 'nowhere'", "looks like the"]
    assert len(found) == len(said)
    assert all(any(text in problem for problem in found) for text in said)
    plan = read_plan(write(tmp_path, traffic={"kind": "trace", "arrivals": {"file": "a.csv", "empty": "drop"}}))
    assert len(load(plan.runs()[0].sources).arrivals) == 2  # type: ignore[arg-type]


def test_a_setting_reaches_arrivals_that_are_written_short(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV.replace("0.5,0,1\n", ""))
    path = write(tmp_path, traffic={"kind": "trace", "arrivals": "a.csv"})
    plan = read_plan(path, from_settings(["traffic.arrivals.scale=[1, 2]"], []))
    found = [(c.traffic.arrivals.file, c.traffic.arrivals.scale) for c in plan.configs if c.traffic.arrivals]
    assert found == [("a.csv", 1.0), ("a.csv", 2.0)]


def test_another_kind_of_traffic_drops_what_belongs_to_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(CSV.replace("0.5,0,1\n", ""))
    cases = {
        "gamma": {"traffic": {"kind": "gamma", "rate": 2, "cv": 3}},
        "trace": {"traffic": {"kind": "trace", "arrivals": "a.csv"}},
        "shorter": {"traffic": {"prompt": {"kind": "uniform", "min": 1, "max": 2}}},
    }
    traffic = {"kind": "poisson", "rate": 1, "prompt": {"kind": "fixed", "tokens": 4}}
    gamma, trace, shorter = (c.traffic for c in read_plan(write(tmp_path, traffic=traffic, cases=cases)).configs)
    assert (gamma.rate, gamma.cv, gamma.prompt) == (2, 3, Lengths(kind="fixed", tokens=4))
    assert (trace.rate, trace.prompt) == (None, None)
    assert shorter.prompt == Lengths(kind="uniform", min=1, max=2)


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trace = synthetic("iid", layers=30, experts=7, key_bytes=100, sequences=3, prompt_tokens=4, output_tokens=4)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    write_routing(tmp_path / "t.parquet", trace)
    source = shipped("policies", "cache", "lru.py").read_text().replace('"lru"', '"mine"')
    (tmp_path / "mine.py").write_text(source)
    path = write(tmp_path / "deep", trace="../t.parquet", cache="../mine.py")
    monkeypatch.chdir(tmp_path / "deep" / "er")
    plan = read_plan(path)
    assert plan.configs[0].trace == "../t.parquet"
    assert plan.configs[0].cache.name == "../mine.py"


def test_a_mapping_is_as_good_as_a_file() -> None:
    plan = read_plan(tiny(memory={"slots": [3, 4]}, replications=2))
    assert [(run.index, run.config.memory.slots, run.replication) for run in plan.runs()] == [
        (0, 3, 0),
        (1, 3, 1),
        (2, 4, 0),
        (3, 4, 1),
    ]
    assert mistakes(tiny(steps=0)) == ["steps: 0 must be at least 1"]


def test_every_shipped_experiment_is_without_a_mistake() -> None:
    files = sorted(shipped("experiments").rglob("*.yaml"))
    assert files
    for file in files:
        assert read_plan(file).runs(), file


@pytest.mark.parametrize(
    ("memory", "text"),
    [
        ({}, "needs exactly one of slots, bytes and share, or gpu, of which the experts get what is left; it has none"),
        ({"gpu": 5, "slots": 1, "share": 0.5}, "needs exactly one of slots, bytes and share; it has slots and share"),
        ({"slots": 1, "workspace": 5}, "workspace is a part of gpu, which is not given"),
        ({"slots": 1, "kv": {}}, "kv needs blocks or bytes: what is left would be of gpu, which is not given"),
        ({"slots": 1, "kv": {"share": 0.5}}, "kv needs blocks or bytes: its share would be of gpu, which is not given"),
        ({"slots": 1, "kv": {"blocks": 3, "bytes": 9}}, "kv takes one of blocks, bytes and share; it has blocks and b"),
        ({"gpu": 5, "kv": {}}, "may leave out the experts' size (slots, bytes or share) or the size of kv"),
    ],
)
def test_sizes_of_memory_that_do_not_go_together(tmp_path: Path, memory: dict[str, Any], text: str) -> None:
    (found,) = mistakes(write(tmp_path, memory=memory))
    assert f": memory: {text}" in found


def test_mistakes_in_kv_memory_have_their_places(tmp_path: Path) -> None:
    kv = {"blocks": 0, "watermark": 1, "preempt": "swop", "block_token": 8}
    found = [problem.split(": ", 1)[1] for problem in mistakes(write(tmp_path, memory={"slots": 3, "kv": kv}))]
    assert sorted(found) == [
        "memory.kv.block_token: unknown key 'block_token'; did you mean 'block_tokens'? There is: block_tokens, "
        "blocks, bytes, preempt, share, watermark",
        "memory.kv.blocks: 0 must be at least 1",
        "memory.kv.preempt: unknown value 'swop'; did you mean 'swap'? There is: recompute, swap",
        "memory.kv.watermark: 1 must be less than 1",
    ]


def test_a_request_that_never_fits_kv_memory_is_refused_before_the_run(tmp_path: Path) -> None:
    (found,) = mistakes(write(tmp_path, memory={"slots": 3, "kv": {"blocks": 3, "block_tokens": 4}}))
    assert "memory.kv: has 3 blocks of 4 tokens, room for a request of 13 tokens with its output; the traffic" in found
    read_plan(write(tmp_path, memory={"slots": 3, "kv": {"blocks": 4, "block_tokens": 4}}))


# ---- the measured window

OPEN = {"kind": "poisson", "rate": 3.0}
DRIFT = {"from": {"synthetic": 1}, "to": {"synthetic": 2}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"window": {"requests": 10}}, ["window: of 10 requests is too short"]),
        ({"window": {"requests": 0, "warmup": "x"}}, ["window.requests: 0 must be", "window.warmup: unknown value"]),
        ({"window": {"requests": 9, "warmup": 1.5}}, ["window.warmup: 1.5 must be a whole number"]),
        ({"window": {"requests": 9, "warmup": -1, "b": 1}}, ["window.warmup: -1 must be", "window.b: unknown key 'b'"]),
        ({"window": 5}, ["window: 5 must be a mapping of requests, warmup"]),
        ({"window": {}}, ["window.requests: is missing"]),
        ({"schedule": "frozen"}, ["window: belongs to schedule free"]),
        ({"warmup_steps": 3}, ["window: has a warmup of its own; leave out warmup_steps"]),
        ({"traffic": {"kind": "all"}}, ["window: needs traffic that goes on"]),
        ({"traffic": OPEN | {"requests": 74}}, ["window: needs 75 requests with its warm-up, and"]),
        ({"traffic": OPEN | {"mix": DRIFT}}, ["window: needs traffic.requests where the mix drifts"]),
        (
            {"traffic": {"kind": "trace", "arrivals": "chat-bursty"}, "window": {"requests": 10**6, "warmup": 5}},
            ["window: needs 1,000,005 requests with its warm-up, and traffic.arrivals leaves "],
        ),
    ],
)
def test_mistakes_of_a_window_are_told_at_its_place(changes: dict[str, Any], said: list[str]) -> None:
    plain = {"window": {"requests": 50}, "steps": None, "warmup_steps": None, "traffic": OPEN}
    with pytest.raises(InputError) as raised:
        read_plan(tiny(**(plain | changes)))
    told = [str(problem) for problem in raised.value.problems]
    assert len(told) == len(said) and all(text.startswith(start) for text, start in zip(told, said, strict=True)), told


def test_a_window_says_how_many_requests_come_and_that_steps_are_a_limit() -> None:
    plain = {"steps": None, "warmup_steps": None, "traffic": OPEN}
    found = Experiment.model_validate(tiny(window={"requests": 50}, **plain))
    assert (found.window, found.steps, found.traffic.requests) == (Window(requests=50), 10**6, 4 * 75)
    given = tiny(window={"requests": 50, "warmup": 10}, steps=70, warmup_steps=None, traffic=OPEN | {"requests": 60})
    found = Experiment.model_validate(given)
    assert (found.steps, found.traffic.requests) == (70, 60)
    with pytest.raises(ValidationError, match="window needs traffic that goes on"):
        Experiment.model_validate(tiny(**(plain | {"window": {"requests": 50}, "traffic": {"kind": "all"}})))
