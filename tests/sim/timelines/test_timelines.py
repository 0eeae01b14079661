"""The simulator does what was worked out by hand, bar for bar (docs/timelines.md shows it)."""

from __future__ import annotations

from itertools import pairwise

import pytest

from moesim.sim import RunResult, simulate
from moesim.sim.engine import CLASSES, PARTS
from moesim.sim.log import COUNTED
from tests.sim.timelines.scenes import FIGURES
from tests.sim.timelines.timeline import PART_OF, Bar, Panel
from tests.sim.timelines.watch import LANES, run, watched

PANELS = [(figure, number, panel) for figure in FIGURES for number, panel in enumerate(figure.panels)]
EVERY = pytest.mark.parametrize("panel", [pytest.param(p, id=f"{f.name}-{n}") for f, n, p in PANELS])
ELSEWHERE = (*COUNTED[: COUNTED.index("demand_bytes")], "link_busy_ns", "unique_keys")
"""counters that are compared as classes or as bars, or follow from those"""


def listed(lanes: dict[str, list[Bar]]) -> list[str]:
    """Bars as text, in an order of their own."""
    in_order = {lane: sorted(lanes[lane], key=lambda bar: (bar.start or -1, bar.what)) for lane in LANES}
    return [f"{lane} {bar}" for lane, bars in in_order.items() for bar in bars]


def numbers(result: RunResult) -> dict[str, int]:
    """Keys by access class, and the counters that are not 0."""
    counters = result.counters
    found = {c: counters[f"{c}_keys_prefill"] + counters[f"{c}_keys_decode"] for c in CLASSES}
    found |= {name: counters[name] for name in COUNTED if name not in ELSEWHERE}
    return {name: value for name, value in found.items() if value}


@EVERY
def test_every_bar_is_where_the_hand_put_it(panel: Panel) -> None:
    check(panel, *watched(panel))


@pytest.mark.parametrize(
    ("panel", "start"), [pytest.param(p, start, id=f"{f.name}-{n}-{start}") for f, n, p in PANELS for start in p.same]
)
def test_another_order_of_experts_changes_nothing(panel: Panel, start: str) -> None:
    check(panel, *watched(panel, expert_start=start))


def check(panel: Panel, result: RunResult, lanes: dict[str, list[Bar]], marks: list) -> None:
    expected = {name: panel.lane(name) for name in LANES}
    if not expected["cache"]:
        lanes = lanes | {"cache": []}
    assert listed(lanes) == listed(expected)
    assert sorted(map(str, marks)) == sorted(map(str, panel.events))
    assert numbers(result) == panel.numbers
    assert result.counters["link_busy_ns"] == sum(bar.end - bar.start for bar in panel.lane("link"))
    for column, values in panel.requests.items():
        assert result.requests[column].tolist() == [panel.origin + value for value in values], column


@EVERY
def test_steps_and_their_parts_are_those_drawn(panel: Panel) -> None:
    result, _, _ = watched(panel)
    rows = result.steps["measured"]
    for edge, column in enumerate(("start_ns", "end_ns")):
        assert (result.steps[column][rows] - panel.origin).tolist() == [step[edge] for step in panel.steps]
    for number, (start, end) in enumerate(panel.steps):
        inside = [bar for bar in panel.lane("stream") if start <= bar.start < end]
        spent = {part: sum(b.end - b.start for b in inside if PART_OF[b.kind] == part) for part in PARTS}
        assert spent == {part: int(result.steps[f"{part}_ns"][rows][number]) for part in PARTS}
        assert sum(spent.values()) == end - start


@EVERY
def test_nothing_is_left_out_of_the_stream(panel: Panel) -> None:
    bars = panel.lane("stream")
    assert all(before.end == after.start for before, after in pairwise(bars))
    assert (bars[0].start, bars[-1].end) == (panel.steps[0][0], panel.steps[-1][1])


@EVERY
def test_it_is_the_same_when_nobody_looks(panel: Panel) -> None:
    config, inputs = run(panel)
    result = simulate(config, inputs, 0)
    steps = result.steps
    assert numbers(result) == panel.numbers
    assert (steps["end_ns"][steps["measured"]] - panel.origin).tolist() == [end for _, end in panel.steps]
