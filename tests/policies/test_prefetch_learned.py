"""Plans of the prefetchers that guess or look far, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moesim.policy import FAR, LayerView, PrefetchPolicy, StepView, find

LAYERS, EXPERTS = 3, 4
Step = tuple[tuple[int, ...], ...]


def far(name: str, uses: dict[int, int], step: int, layer: int, **params: Any) -> list[int]:
    """What is planned in (step, layer) where the view shows `uses`: key -> layer event."""
    made = find("prefetch", name)(**params)
    assert isinstance(made, PrefetchPolicy)
    shown = np.full(LAYERS * EXPERTS, FAR)
    for key, event in uses.items():
        shown[key] = event
    view = StepView(LAYERS, EXPERTS, shown)
    view.step, view.layer = step, layer
    made.start(view)
    return list(made.plan())


USES = {0: 12, 1: 9, 4: 7, 5: 10, 8: 8, 9: 11, 10: 14}
"""step 2 is events 6 to 8, step 3 is 9 to 11"""


def test_oracle_plans_the_soonest_used_first_up_to_its_reach() -> None:
    assert far("oracle", USES, 2, 0) == [4, 8, 1]  # events 7 to 9
    assert far("oracle", USES, 2, 0, reach=5) == [4, 8, 1, 5, 9]
    assert far("oracle", USES, 2, -1) == [4, 8]  # before the step: events 6 to 8
    assert far("oracle", {}, 2, 0) == []


def test_queue_ahead_plans_the_rest_of_the_step_and_whole_steps() -> None:
    assert far("queue-ahead", USES, 2, 0, steps=0) == [4, 8]
    assert far("queue-ahead", USES, 2, 0) == [4, 8, 1, 5, 9]
    assert far("queue-ahead", USES, 2, 0, steps=None) == [4, 8, 1, 5, 9, 0, 10]


def test_equals_go_by_key() -> None:
    assert far("oracle", {6: 7, 4: 7, 5: 7}, 2, 0) == [4, 5, 6]


def streamed(layer: int, **params: Any) -> list[int]:
    return far("stream-everything", {}, 2, layer, **params)


def test_stream_everything_plans_all_experts_of_the_next_layers() -> None:
    assert streamed(-1) == [0, 1, 2, 3]
    assert streamed(0) == [4, 5, 6, 7]
    assert streamed(0, ring=2) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert streamed(2) == []


def test_a_ring_goes_on_with_the_next_step() -> None:
    assert streamed(2, wrap=True) == [0, 1, 2, 3]
    assert streamed(1, ring=9, wrap=True) == [8, 9, 10, 11, 0, 1, 2, 3]  # not the layer that runs


class Server:
    """Shows a prefetcher of level `layer` one layer event after the other."""

    def __init__(self, name: str, **params: Any) -> None:
        made = find("prefetch", name)(**params)
        assert isinstance(made, PrefetchPolicy)
        self.made, self.view = made, LayerView(LAYERS, EXPERTS)
        self.view.step = -1
        made.start(self.view)

    def step(self, *layers: tuple[int, ...]) -> list[list[int]]:
        """The plans at step start and at each gate; each is asked twice, as when the link falls idle."""
        self.view.step += 1
        plans = []
        for self.view.layer, self.view.current in enumerate(((), *layers), -1):
            plans.append(list(self.made.plan()))
            assert list(self.made.plan()) == plans[-1]
        return plans


def test_edgemoe_plans_what_followed_the_last_two_layers() -> None:
    edge = Server("edgemoe")
    assert edge.step((0,), (4,), (8,)) == [[], [], [], []]  # nothing has been learned
    assert edge.step((0,), (5,), (9,)) == [[], [4], [], []]  # 0 -> 4 once; 0, 5 is new
    assert edge.step((1,), (4,), (10,)) == [[], [], [], []]  # 1, 4 is not 0, 4
    assert edge.step((0,), (4,), (8,)) == [[], [4], [8], []]  # 0 -> 4 and 5 once each: the lower; 0, 4 -> 8
    assert edge.step((1,), (4,), (11,)) == [[], [4], [10], []]


def test_edgemoe_sums_over_the_pairs_of_a_batch() -> None:
    edge = Server("edgemoe")
    edge.step((0, 1), (4,), (8, 9))
    edge.step((0,), (4,), (9,))
    # 0, 4 was followed by 8 once and 9 twice of three; 1, 4 by 8 and 9 once each. As many as the layer uses: one.
    assert edge.step((0, 1), (4,), (9,)) == [[], [4], [9], []]
    wide = Server("edgemoe", width=3)
    wide.step((0, 1), (4,), (8, 9))
    assert wide.step((0, 1), (4,), (9,))[2] == [8, 9]


def test_edgemoe_gives_up_what_proved_wrong() -> None:
    edge = Server("edgemoe")
    edge.step((0,), (4,), (8,))
    edge.view.step, edge.view.layer, edge.view.current = 1, 1, (5,)
    assert list(edge.made.cancel([0, 4, 5, 8])) == [0, 4]


def test_edgemoe_learns_nothing_across_a_layer_that_it_missed() -> None:
    edge = Server("edgemoe")
    edge.view.step, edge.view.layer, edge.view.current = 0, 1, (4,)
    assert edge.made.plan() == ()
    edge.view.layer, edge.view.current = 2, (8,)
    assert edge.made.plan() == ()
    assert not edge.made.tables  # type: ignore[attr-defined]


def test_edgemoe_tables_do_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    edge = Server("edgemoe")
    monkeypatch.setitem(type(edge.made).plan.__globals__, "HALVED_AFTER", 4)
    for _ in range(50):
        edge.step((0,), (4,), (8,))
    assert 4 <= edge.made.tables[1].max() < 8  # type: ignore[attr-defined]


def test_moe_infinity_plans_the_matched_matrix_near_layers_first() -> None:
    moe = Server("moe-infinity", window=1)
    assert moe.step((0,), (4,), (8,)) == [[], [], [], []]
    assert moe.step((1,), (5, 6), (9,)) == [[], [], [], []]  # like nothing kept
    # Like the first step: 4 has 1 * 2/3, 8 has 1 * 1/3.
    assert moe.step((0,), (4,), (8,)) == [[], [4, 8], [8], []]
    # Like the second: 5 and 6 have 1/2 * 2/3 each, as much as 9: 1 * 1/3 (of equals the lower key).
    assert moe.step((1,), (5,), (9,)) == [[], [5, 6, 9], [9], []]


def test_moe_infinity_counts_over_a_window() -> None:
    moe = Server("moe-infinity", window=3, limit=2)
    for last in (4, 5, 5):
        moe.step((0,), (last,), (8,))
    # 5 has 2/3 * 2/3, 8 has 1 * 1/3, 4 has 1/3 * 2/3.
    assert moe.step((0,), (4,), (8,)) == [[], [5, 8], [8], []]


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("oracle", {"reach": 0}),
        ("queue-ahead", {"steps": -1}),
        ("queue-ahead", {"unknown": "soon"}),
        ("stream-everything", {"ring": 0}),
        ("stream-everything", {"wrap": 1}),
        ("edgemoe", {"width": 0}),
        ("moe-infinity", {"maps": 0}),
        ("moe-infinity", {"limit": 0}),
    ],
)
def test_parameters(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        find("prefetch", name)(**params)
