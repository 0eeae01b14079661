"""Timelines: hand-made and real ones keep to the format's rules, and every stall points at what it waited for."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import moesim
from moesim.check import toy
from moesim.cli import app
from moesim.errors import InputError
from moesim.plan import read_plan
from moesim.sim import Inputs, RunResult, simulate
from moesim.sim.setup import keys_of
from moesim.sim.watch import Watch
from moesim.timeline import window
from moesim.timeline.trace import trace
from tests.sim.timelines.scenes import FIGURES
from tests.sim.timelines.scenes.cache import PINS
from tests.sim.timelines.timeline import Panel
from tests.sim.timelines.watch import run
from tests.timeline import rules
from tests.tiny import tiny, write

PANELS = [pytest.param(p, id=f"{f.name}-{n}") for f in FIGURES for n, p in enumerate(f.panels)]
STALLS = ("stall: miss", "stall: late hit", "stall: CPU")


def seen(panel: Panel) -> tuple[Any, RunResult]:
    """The document of a panel's window."""
    config, inputs = run(panel)
    watch = Watch(config.warmup_steps, config.steps)
    result = simulate(config, inputs, 0, check=True, watch=watch)
    return trace(watch, result.requests, keys_of(inputs), {"label": "made up"}), result


@pytest.mark.parametrize("panel", PANELS)
def test_every_hand_made_server_keeps_to_the_format(panel: Panel) -> None:
    document, result = seen(panel)
    assert rules.wrong(document) == []
    for name, lane in (("GPU stream", "stream"), ("host", "host")):
        total = sum(rules.ns(event["dur"]) for event in rules.track(document, name))
        first = panel.steps[0][0]
        assert total == sum(bar.end - max(bar.start, first) for bar in panel.lane(lane) if bar.end > first)
    assert check_stalls(document, result) == sum(
        result.steps[f"{part}_ns"][result.steps["measured"]].sum() for part in ("miss_stall", "late_stall")
    )


def check_stalls(document: Any, result: RunResult) -> int:
    """Every stall names a key, and ends when the last chunk of its copy does, or when its room is free; ns in all."""
    total = 0
    copies = rules.track(document, "link, host to GPU")
    for event in rules.track(document, "GPU stream"):
        if event["cat"] in STALLS[:2]:
            total += rules.ns(event["dur"])
            about, end = event["args"], rules.ns(event["ts"]) + rules.ns(event["dur"])
            assert about["class"] == {"stall: miss": "miss", "stall: late hit": "late"}[event["cat"]]
            assert event["name"] == f"{event['cat']}, layer {about['layer']} expert {about['expert']}"
            ends = {rules.ns(c["ts"]) + rules.ns(c["dur"]) for c in copies if c["args"]["key"] == about["key"]}
            later = [c for c in copies if c["args"]["key"] == about["key"] and rules.ns(c["ts"]) >= end]
            assert end in ends or later, "the copy is over then, or it had no room and starts afterwards"
    return total


def test_a_document_by_hand() -> None:
    """One slot: key 0 keeps it until its kernel has ended (docs/timelines.md)."""
    document, _ = seen(PINS.panels[0])
    found = {
        name: [(e["name"], e["ts"], e["dur"]) for e in rules.track(document, name)]
        for name in ("steps", "GPU stream", "link, host to GPU", "host", "request 1")
    }
    assert found == {
        "steps": [("step 1", 0.0, 1.9)],
        "GPU stream": [
            ("attention", 0.0, 0.3),
            ("experts 0", 0.3, 0.3),
            ("stall: miss, layer 0 expert 1", 0.6, 1.0),
            ("experts 1", 1.6, 0.3),
        ],
        "link, host to GPU": [("demand, layer 0 expert 1", 0.6, 1.0)],
        "host": [],
        "request 1": [("prefill 2 tokens", 0.0, 1.9)],
    }
    assert document["otherData"] == {"origin_ns": "1600", "steps": "1:2", "label": "made up"}
    (demand,) = [e for e in document["traceEvents"] if e["ph"] == "i"]
    assert (demand["name"], demand["ts"]) == ("demand layer 0 expert 1", 0.3)
    last = {e["name"]: e["args"] for e in document["traceEvents"] if e["ph"] == "C"}
    assert last == {
        "accesses, keys": {"reuse": 1, "prefetch": 0, "late": 0, "miss": 1},
        "expert cache, keys": {"used": 1, "prefetched": 0, "loading": 0},
        "expert cache, bytes": {"held": 1000},
        "link, bytes copied": {"demand": 1000, "prefetch": 0},
    }


