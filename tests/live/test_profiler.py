"""A whole profile of a tiny shape: its tables load, what was done is not done again, what lacks is not written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.errors import InputError  # noqa: E402
from moesim.hardware.costs import load_costs  # noqa: E402
from moesim.hardware.files import ARGUMENTS  # noqa: E402
from moesim.hardware.fitted import write_fit  # noqa: E402
from moesim.hardware.grid import CostRangeError  # noqa: E402
from moesim.hardware.link import load_link  # noqa: E402
from moesim.hardware.shape import ModelShape  # noqa: E402
from moesim.live import machine  # noqa: E402
from moesim.live.bench import Room  # noqa: E402
from moesim.live.copies import Throttle  # noqa: E402
from moesim.live.host_costs import host_of_runs  # noqa: E402
from moesim.live.links import speed  # noqa: E402
from moesim.live.profiler import SECTIONS, Profiler, Settings, check_what  # noqa: E402
from moesim.live.tables import amounts_of, profile  # noqa: E402
from moesim.live.timing import Effort, Spread, Timer  # noqa: E402

SHAPE = ModelShape(
    name="tiny", layers=2, d_model=16, expert_width=8, experts=4, top_k=2, heads=4, kv_heads=2, head_dim=4, vocab=32,
    dense_layers=1, dense_width=8, shared_expert_width=4,
)  # fmt: skip
POINTS = {
    "attention_prefill": {"tokens": [1, 4], "past": [0, 4]},
    "attention_decode": {"batch": [1, 4], "context": [1, 16]},
    "layer_rest": {"tokens": [1, 4]},
    "gate": {"tokens": [1, 4]},
    "router": {"tokens": [1, 4]},
    "experts": {"tokens": [1, 8], "active": [1, 4]},
    "step_rest": {"tokens": [1, 4]},
    "cpu_expert": {"tokens": [1, 4]},
}


@pytest.fixture(autouse=True)
def small_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "WORK", 2**16)
    monkeypatch.setattr(machine, "SIDE", {"cpu": 16})


def settings(**changes) -> Settings:
    known = Settings(
        SHAPE, torch.device("cpu"), 1, "cpu", POINTS, sizes=[64, 2048], effort=Effort(3, 2, 0.0, 1), memory=1 << 15
    )
    return replace(known, **changes)


def test_a_profile_is_two_tables_that_runs_read(tmp_path: Path) -> None:
    written = profile(settings(), tmp_path, quiet=True)
    costs, link = load_costs(written["costs"], shape=SHAPE), load_link(written["link"])
    assert (costs.label, costs.device) == (link.label, link.device) == ("MEASURED", costs.device)
    assert costs.device.startswith("CPU: ") and costs.device.endswith(", 1 thread")
    assert costs.file.date and "torch" in costs.file.versions and "median" in costs.file.method
    assert set(costs.file.components) == set(ARGUMENTS) and "experts_grouped" in costs.file.variants
    for part in costs.file.components.values():
        assert part.repeats in (2, 3) and part.p10 is not None and part.p90 is not None
        assert part.left_out is not None and part.left_out.again is not None
    assert costs.experts(8, 4, 2) > 0 and costs.launch > 0
    assert link.copy(64) == link.file.pinned.points[0][1] and len(link.file.pinned.spread) == 2
    assert link.file.pinned.left_out is not None and link.file.both_ways is not None and not link.lacks
    assert link.file.while_computing is not None
    with pytest.raises(CostRangeError, match="layer_rest is tabulated for tokens 1 to 4, and 5 was asked for"):
        costs.layer_rest(5)
    assert not list(tmp_path.glob(".profile*")), "what was kept on the way is gone"
    amounts = amounts_of(json.loads(written["costs"].read_text()))
    assert len(amounts["experts"]) == 3  # one token for four experts is none of them
    assert amounts["layer_rest"][0][1] == 2 * (SHAPE.attention_weights + SHAPE.shared_weights)


def test_an_interrupted_profile_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    whole = Profiler._measure

    def stopped(self: Profiler, name: str) -> object:
        if name == "experts" and "experts" not in done:
            done.append(name)
            raise KeyboardInterrupt
        done.append(name)
        return whole(self, name)

    monkeypatch.setattr(Profiler, "_measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        profile(settings(), tmp_path, quiet=True)
    assert not (tmp_path / "kernels").exists()
    assert set(profile(settings(), tmp_path, quiet=True)) == {"costs", "link"}
    assert sorted(done) == sorted([*SECTIONS, "experts"]), "no section but the stopped one was measured twice"


def test_parts_come_together(tmp_path: Path) -> None:
    kernels = check_what(["kernels"])
    assert profile(settings(what=("gate", "link")), tmp_path, quiet=True).keys() == {"link"}, "most is not there yet"
    other = {**POINTS, "gate": {"tokens": [1, 2]}}
    kept = Profiler(settings(what=(), points=other), tmp_path, quiet=True).run()
    assert set(kept) == {"link"}, "what was measured at other points counts no more"
    assert profile(settings(what=kernels), tmp_path, quiet=True).keys() == {"costs"}


def test_one_part_is_measured_again_and_the_rest_stays(tmp_path: Path) -> None:
    first = json.loads(profile(settings(), tmp_path, quiet=True)["costs"].read_text())
    for way in ("looped", "grouped"):
        changed = settings(what=("gate",), points={**POINTS, "gate": {"tokens": [1, 2]}}, experts=way, command="again")
        second = json.loads(profile(changed, tmp_path, quiet=True)["costs"].read_text())
    assert second["components"].pop("gate")["axes"] == {"tokens": [1, 2]}
    assert second["variants"]["experts_looped"] == first["components"].pop("experts")
    assert second["components"].pop("experts") == first["variants"]["experts_grouped"]
    del first["components"]["gate"]
    assert second["components"] == first["components"]
    assert second["command"] == "moesim profile; again; again"
    small = settings(shape=SHAPE.model_copy(update={"vocab": 16}), what=("gate",))
    assert profile(small, tmp_path, quiet=True) == {}, "another shape's table is no part of this one"


def test_what_was_fitted_is_no_part_of_what_was_measured(tmp_path: Path) -> None:
    path = profile(settings(), tmp_path, quiet=True)["costs"]
    first = json.loads(path.read_text())
    write_fit(path, 1000, 50, "runs")
    assert json.loads(path.read_text())["components"]["layer_rest"] != first["components"]["layer_rest"]
    second = json.loads(profile(settings(what=("host",)), tmp_path, quiet=True)["costs"].read_text())
    assert second["components"] == first["components"] and second["constants"] == first["constants"]


def test_a_table_that_was_cut_off_or_is_another_shapes_is_refused(tmp_path: Path) -> None:
    written = profile(settings(), tmp_path, quiet=True)
    with pytest.raises(InputError, match=r"expert_width 8 \(the model's is 9\)"):
        load_costs(written["costs"], shape=SHAPE.model_copy(update={"expert_width": 9}))
    for kind, path in written.items():
        document = json.loads(path.read_text())
        path.write_text(path.read_text()[:-40])
        with pytest.raises(InputError, match="truncated"):
            load_costs(path, shape=SHAPE) if kind == "costs" else load_link(path)
        if kind == "costs":
            del document["components"]["experts"]["ns"][0]
            document["components"]["gate"]["p90"] = [1]
            path.write_text(json.dumps(document))
            with pytest.raises(InputError, match="ns must be nested as the axes are, 2 x 2 values") as error:
                load_costs(path, shape=SHAPE)
            assert "p90 must be nested" in str(error.value)
        else:
            document["pinned"]["spread"].pop()
            path.write_text(json.dumps(document))
            with pytest.raises(InputError, match="spread has 1 rows; there are 2 points"):
                load_link(path)


def test_a_throttled_link_takes_what_is_stated(tmp_path: Path) -> None:
    held = Throttle(10**6, 1000)
    written = profile(settings(what=("link",), throttle=held, sizes=[1000, 2000]), tmp_path, quiet=True)
    link = load_link(written["link"])
    assert link.name == "cpu-1mb" and "held to 1,000,000 bytes/s and 1,000 ns a copy" in link.file.method
    assert link.copy(1000) >= 1_001_000 and link.copy(2000) >= 2_001_000


def test_a_larger_copy_never_takes_less() -> None:
    times = {1: Spread(50, 40, 60, 9), 2: Spread(45, 40, 50, 9), 4: Spread(80, 70, 90, 9)}
    found = speed(times, "s", {3: Spread(70, 1, 99, 9)})
    assert found["points"] == [[1, 50], [2, 51], [4, 80]]
    assert found["spread"] == [[40, 60], [40, 50], [70, 90]]
    assert found["left_out"]["largest"] == pytest.approx(abs(66 - 70) / 70, abs=1e-5)


def test_a_corner_that_cannot_be_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Timer, "__call__", lambda self, call: asked.append(1) or Spread(len(asked), 1, 1, 1))
    found = Profiler(settings(check=False), tmp_path, quiet=True).component("experts")
    assert found["ns"] == [[1, 2], [3, 4]] and len(asked) == 4
    more = {**POINTS, "experts": {"tokens": [1, 2, 8], "active": [1, 4]}}
    found = Profiler(settings(check=False, points=more), tmp_path, quiet=True).component("experts")
    assert found["ns"][0][1] == found["ns"][1][1], "one token, and two, for four experts: four tokens"


def test_memory_bounds_what_is_spread_over_a_cache() -> None:
    room = Room(most=1000, flush=400)
    assert room.copies(100) == 5  # one more than fills the flush
    assert room.copies(300) == 3
    assert room.copies(600) == 1
    assert room.copies(600, least=4) == 4  # what a call needs at least


def test_an_unknown_section_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown section 'links'"):
        check_what(["links", "kernels"])


def live_runs(folder: Path, roles: list[str], **columns: list[int]) -> Path:
    """A results folder with the columns that a live run adds."""
    import moesim
    from tests.tiny import tiny

    cases = {f"case {i}": {"validation": {"role": role}} for i, role in enumerate(roles)}
    results = moesim.run(tiny(cases=cases), out=folder, figures=False)
    path = results.folder / "summary.csv"
    table = results.summary.assign(**columns) if columns else results.summary
    table.to_csv(path, index=False)
    return folder


def test_host_times_are_those_of_runs_that_calibrate(tmp_path: Path) -> None:
    given = {"live_launch_ns": [10, 30, 999], "live_sync_ns": [-1, 7, 1], "live_copy_submit_ns": [-1, -1, 5]}
    given["live_ask_ns"] = [4, -1, 9]
    folder = live_runs(tmp_path / "live", ["calibrate", "calibrate", "judge"], **given, live_step_ns=[110, 100, 0])
    found = host_of_runs(folder)
    expected = {"launch": 20, "sync": 7, "decision": 4, "forming": 85}
    assert {name: spread.ns for name, spread in found.items()} == expected
    written = profile(settings(host_from=folder), tmp_path, quiet=True)
    costs = load_costs(written["costs"], shape=SHAPE)
    assert (costs.launch, costs.sync, costs.decision, costs.forming) == (20, 7, 4, 85)
    assert costs.copy_submit > 0, "what no run did is measured by itself"
    assert "live runs in live that calibrate" in costs.file.method


def test_host_times_of_what_judges_are_not_taken(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no live runs"):
        host_of_runs(live_runs(tmp_path / "simulated", ["calibrate"]))
    with pytest.raises(InputError, match="has no setting that calibrates"):
        host_of_runs(live_runs(tmp_path / "live", ["judge"], live_launch_ns=[1]))
