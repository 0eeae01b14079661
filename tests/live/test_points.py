"""Grids, what is measured at corners that cannot be, and what --points may say."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the live extra (torch)")

from moesim.errors import InputError  # noqa: E402
from moesim.hardware.files import ARGUMENTS  # noqa: E402
from moesim.hardware.shape import load_shape, shipped_shapes  # noqa: E402
from moesim.live.points import default_points, doubling, real, size_of, split, with_points  # noqa: E402

SHAPE = load_shape("smollm2-135m-readme")
AXES = default_points(SHAPE, "cpu", quick=True)


def test_doubling_ends_where_it_should() -> None:
    assert doubling(1, 8) == [1, 2, 4, 8]
    assert doubling(1, 6) == [1, 2, 4, 6]
    assert doubling(3, 100, 4) == [3, 12, 48, 100]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("name", shipped_shapes())
def test_default_grids_are_all_that_a_table_needs(name: str, device: str) -> None:
    shape = load_shape(name)
    grids = default_points(shape, device, quick=False)
    assert grids.keys() == ARGUMENTS.keys()
    for component, axes in grids.items():
        assert list(axes) == [axis for axis in ARGUMENTS[component] if axis in axes]
        assert all(points == sorted(set(points)) for points in axes.values())
    assert grids["experts"]["active"][-1] == shape.experts
    assert grids["experts"]["tokens"][-1] == grids["layer_rest"]["tokens"][-1] * shape.top_k
    assert sum(map(size_of, grids.values())) < 1000


def test_corners_that_cannot_be_are_the_nearest_that_can() -> None:
    experts = {"tokens": [1], "active": [1]}
    assert real("experts", (1, 4), experts) == (4, 4, 1)  # a token each
    assert real("experts", (10, 4), experts) == (10, 4, 3)  # shared evenly
    largest = {**experts, "largest": [1]}
    assert real("experts", (10, 4, 1), largest) == (10, 4, 3)
    assert real("experts", (10, 4, 5), largest) == (10, 4, 5)
    assert real("experts", (10, 4, 99), largest) == (10, 4, 7)  # the others have one each
    decode = {"batch": [1], "context": [1]}
    assert real("attention_decode", (8, 1), decode) == (8, 8)
    assert real("attention_decode", (8, 100), decode) == (8, 100)
    assert real("attention_prefill", (8,), {"tokens": [8]}) == (8, 0)


@pytest.mark.parametrize(("tokens", "active", "largest"), [(10, 4, 3), (10, 4, 7), (1, 1, 1), (7, 7, 1), (9, 2, 5)])
def test_tokens_are_split_with_one_at_least(tokens: int, active: int, largest: int) -> None:
    counts = split(tokens, active, largest)
    assert (sum(counts), len(counts), max(counts), min(counts) > 0) == (tokens, active, largest, True)


def test_points_of_one_component_and_of_all() -> None:
    found = with_points(AXES, ["tokens=1,5", "experts.largest=1..8", "experts.tokens=2, 64"], SHAPE)
    assert found["layer_rest"] == {"tokens": [1, 5]}
    assert found["experts"] == {"tokens": [2, 64], "active": [1, 2, 7], "largest": [1, 2, 4, 8]}
    assert found["attention_prefill"]["past"] == AXES["attention_prefill"]["past"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tokens=8,4", "each above the one before"),
        ("tokens=", "is no number"),
        ("tokens=8..4", "each above the one before"),
        ("experts.past=1", "unknown axis 'past'"),
        ("expert.tokens=1", "unknown component 'expert'"),
        ("layer_rest.tokens=0,1", "starts at 0; 1 is the least"),
        ("experts.active=1,8", "has 7 experts"),
    ],
)
def test_wrong_points_are_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        with_points(AXES, [text], SHAPE)