SPOILT: dict[str, Any] = {
    "overlap": lambda events: events[-1].update(ts=events[-2]["ts"]),
    "no time": lambda events: events[0].update(ts=0.0005),
    "no duration": lambda events: events[0].update(dur=0),
    "no name": lambda events: events[0].update(name=""),
    "unknown phase": lambda events: events[0].update(ph="Q"),
    "no place": lambda events: events[0].pop("tid"),
    "no name for": lambda events: events[0].update(tid=99),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_document_that_breaks_a_rule_is_found(what: str) -> None:
    document = copy.deepcopy(seen(PINS.panels[0])[0])
    SPOILT[what](rules.track(document, "GPU stream"))
    assert any(said.startswith(what) for said in rules.wrong(document))


def test_a_counter_that_falls_is_found() -> None:
    document = copy.deepcopy(seen(PINS.panels[0])[0])
    events = document["traceEvents"]
    counter = next(e for e in events if e["name"] == "accesses, keys")
    events.append(copy.deepcopy(counter) | {"args": counter["args"] | {"miss": 0}})
    assert any(said.startswith("accesses, keys falls") for said in rules.wrong(document))


REAL: dict[str, dict[str, Any]] = {
    "prefetch": {"prefetch": "step-ahead", "cache": {"name": "lookahead", "level": "step"}},
    "layer-wise": {"trace": {"synthetic": "sticky", "router": "layerwise", "sequences": 24, "prompt_tokens": 6}},
    "global, index": {"memory": {"slots": 2, "scope": "global"}, "machine": {"expert_start": "index"}},
    "on the side": {"machine": {"router": "side"}, "traffic": {"kind": "poisson", "rate": 40, "requests": 8}},
    "frozen": {"schedule": "frozen", "memory": {"slots": 2}},
}


@pytest.mark.parametrize("name", REAL)
def test_real_runs_keep_to_the_format_and_are_not_changed(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, **REAL[name])
    options = ["--out", tmp_path / "r", "--quiet", "--timeline", tmp_path / "t.json", "--timeline-steps", "5:12"]
    done = CliRunner().invoke(app, [str(word) for word in ("run", path, *options)])
    assert (done.exit_code, done.output) == (0, "")
    document = json.loads((tmp_path / "t.json").read_text())
    assert rules.wrong(document) == []
    assert [e["name"] for e in rules.track(document, "steps")] == [f"step {n}" for n in range(5, 12)]
    steps = moesim.load(tmp_path / "r").steps.iloc[5:12]
    stream = rules.track(document, "GPU stream")
    for kind, part in (("attention", "attention"), ("stall: miss", "miss_stall"), ("wait: host", "host")):
        assert sum(rules.ns(e["dur"]) for e in stream if e["cat"] == kind) == steps[f"{part}_ns"].sum(), kind
    found = sum(rules.ns(e["dur"]) for e in stream)
    assert found == steps["end_ns"].iloc[-1] - steps["start_ns"].iloc[0], "the stream is told whole"
    last = [e["args"] for e in document["traceEvents"] if e["name"] == "accesses, keys"][-1]
    assert last == {kind: steps[f"{kind}_keys"].sum() for kind in ("reuse", "prefetch", "late", "miss")}


def test_what_the_cpu_computes_has_a_track() -> None:
    """The timeline that tests/sim/test_misses.py works out."""
    costs = toy.ToyCosts(launch=3, sync=7, copy_submit=2, decision=5, sample=13, cpu=300)
    inputs = Inputs(toy.trace([([0], [0])]), toy.shape(), costs, toy.ToyLink())  # type: ignore[arg-type]
    watch = Watch()
    config = toy.config(miss={"name": "cpu-when-cheaper", "fill": False})
    result = simulate(config, inputs, 0, check=True, watch=watch)
    document = trace(watch, result.requests, keys_of(inputs), {})
    assert rules.wrong(document) == []
    found = {
        name: [(e["name"], rules.ns(e["ts"]), rules.ns(e["ts"] + e["dur"])) for e in rules.track(document, name)]
        for name in ("GPU stream", "host", "CPU experts")
    }
    assert found == {
        "GPU stream": [
            ("wait: host, attention", 0, 8),
            ("attention", 8, 18),
            ("wait: host, hand over", 18, 25),
            ("stall: CPU, layer 0 expert 0", 25, 329),
            ("sample", 329, 342),
            ("wait: host, read back", 342, 349),
        ],
        "host": [
            ("batch", 0, 5),
            ("launch attention", 5, 8),
            ("decide on misses", 18, 23),
            ("hand over layer 0 expert 0", 23, 25),
            ("launch sample", 25, 28),
            ("read back", 342, 349),
        ],
        "CPU experts": [("expert on the CPU layer 0 expert 0", 25, 329)],
    }


def test_kv_memory_that_is_swapped() -> None:
    """The server of tests/sim/test_kv.py: a block goes to the host and comes back while the stream waits."""
    memory = {"slots": 4, "kv": {"blocks": 3, "block_tokens": 2, "watermark": 0.0, "preempt": "swap"}}
    requests = toy.as_requests([([0, 0], [0] * 3)] * 2)
    traffic, scheduler = {"kind": "all", "requests": 2}, {"max_requests": 2, "max_tokens": 400}
    inputs = Inputs(toy.trace(requests), toy.shape(), toy.ToyCosts(), toy.ToyLink())  # type: ignore[arg-type]
    watch = Watch()
    config = toy.config(memory=memory, traffic=traffic, scheduler=scheduler)
    result = simulate(config, inputs, 0, check=True, watch=watch)
    document = trace(watch, result.requests, keys_of(inputs), {})
    assert rules.wrong(document) == []
    found = [
        (name, event["name"], rules.ns(event["ts"]), rules.ns(event["ts"] + event["dur"]))
        for name in ("GPU stream", "link, host to GPU", "link, GPU to host")
        for event in rules.track(document, name)
        if "KV" in event["name"] or "swap" in event["name"]
    ]
    assert found == [
        ("GPU stream", "stall: KV memory, out", 1120, 1128),
        ("GPU stream", "stall: KV memory, in", 1348, 1356),
        ("link, host to GPU", "demand, KV memory", 1348, 1356),
        ("link, GPU to host", "swap out", 1120, 1128),
    ]


def test_wasted_prefetches_are_named() -> None:
    panels = [p for f in FIGURES for p in f.panels if p.numbers.get("wasted_bytes")]
    assert panels
    for panel in panels:
        document, result = seen(panel)
        wasted = [e for e in rules.track(document, "link, host to GPU") if e["args"].get("wasted")]
        assert all("(wasted)" in event["name"] for event in wasted)
        assert sum(event["args"]["bytes"] for event in wasted) == result.counters["wasted_bytes"]


# -- which steps -------------------------------------------------------------------------------------------------------


def test_the_window() -> None:
    runs = read_plan(tiny(memory={"slots": [2, 3]}, steps=40)).runs()
    assert (w := window(runs).placed(4)) and (w.run, w.first, w.last) == (0, 4, 24)
    assert (w := window(runs, 1, "0:3").placed(4)) and (w.run, w.first, w.last) == (1, 0, 3)
    assert (w := window(runs, 1, "35:99")) and (w.run, w.first, w.last) == (1, 35, 40)


@pytest.mark.parametrize(
    ("run", "steps", "text"),
    [
        (2, None, "2 is no run; they are numbered 0 to 1"),
        (None, "3", "'3' is not of the form A:B"),
        (None, "5:5", "5:5 holds no step: A must be below B"),
        (None, "40:50", "40:50 starts after the run, which has steps 0 to 39"),
        (None, "0:501", "0:501 are 501 steps; a timeline holds 500 at most"),
    ],
)
def test_a_window_that_is_none(run: int | None, steps: str | None, text: str) -> None:
    with pytest.raises(InputError, match=text):
        window(read_plan(tiny(memory={"slots": [2, 3]}, steps=40)).runs(), run, steps)


def test_run_and_steps_are_told_together() -> None:
    with pytest.raises(InputError) as found:
        window(read_plan(tiny()).runs(), 7, "5:4")
    assert [problem.place for problem in found.value.problems] == ["--timeline-run", "--timeline-steps"]


def test_a_search_has_no_single_timeline() -> None:
    traffic = {"kind": "poisson", "requests": 8}
    changes = {"search": {"from": 1, "to": 9}, "objective": {"ttft": 1.0}, "traffic": traffic}
    with pytest.raises(InputError, match="run 0 searches for its largest load; give one load"):
        window(read_plan(tiny(**changes)).runs())


def test_the_first_measured_step_is_that_of_the_window_of_requests(tmp_path: Path) -> None:
    traffic = {"kind": "poisson", "rate": 40, "requests": 60}
    changes = {"window": {"requests": 20, "warmup": 7}, "traffic": traffic, "steps": 2000, "warmup_steps": None}
    path = write(tmp_path, cache=["lru", "lfu"], **changes)
    done = call("run", path, "--out", tmp_path / "r", "--quiet", "--jobs", 1, "--timeline", tmp_path / "t.json")
    assert (done.exit_code, done.output) == (0, "")
    first = int(moesim.load(tmp_path / "r").summary["window_step"].iloc[0])
    document = json.loads((tmp_path / "t.json").read_text())
    assert first > 0 and document["otherData"]["steps"] == f"{first}:{first + 20}"


def call(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_mistakes_are_told_before_anything_runs(tmp_path: Path) -> None:
    path, out = write(tmp_path), tmp_path / "out"
    alone = call("run", path, "--out", out, "--timeline-run", 1, "--timeline-steps", "0:1")
    assert alone.exit_code == 2 and "--timeline-run: says" in alone.stderr and "--timeline-steps: says" in alone.stderr
    other = tmp_path / "b.yaml"
    other.write_text(path.read_text().replace("name: tiny", "name: other"))
    twice = call("run", path, other, "--out", out, "--timeline", tmp_path / "t.json")
    assert twice.exit_code == 2 and "shows one run of one experiment, and 2 files are given" in twice.stderr
    folder = call("run", path, "--out", out, "--timeline", tmp_path)
    assert folder.exit_code == 2 and "is a folder" in folder.stderr
    options = ("--timeline", path / "t.json", "--timeline-run", 9, "--timeline-steps", "x")
    several = call("run", path, "--out", out, *options)
    assert several.exit_code == 2 and "3 mistakes" in several.stderr and "is no folder that can be" in several.stderr
    assert not out.exists()


def test_a_run_that_ends_before_the_window_is_told(tmp_path: Path) -> None:
    path = write(tmp_path, steps=500, traffic={"kind": "closed", "concurrency": 3, "requests": 3})
    options = ("--out", tmp_path / "out", "--timeline", tmp_path / "t.json", "--timeline-steps", "400:410")
    done = call("run", path, *options)
    assert done.exit_code == 2 and "starts at 400, but the run ended after" in done.stderr
    assert not (tmp_path / "t.json").exists()
